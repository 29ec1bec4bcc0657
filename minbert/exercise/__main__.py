"""Make a student's copy of the project, in which the bodies of the functions to be written are taken out.

  python -m minbert.exercise --out DIR                           all parts
  python -m minbert.exercise --out DIR --parts attention,layer   these; the others stay as they are
  python -m minbert.exercise --out DIR --layout course           bert.py and optimizer.py on top, as in the course

Inside it, `python sanity_check.py` says what is next, what is wrong and why. minbert/exercise/TEACHERS.md says how to
use it in a class.
"""

from pathlib import Path

from minbert.errors import one_line_errors
from minbert.exercise.copies import write_copy
from minbert.exercise.parts import PARTS, choose
from minbert.parser import Parser, names


def main(argv: list[str] | None = None):
    """Write a copy, and say what was taken out."""
    parser = Parser(description=__doc__, prog="python -m minbert.exercise")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    parser.add_argument("--parts", type=names, default=",".join(PARTS), metavar="LIST", help="of these parts")
    parser.add_argument("--layout", choices=("package", "course"), default="package", help="where bert.py stands")
    with one_line_errors():
        args = parser.parse_args(argv)
        parts = choose(args.parts)
        taken = write_copy(args.out, parts, args.layout)
        own = {function for part in parts for function in part.functions}
        more = [f"{function} in {file}" for file, function in taken if (file, function) not in own]
        print(f"{args.out}: {len(taken)} functions to write, of {', '.join(part.name for part in parts)}")
        if more:
            print(f"Among them are functions of other parts that have lines in common with these: {', '.join(more)}")


if __name__ == "__main__":
    main()
