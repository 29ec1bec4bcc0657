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

from minbert.sanity import parts, report
from minbert.sanity.check import check
from minbert.sanity.launch import Child

NAMES = tuple(parts.NAMES)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", default=",".join(NAMES), metavar="NAMES", help=f"only these, of {','.join(NAMES)}")
    parser.add_argument("--json", action="store_true", help="the result for a program")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds for each part")
    args = parser.parse_args()
    wanted = ["optimizer" if name == "adamw" else name for name in args.part.split(",")]
    if unknown := set(wanted) - set(NAMES):
        sys.exit(f"error: --part {sorted(unknown)[0]}: there is no such part; there are {', '.join(NAMES)}")
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal without √
    child = Child()
    try:
        project = check(Path(__file__).resolve().parent, child, [n for n in NAMES if n in wanted], args.timeout)
    finally:
        child.close()
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    print(report.as_json([project]) if args.json else report.page(project, colour))
    sys.exit(report.exit_status([project]))


if __name__ == "__main__":
    main()
