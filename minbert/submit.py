"""A course's submission: one zip with the prediction files and with this project as flat files, without `minbert/`.

    python -m minbert.submit --out submission.zip                         Stanford's: *.py and predictions/*
    python -m minbert.submit --course cmu --id ANDREWID                   CMU's: all in one folder of that name

The courses' own `prepare_submit.py` takes the files of one folder, and a submission without `minbert/` could not run.
So each module becomes a file beside `classifier.py`, and imports its neighbours by their plain names. Modules that the
two scripts do not need stay out: the sanity check, the further pre-training, pages and experiments.
"""

import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

from minbert.errors import UserError, one_line_errors
from minbert.files import atomic
from minbert.parser import Parser

PACKAGE = Path(__file__).resolve().parent
SCRIPTS = ("classifier.py", "multitask_classifier.py")
LEFT_OUT = ("__init__", "submit", "trace", "results", "experiments")
NAMES = {"stanford": "cs224n_default_final_project_submission.zip"}
CMU = [f"{task}-{split}-output" for task in ("sst", "cfimdb") for split in ("dev", "test")]  # .csv, until 2022 .txt


def flat_files() -> dict[str, str]:
    """The project as files of one folder: name → source."""
    modules = [path for path in sorted(PACKAGE.glob("*.py")) if path.stem not in LEFT_OUT]
    scripts = [PACKAGE.parent / name for name in SCRIPTS]
    return {path.name: flat(path.read_text("utf-8")) for path in (*modules, *scripts)}


def flat(source: str) -> str:
    """A module's source with imports from this package as imports of neighbours."""
    source = re.sub(r"^(\s*)from minbert import (\w+)", r"\1import \2", source, flags=re.M)
    return re.sub(r"^(\s*)from minbert\.(\w+) import", r"\1from \2 import", source, flags=re.M)


def write_submission(path: Path, folder: str, sources: dict[str, str], predictions: Sequence[Path], inside: str = ""):
    """Write the zip, whole or not at all. folder: of all files, as "NAME/" or ""; inside: of the predictions in it."""
    with atomic(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, source in sources.items():
            archive.writestr(f"{folder}{name}", source)
        for file in predictions:
            archive.write(file, f"{folder}{inside}{file.name}")


def main(argv: list[str] | None = None):
    parser = Parser(description=__doc__, prog="python -m minbert.submit")
    parser.add_argument("--course", choices=("stanford", "cmu"), default="stanford", help="whose submission")
    parser.add_argument("--id", metavar="ANDREWID", help="CMU's name of the folder and the file")
    parser.add_argument("--predictions", metavar="DIR", type=Path, help="where the prediction files are (default: "
                        "predictions/ for stanford, the current folder for cmu)")  # fmt: skip
    parser.add_argument("--out", metavar="FILE", type=Path, help="the zip (default: the course's name for it)")
    with one_line_errors():
        args = parser.parse_args(argv)
        if args.course == "cmu":
            if not args.id:
                parser.error("--course cmu needs --id ANDREWID")
            folder = args.predictions or Path()
            files = [
                next((folder / f"{n}{e}" for e in (".csv", ".txt") if (folder / f"{n}{e}").exists()), n) for n in CMU
            ]
            missing = [name for name in files if isinstance(name, str)]
            if missing:
                raise UserError(f"{folder / missing[0]}.csv: not there (nor .txt); --predictions names the folder")
            out = args.out or Path(f"{args.id}.zip")
            write_submission(out, f"{args.id}/", flat_files(), files)
        else:
            folder = args.predictions or Path("predictions")
            files = sorted(folder.glob("*-out*.csv"))
            if not files:
                raise UserError(f"{folder}: holds no prediction files; --predictions names the folder")
            out = args.out or Path(NAMES["stanford"])
            write_submission(out, "", flat_files(), files, "predictions/")
        print(f"{out}: {len(files)} prediction files and the code, flat")


if __name__ == "__main__":
    main()
