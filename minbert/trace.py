"""A sentence on its way through the real model, a line a stage:

    python -m minbert.trace "A film to remember."

A line says where a value is made (file and line), its shape, its first two numbers, its name, and what it means. The
lines are the comments of `bert.py` that begin with a shape; the code is watched while it runs (`reading/watch.py`).
What happens in every layer is shown for the first layer.
"""

import re
import sys

from minbert.errors import UserError, one_line_errors
from minbert.parser import Parser
from minbert.reading.claims import Claim
from minbert.reading.watch import PACKAGE, Watch

NUMBERS = 2


def trace(sentence: str, pretrained: str) -> list[tuple[str, ...]]:
    """Run a sentence through the BERT of `pretrained`; returns (place, shape, numbers, name, meaning) for each.

    Must be called before any other module of minbert that computes is imported.
    """
    watch = Watch()
    watch.install()
    from minbert.pretrained import load_bert, load_tokenizer

    bert, tokenizer = load_bert(pretrained), load_tokenizer(pretrained)
    row = tokenizer.single(tokenizer.encode([sentence])[0])
    pieces = tokenizer.convert_ids_to_tokens(row.ids)
    with watch.playing("a sentence", {}):
        bert(**tokenizer.pad([row]))
    stages = []
    for key, sight in watch.seen.items():
        claim = watch.claims[key][0]
        line = (PACKAGE.parent / claim.file).read_text(encoding="utf-8").splitlines()[claim.line - 1]
        name, meaning = name_of(claim, line), claim.words if claim.about == "value" else ""
        if claim.owner == "BertTokenizer.pad":
            name, meaning = "input_ids", f"the word pieces {' '.join(pieces)}"
        if meaning:
            shape = f"({', '.join(map(str, sight.shape))})"
            numbers = " ".join(f"{n or 0:.4g}" for n in sight.numbers[:NUMBERS])  # `or 0`: -0 is 0
            stages.append((f"{claim.file}:{claim.line}", shape, numbers, name, meaning))
    return stages


def name_of(claim: Claim, line: str) -> str:
    """The variable that a line assigns to, the function whose value it returns, or the layer that it calls."""
    variable, layer = re.match(r"\s*(\w+) = ", line), re.match(r"\s*\+? ?self\.(\w+)\(", line)
    return (variable or layer)[1] if variable or layer else claim.owner.rpartition(".")[2]


def main(argv: list[str] | None = None):
    """Print the stages of one sentence."""
    parser = Parser(description=__doc__, prog="python -m minbert.trace")
    parser.add_argument("sentence", help="one sentence, in quotes")
    parser.add_argument("--pretrained", default="minilm", help="a name of the Hugging Face hub, a directory, or minilm")
    with one_line_errors():
        args = parser.parse_args(argv)
        if not args.sentence.strip():
            raise UserError('the sentence is empty; write one: python -m minbert.trace "A film to remember."')
        stages = trace(args.sentence, args.pretrained)
        widths = [max(len(stage[i]) for stage in stages) for i in range(4)]
        for stage in stages:
            *cells, meaning = stage
            print("  ".join(f"{cell:{width}}" for cell, width in zip(cells, widths, strict=True)), meaning, sep="  ")


if __name__ == "__main__":
    main(sys.argv[1:])
