"""Check the shapes that the source states.

  python -m minbert.reading --check      which shapes in comments and docstrings are false; exit status 1 if one is

Everything that is shown was seen while the real code ran, with the weights of --pretrained.
"""

import sys

from minbert.errors import UserError, one_line_errors
from minbert.parser import Parser
from minbert.reading.scenes import play
from minbert.reading.watch import Watch


def main(argv: list[str] | None = None):
    """Watch the code, then check it."""
    parser = Parser(description=__doc__, prog="python -m minbert.reading")
    parser.add_argument("--check", action="store_true", help="check the shapes, and write nothing")
    parser.add_argument("--pretrained", default="minilm", help="a name of the Hugging Face hub, a directory, or minilm")
    with one_line_errors():
        args = parser.parse_args(argv)
        if not args.check:
            parser.error("give --check")
        watch = Watch()
        watch.install()
        play(watch, args.pretrained)
        problems = watch.verdict()
        if problems:
            print(*problems, sep="\n", file=sys.stderr)
            raise UserError(f"{len(problems)} of {len(watch.claims)} shapes are false or were not seen")
        if watch.alike():
            raise UserError(f"--pretrained {args.pretrained}: {watch.alike()[0]} are equal there; take another BERT")
        print(f"{len(watch.claims)} shapes are stated, and each was seen to be true")


if __name__ == "__main__":
    main(sys.argv[1:])
