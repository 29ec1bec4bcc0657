#!/usr/bin/env python3
"""Check this exercise: what is to be written next, what is wrong, and why?

  python sanity_check.py                          all parts
  python sanity_check.py --part attention,layer   only these

Your code runs in a copy of this folder, in a process of its own, with a time limit. Exit status: 0 all that is there is
right, 1 something is wrong, 2 something could not be checked.
"""

import argparse
import os
import sys
from pathlib import Path

from minbert.errors import UserError, one_line_errors, stop_early

if __name__ == "__main__":
    stop_early()

from minbert.parser import Parser, positive
from minbert.sanity import parts, report
from minbert.sanity.check import check
from minbert.sanity.launch import Child


def named_parts(text: str) -> list[str]:
    """The names of parts, from a list with commas, in the order of the check."""
    names = [{"adamw": "optimizer"}.get(name, name) for name in (word.strip().casefold() for word in text.split(","))]
    if unknown := [name for name in names if name not in parts.NAMES]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is no part; there are {', '.join(parts.NAMES)}")
    return [name for name in parts.NAMES if name in names]


def main(argv: list[str] | None = None):
    parser = Parser(description=__doc__)
    every = ",".join(parts.NAMES)
    parser.add_argument("--part", type=named_parts, default=every, metavar="NAMES", help=f"only these, of {every}")
    parser.add_argument("--json", action="store_true", help="the result for a program")
    parser.add_argument("--timeout", type=positive, default=10.0, help="processor seconds for each part")
    with one_line_errors():
        args = parser.parse_args(argv)
        child = Child()
        try:
            project = check(Path(__file__).resolve().parent, child, args.part, args.timeout)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
        finally:
            child.close()
        colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        print(report.as_json([project]) if args.json else report.page(project, colour))
        sys.exit(report.exit_status([project]))


if __name__ == "__main__":
    main()
