"""Recipes: the flags of a run in a file, and the tables of the reports as lists of such files.

    # round-robin: SST .524, Quora .726, STS .583, 67 s an epoch      the row's name, and what it scored in the report
    # Which report; what it says, what it leaves unsaid, what stands here instead.
    classifier.py                    the script; without this line it is multitask_classifier.py
    --schedule round_robin           one flag a line
    --smart 0.1 | 1 | 10             several values: a run of each, see `experiments.py`

`--recipe NAME` of the three scripts takes minbert/recipes/NAME.txt, or any file of this form. Flags on the command line
replace the recipe's, wherever they stand.
"""

import re
import shlex
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from minbert.errors import UserError

FOLDER = Path(__file__).resolve().parent / "recipes"
SCRIPTS = {"m": "multitask_classifier.py", "c": "classifier.py", "p": "minbert.pretraining"}
NAMES = {"SST": "sst", "CFIMDB": "cfimdb", "Quora": "para", "STS": "sts"}  # in a recipe's first line → task
OR = "|"  # between the values of a flag that has several


def letter_of(script: Any) -> str | None:
    """A script's letter, from its name or from the letter, which earlier versions wrote; None for anything else."""
    return next((letter for letter, name in SCRIPTS.items() if script in (letter, name)), None)


class Table(NamedTuple):
    """A table of a report: its title, and its rows in order, by the names of their recipes."""

    title: str
    recipes: tuple[str, ...]


TABLES = {
    "baselines": Table("The course's handout: one task at a time", ("baseline-frozen", "baseline-fine-tuned")),
    "A": Table(
        "Report A: Trujillo & Mahvash 2024, adversarial regularization and priority sampling",
        ("a-baseline", "a-separate-priority", "a-separate-smart", "a-joint-priority", "a-joint-smart"),
    ),
    "B": Table(
        "Report B: Hollister, Cooper & Brink 2023, Walk Less and Only Down Smooth Valleys",
        (
            "b-frozen", "b-sst-only", "b-sst-only-smart", "b-round-robin", "b-round-robin-smart",
            "b-quora-first-smart", "b-interleaved", "b-interleaved-smart", "b-interleaved-relational",
        ),
    ),
    "C": Table(
        "Report C: Griggs, gradient surgery and cosine similarity",
        ("c-baseline", "c-smart", "c-smart-pcgrad", "c-smart-pcgrad-cosine"),
    ),
    "D": Table(
        "Report D: Mo & Ho, further pre-training and LoRA",
        ("d-fine-tune", "d-mlm", "d-mlm-nli", "d-mlm-nli-lora-pcgrad", "d-mlm-nli-smart"),
    ),
    "E": Table(
        "Report E: Zhang, Pan & Tao, projected attention layers",
        (
            "e-sequential", "e-additive", "e-pal-sequential", "e-pal-pcgrad", "e-low-rank-sequential",
            "e-low-rank-decay", "e-pal-annealed",
        ),
    ),
    "sweep": Table("The weight of SMART's smoothness term", ("lambda-sweep",)),
}  # fmt: skip


class Recipe(NamedTuple):
    """The content of a recipe's file. first: its first line. script: a key of SCRIPTS. lines: (number, words) of each
    line with a flag that has one value or none. flag, values, line: the flag that has several, as it is written, these,
    and the number of its line; "", () and 0 without one."""

    name: str
    path: Path
    first: str
    script: str
    lines: list[tuple[int, list[str]]]
    flag: str = ""
    values: tuple[str, ...] = ()
    line: int = 0

    @property
    def title(self) -> str:
        """The row's name: its first line without the scores."""
        return self.first.rpartition(": ")[0] if self.scores else self.first

    @property
    def scores(self) -> dict[str, float]:
        """The scores in its first line: {"sst": .524, "para": .726, "sts": .583}."""
        return {NAMES[n]: float(x) for n, x in re.findall(r"\b(SST|CFIMDB|Quora|STS) (-?\d*\.\d+)", self.first)}

    @property
    def seconds(self) -> float | None:
        """The seconds of an epoch in its first line, or None."""
        match = re.search(r"([\d,]+) (s|min) an epoch$", self.first)
        return float(match[1].replace(",", "")) * {"s": 1, "min": 60}[match[2]] if match else None

    @property
    def runs(self) -> list[tuple[str, list[str]]]:
        """The name of each of its runs, without the seed, and the flag that is chosen for it.

        [("round-robin", [])], or [("sweep-smart-0.1", ["--smart", "0.1"]), …].
        """
        words = [[self.flag, value] for value in self.values] or [[]]
        return [(re.sub(r"[/\\:]+", "-", "-".join([self.path.stem, *(x.lstrip("-") for x in w)])), w) for w in words]


def names() -> list[str]:
    """The recipes of this project: those of the tables in their order, then the others."""
    rows = [name for table in TABLES.values() for name in table.recipes]
    return rows + sorted(path.stem for path in FOLDER.glob("*.txt") if path.stem not in rows)


def read_recipe(name: str) -> Recipe:
    """A recipe by its name, or by the path of a file; UserError where there is none, or where a line is no flag."""
    path = FOLDER / f"{name}.txt"
    if not path.is_file():
        path = Path(name)
        if not path.is_file():
            near = get_close_matches(name.lower(), names(), 3, 0.5)
            hint = f"; did you mean {_either(near)}?" if near else ""
            raise UserError(f"--recipe {name}: is neither a recipe nor a file{hint} (--list_recipes lists the recipes)")
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text, and a recipe is a file of flags, one a line") from error
    return parse_recipe(name, path, text)


def parse_recipe(name: str, path: Path, text: str) -> Recipe:
    """The recipe in a file's text."""
    first = next((line.lstrip("# ") for line in text.splitlines() if line.startswith("#")), "")
    recipe = Recipe(name, path, first, "m", [])
    for number, line in enumerate(text.splitlines(), 1):
        try:
            words = [] if line.lstrip().startswith("#") else shlex.split(line, comments=True)
        except ValueError as error:
            raise UserError(f"{path}, line {number}: {str(error).lower()}") from error
        if not words:
            continue
        if words[0] in SCRIPTS.values() and len(words) == 1:
            recipe = recipe._replace(script=letter_of(words[0]))
        elif not words[0].startswith("--"):
            raise UserError(f"{path}, line {number}: {words[0]!r} is neither a flag nor {_either(SCRIPTS.values())}")
        elif OR in words:
            if recipe.flag or len(words) % 2 or set(words[2::2]) != {OR} or OR in words[1::2]:
                raise UserError(f"{path}, line {number}: one flag may have several values: --flag 1 {OR} 2 {OR} 3")
            recipe = recipe._replace(flag=words[0], values=tuple(words[1::2]), line=number)
        else:
            recipe.lines.append((number, words))
    return recipe


def _either(words: Sequence[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def listing() -> str:
    """A text with the first line of every recipe, table by table."""
    text = ["The scores are the reports', of bert-base-uncased, on the dev sets."]
    rows = {name for table in TABLES.values() for name in table.recipes}
    others = Table("Recipes of no table", tuple(name for name in names() if name not in rows))
    for title, recipes in (*TABLES.values(), others):
        text += [f"\n{title}"] if recipes else []
        text += [f"  {name:26} {read_recipe(name).first}" for name in recipes]
    return "\n".join(text)
