"""The reports' tables with our scores beside theirs, from the folders of runs (see `experiments.py`).

A row's runs are those whose run.json names its recipe. Runs that differ in more than the seed are rows of their own.
"""

import json
import re
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minbert.command_line import FILES, FREE, recipe_values
from minbert.errors import UserError
from minbert.flags import SINGLE, flags_of, flags_then
from minbert.recipe import NAMES, Table, letter_of, read_recipe

NOT_SHOWN = {*FREE, "seed", "recipe"} - {"pretrained", *FILES}
NOTE = """\
Scores are accuracies (for STS Pearson's r) on the dev sets, of the epoch with the best mean of the trained tasks.
"Theirs" are the report's, of bert-base-uncased and all data. ± is the standard deviation over the seeds. Seconds are of
an epoch of training, without the evaluation; GiB is the most memory that a run held."""


@dataclass
class Result:
    """A run, or the two of classifier.py. differs: the flags that are not the recipe's, as they are written. about:
    run.json. scores: dev, by task. seconds: of an epoch; of two runs, their sum. memory: the largest, in GiB."""

    name: str
    recipe: str
    differs: tuple[str, ...]
    about: dict[str, Any]
    scores: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    memory: float = 0.0
    unfinished: bool = False


def markdown(out: Path, tables: Mapping[str, Table]) -> str:
    """All tables in one text. out: the folder with the runs' folders."""
    results = read_results(out)
    return "\n".join([NOTE, *(_table(table, results, out) for table in tables.values())])


# ------------------------------------------------------------------------------------------------ reading


def folders_of(script: str, flags: Mapping[str, Any]) -> list[str]:
    """The folders in OUT of a call that has several runs: classifier.py has one a data set of the course. Else []."""
    tasks = flags.get("tasks") or ",".join(SINGLE)
    return list(dict.fromkeys(tasks.split(","))) if script == "c" and not flags.get("train") else []


def read_results(out: Path) -> list[Result]:
    """The runs in the folders in `out`; one whose run.json names no recipe is left out."""
    results: dict[Path, Result] = {}
    for path in sorted([*out.glob("*/run.json"), *out.glob("*/*/run.json")]):
        try:
            run = json.loads(path.read_text("utf-8"))
            folder = out / path.relative_to(out).parts[0]
            script = letter_of(run["script"])
            if not run["flags"].get("recipe") or (folder != path.parent and script != "c"):
                continue
            result = results.setdefault(
                folder, Result(folder.name, run["flags"]["recipe"], differing(script, run["flags"]), run)
            )
            result.unfinished |= not run.get("finished")
            for name in folders_of(script, run["flags"]):
                result.unfinished |= not (folder / name / "run.json").exists()
            metrics = path.parent / "metrics.jsonl"
            if metrics.exists():
                add_metrics(result, [json.loads(line) for line in metrics.read_text("utf-8").splitlines()])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path.parent}: cannot be read as a run ({error}); move it elsewhere") from error
    return list(results.values())


def add_metrics(result: Result, lines: list[dict[str, Any]]):
    """Add what metrics.jsonl says: the best epoch's scores, the mean seconds of an epoch, the largest memory."""
    epochs = [line for line in lines if line["epoch"]]
    best = [line for line in epochs if line.get("best")]
    if best:
        result.scores |= best[-1]["dev"]
    if epochs:
        result.seconds += statistics.mean(line["seconds"] for line in epochs)
        result.memory = max([result.memory, *(line.get("peak_memory_gib", 0.0) for line in epochs)])


def differing(script: str, flags: Mapping[str, Any]) -> tuple[str, ...]:
    """The flags of a run that are not its recipe's, with their values: ("--limit 300", …)."""
    rows = flags_of(script)
    try:
        expected = flags_then(script, recipe_values(script, flags["recipe"]))
    except UserError:  # a recipe that is no longer there
        return (f"--recipe {flags['recipe']}",)
    expected = json.loads(json.dumps(expected, default=str))
    return tuple(
        flag.written(flags)
        for key, flag in rows.items()
        if key in flags and key not in NOT_SHOWN and flags[key] != expected[key]
    )


