"""Make a page of the code: prose beside it, equations, and every shape as it was seen.

  python -m minbert.reading --out DIR    writes DIR/index.html; needs pip install -e ".[reading]"
  python -m minbert.reading --check      says which shapes in comments and docstrings are false, and writes nothing

The real code runs with the weights of --pretrained. A shape that is false stops both, with exit status 1.
"""

import sys
from pathlib import Path

from minbert.errors import UserError, one_line_errors
from minbert.parser import Parser
from minbert.reading.page import check_packages, write_page
from minbert.reading.scenes import play
from minbert.reading.watch import Watch


def main(argv: list[str] | None = None):
    """Watch the code, check it, and write the page."""
    parser = Parser(description=__doc__, prog="python -m minbert.reading")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write the page")
    parser.add_argument("--check", action="store_true", help="check the shapes, and write nothing")
    parser.add_argument("--pretrained", default="minilm", help="a name of the Hugging Face hub, a directory, or minilm")
    with one_line_errors():
        args = parser.parse_args(argv)
        if bool(args.out) == args.check:
            parser.error("give --out DIR, or --check")
        if args.out:
            check_packages()  # before the scenes, which take a while
        watch = Watch()
        watch.install()
        stage = play(watch, args.pretrained)
        problems = watch.verdict()
        if problems:
            print(*problems, sep="\n", file=sys.stderr)
            raise UserError(f"{len(problems)} of {len(watch.claims)} shapes are false or were not seen")
        if watch.alike():
            says = "have the same size in every scene, so the check cannot tell them apart; use another --pretrained"
            raise UserError(f"{watch.alike()[0]} {says}")
        print(f"{len(watch.claims)} shapes are stated, and each was seen to be true")
        if args.out:
            print(write_page(watch, stage, args.out))


if __name__ == "__main__":
    main(sys.argv[1:])
