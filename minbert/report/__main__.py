"""`python -m minbert.report DIR [DIR …] [--out FILE]`."""

import importlib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import minbert.report
from minbert.errors import one_line_errors
from minbert.parser import Parser

MOST_WHOLE = 8  # runs that are shown whole on one page


def get_args(argv: Sequence[str] | None = None):
    """The folders, and where the page goes."""
    parser = Parser(prog="python -m minbert.report", description=minbert.report.__doc__)
    parser.usage = "%(prog)s DIR [DIR ...] [--out FILE]"
    parser.add_argument("folders", metavar="DIR", nargs="+", type=Path, help="the folder of a run, or one of several")
    parser.add_argument("--out", metavar="FILE", type=Path, help="the page (default: report.html in DIR or, if there "
                        "are several, in the folder that holds the first)")  # fmt: skip
    return parser.parse_args(argv)


def pictures() -> ModuleType | None:
    """The module that draws, or None where matplotlib is not installed."""
    try:
        return importlib.import_module("minbert.report.pictures")
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("matplotlib", "numpy", "PIL"):
            raise
        return None


def report(folders: Sequence[Path], out: Path | None = None) -> Path:
    """Write the page about the runs in some folders; returns its path.

    Raises UserError for a folder without a run, and where `out` is a folder or a file that is no page of ours.
    """
    from minbert.report import page
    from minbert.report.compare import distinct, label
    from minbert.report.folders import find_runs
    from minbert.report.read import read_run
    from minbert.report.sections import run_section
    from minbert.report.side_by_side import comparison, every_run

    runs = [read_run(path) for path in distinct([path for folder in folders for path in find_runs(folder)])]
    label(runs)
    path = out or (folders[0] if len(folders) == 1 else folders[0].resolve().parent) / "report.html"
    page.check_place(path)
    whole = len(runs) <= MOST_WHOLE
    sections, intro = [run_section(run, runs) for run in runs] if whole else [every_run(runs)], ""
    if len(runs) > 1:
        sections.insert(0, comparison(runs))
        intro = "The runs side by side, then each by itself." if whole else "The runs side by side, then each in a row."
    sheet = page.Page(pictures())
    title = f"Run {runs[0].name}" if len(runs) == 1 else f"{len(runs)} runs"
    text = page.page_html(title, sections, sheet, intro)
    page.write(path, text, sheet.files)
    return path


def main(argv: Sequence[str] | None = None):
    with one_line_errors():
        path = report((args := get_args(argv)).folders, args.out)
        print(f"page               {path}")
        print(f"to open it         python -m webbrowser {shlex.quote(path.resolve().as_uri())}")
        if not pictures():
            print("no pictures: matplotlib is not installed (pip install matplotlib)", file=sys.stderr)


if __name__ == "__main__":
    main()