# ------------------------------------------------------------------------------------------------ writing


def _table(table: Table, results: list[Result], out: Path) -> str:
    runs = [result for result in results if result.recipe in table.recipes]
    groups = {
        row: dict.fromkeys(result.differs for result in runs if result.recipe == row) or {(): None}
        for row in table.recipes
    }
    ours = {flag for result in runs for flag in result.differs}
    common = [flag for flag in sorted(ours) if all(flag in result.differs for result in runs)]
    scored = {task for row in table.recipes for task in read_recipe(row).scores} | {t for r in runs for t in r.scores}
    tasks = {title: task for title, task in NAMES.items() if task in scored}
    timed = any(read_recipe(row).seconds for row in table.recipes)
    head = ["row", *(f"{title} {whose}" for title in tasks for whose in ("theirs", "ours"))]
    head += ["s theirs"] * timed + ["s ours", "GiB", "runs"]
    lines = [f"\n## {table.title}\n", _about(runs, common), "", _row(head), _row(["---"] * len(head))]
    for row, variants in groups.items():
        recipe = read_recipe(row)
        for differs in variants:
            own = [run for run in runs if run.recipe == row and run.differs == differs]
            more = [flag for flag in differs if flag not in common]
            cells = [recipe.title + "".join(f" `{flag}`" for flag in more)]
            for task in tasks.values():
                cells += [_score(recipe.scores.get(task)), _spread([run.scores.get(task) for run in own])]
            cells += [f"{recipe.seconds:,.0f}" if recipe.seconds else ""] * timed
            ended = [run for run in own if run.seconds]  # an epoch at least
            cells += [f"{statistics.mean(run.seconds for run in ended):,.0f}" if ended else ""]
            cells += [f"{max(run.memory for run in ended):.2f}" if ended else ""]
            cells.append(", ".join(f"`{run.name}`{' (unfinished)' * run.unfinished}" for run in own) or _why(row, out))
            lines.append(_row(cells))
    return "\n".join(lines) + "\n"


def _about(runs: list[Result], common: list[str]) -> str:
    """What all runs of a table have in common, in words."""
    if not runs:
        return "No row of this table was run."

    def several(values) -> str:
        return ", ".join(sorted({str(value) for value in values}))

    days = several(run.about.get("started", "")[:10] for run in runs)
    processors = several(run.about.get("machine", {}).get("gpu") or run.about.get("machine", {}).get("processor")
                         for run in runs)  # fmt: skip
    threads = several(run.about.get("machine", {}).get("threads") for run in runs)
    torch = several(run.about.get("versions", {}).get("torch") for run in runs)
    seeds = several(run.about.get("seed") for run in runs)
    flags = f"with `{' '.join(common)}` beside the recipes" if common else "with the recipes' flags alone"
    return f"{len(runs)} runs {flags}, seeds {seeds}, {days}, {processors}, {threads} thread(s), PyTorch {torch}."


def _why(row: str, out: Path) -> str:
    """Why a row has no run: the last line of its log, if that is an error."""
    names = "|".join(re.escape(name) for name, _ in read_recipe(row).runs)
    for path in sorted(path for path in out.glob("*.log") if re.fullmatch(rf"({names})-\d+", path.stem)):
        last = (path.read_text("utf-8", errors="replace").strip().splitlines() or [""])[-1]
        if last.startswith("error: "):
            return "not run: " + last.removeprefix("error: ").replace("|", "\\|")
    return "not run"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}".replace("0.", ".", 1)


def _spread(values: list[float | None]) -> str:
    numbers = [value for value in values if value is not None]
    if not numbers:
        return ""
    spread = f" ± {_score(statistics.stdev(numbers))}" if len(numbers) > 1 else ""
    return _score(statistics.mean(numbers)) + spread
