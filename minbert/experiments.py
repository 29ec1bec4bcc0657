"""Run the rows of the reports' tables, and write the tables: their scores beside ours.

    python -m minbert.experiments --table B --pretrained minilm --limit 2000 --seeds 3 --out runs/experiments

Every row is a recipe (`--list_recipes` of the scripts), and every row and seed is a run of a script in a folder of its
own, OUT/RECIPE-SEED. A run that was done with the same flags is skipped, one that was stopped is resumed. --print lists
the commands, one a line, for the scheduler of a cluster; --read makes the tables from the runs that are in OUT. All
other flags go to the scripts that have them.
"""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from minbert.command_line import BY_CONTENT, FREE, check_columns, make_parser, maker, recipe_values
from minbert.description import other_data
from minbert.errors import UserError, one_line_errors
from minbert.files import file_name, sha256
from minbert.flags import flags_of, flags_then
from minbert.parser import Flag, Parser, count, seed
from minbert.recipe import SCRIPTS, TABLES, Table, read_recipe
from minbert.results import folders_of, markdown
from minbert.settings import data_folder

ROOT = Path(__file__).resolve().parents[1]
OWN = [
    Flag("--table", "the tables: " + ", ".join(TABLES) + " or all, with commas; or names of recipes", metavar="LIST"),
    Flag("--out", "folder of the runs' folders and of the tables", default="runs/experiments", metavar="DIR"),
    Flag("--seeds", "runs of each row", count, 1, "N"),
    Flag("--seed", "the seed of each row's first run; the next run has the next number", seed, 11711, "N"),
    Flag("--jobs", "runs at a time", count, 1, "N"),
    Flag("--predictions", "write prediction files too, which takes long: --limit does not shorten test files", None,
         False),
    Flag("--print", "print the commands, one a line, and run nothing", None, False),
    Flag("--read", "write the tables from the runs in OUT, and run nothing", None, False),
]  # fmt: skip
sha256_once = cache(sha256)
OURS = ("recipe", "resume", "overwrite", "quickstart", "predict", "predict_only", "list_recipes", "skip_predictions")


class Job(NamedTuple):
    """A run. name: of its folder in OUT. words: its flags. after: the job that makes its weights, or ""."""

    name: str
    recipe: str
    script: str
    words: list[str]
    out: Path
    after: str = ""

    @property
    def log(self) -> Path:
        return self.out.with_name(self.name + ".log")

    @property
    def command(self) -> list[str]:
        """The command, without `python`."""
        script = SCRIPTS[self.script]
        here = script if (Path.cwd() / script).exists() else str(ROOT / script)
        return [*(["-m", script] if self.script == "p" else [here]), *self.words]


# ------------------------------------------------------------------------------------------------ which runs


def get_args(argv: Sequence[str] | None = None) -> tuple[Namespace, dict[str, list[str]]]:
    """Our flags, and the runs': {"--limit": ["--limit", "300"], …}. Wrong flags end the program with one line."""
    parser = Parser(description=__doc__, prog="python -m minbert.experiments", allow_abbrev=False)
    parser.add_flags("experiments", OWN)
    args, words = parser.parse_known_args(argv)
    if not args.table or (args.read and args.print):
        parser.error("--read cannot be combined with --print" if args.table else "--table is needed")
    args.out, name, chunks = Path(args.out), "", {}
    for word in words:
        if word.startswith("--"):
            name = word.partition("=")[0]
            chunks[name] = []
        if not name:
            parser.error(f"unrecognized argument: {word}")
        chunks[name].append(word)
    return args, chunks


def tables_of(text: str) -> dict[str, Table]:
    """The tables that --table names; names of recipes make a table of their own."""
    words = list(TABLES) if text == "all" else text.split(",")
    rows = tuple(word for word in words if word not in TABLES)
    for word in rows:
        try:
            read_recipe(word)
        except UserError as error:
            raise UserError(f"--table {word}: the tables are {', '.join(TABLES)}, or a recipe; {error}") from error
    chosen = {word: TABLES[word] for word in words if word in TABLES}
    return chosen | ({"rows": Table("Single rows", rows)} if rows else {})


def jobs_of(args: Namespace, chunks: dict[str, list[str]]) -> list[Job]:
    """All runs, in their order. UserError for a flag that no chosen script has, or that is set here for each run."""
    jobs, used = {}, set()

    def add(name: str, recipe: str, script: str, number: int, more: list[str], drop: str = "", after: str = ""):
        words = ["--recipe", recipe]
        for flag in [flag.name for flag in flags_of(script).values() if flag.name in chunks]:
            used.add(flag)
            words += chunks[flag] if flag != drop else []
        words += [*more, "--seed", str(number), "--out", str(args.out / name)]
        words += [] if script == "p" or args.predictions else ["--skip_predictions"]
        if name in jobs:
            raise UserError(f"--table {args.table}: {jobs[name].recipe} and {recipe} would both run in "
                            f"{args.out / name}; rename one of them")  # fmt: skip
        jobs[name] = Job(name, recipe, script, words, args.out / name, after)

    for flag in chunks:
        if flag.lstrip("-") in OURS:
            raise UserError(f"{flag}: is set for each run by `python -m minbert.experiments`; leave it out")
    for row in dict.fromkeys(row for table in tables_of(args.table).values() for row in table.recipes):
        recipe = read_recipe(row)
        reading = maker(recipe_values(recipe.script, row).get("pretrained"))
        weights, drop = (reading.name, "--pretrained") if reading else ("", "")
        if weights and weights not in jobs:
            add(weights, weights, "p", seed_of(args.out / weights, args.seed), [])
        for label, chosen in recipe.runs:
            chosen += [drop, str(args.out / weights)] if weights else []
            for number in range(args.seed, args.seed + args.seeds):
                add(f"{label}-{number}", row, recipe.script, number, chosen, drop, weights)
    if unused := [flag for flag in chunks if flag not in used]:
        raise UserError(f"{unused[0]}: none of the scripts of --table {args.table} has this flag")
    return list(jobs.values())


def seed_of(folder: Path, default: int) -> int:
    """The seed of the run in a folder; `default` where there is none. Runs of further seeds share a row's weights."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # `state_of` names a damaged run
        return json.loads((folder / "run.json").read_text("utf-8"))["flags"]["seed"]
    return default


# ------------------------------------------------------------------------------------------------ what is done


def values_of(job: Job) -> dict[str, Any]:
    """The values of all flags of a run, as its run.json has them."""
    parser = make_parser(job.script, "")
    parser.set_defaults(**recipe_values(job.script, job.recipe))
    values = vars(parser.parse_args(job.words))
    check_columns(job.script, values)
    return json.loads(json.dumps(values, default=str))


def file_now(values: Mapping[str, Any], task: str, split: str, before: Mapping[str, Mapping[str, str]]) -> Path:
    """The data file that a run with these flags reads, where another run read before[task][split]."""
    own = values.get(f"{task}_{split}") or (values[split] if values.get("train") else None)
    return Path(own) if own else data_folder(values["data"]) / file_name(before[task][split])


def state_of(job: Job) -> str:
    """Whether a run is "new", "stopped" or "done", from its folder. UserError where the folder holds another run."""
    values, finished = values_of(job), []
    folders = folders_of(job.script, values)
    for path in sorted(job.out.glob("*/run.json" if folders else "run.json")):
        try:
            run = json.loads(path.read_text("utf-8"))
            flags, data, files = flags_then(job.script, run["flags"]), run["data"], run["plan"]["files"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: cannot be read ({error}); remove {job.out} or name another --out") from error
        for key, flag in flags_of(job.script).items():
            if (key not in FREE or key in BY_CONTENT) and key != "data" and flags[key] != values[key]:
                raise UserError(f"{path}: belongs to a run with {flag.name} {flags[key]}, not {values[key]}; "
                                "name another --out")  # fmt: skip
        paths = {place: file_now(values, *place.split("/"), files) for place in data}
        now = {place: sha256_once(file) for place, file in paths.items() if file.exists()}
        if place := other_data(job.script, data, now):
            what = "is not what it was when" if place in now else "is not there, but its data were when"
            raise UserError(f"{paths[place]}: {what} {path} was written; name another --data or another --out")
        lacks = values.get("skip_predictions") is False and not (path.parent / "predictions").is_dir()
        finished.append(bool(run.get("finished")) and not lacks)
    return "new" if not finished else "done" if all(finished) and len(finished) >= len(folders) else "stopped"


def command_for(job: Job) -> list[str]:
    """The command that begins a run, or resumes a stopped one."""
    if state_of(job) == "new":
        return job.command
    saved = any(job.out.glob("checkpoints/*")) or any(job.out.glob("*/checkpoints/*"))
    return [*job.command, "--resume" if saved else "--overwrite"]


# ------------------------------------------------------------------------------------------------ running


def run_all(jobs: list[Job], at_once: int) -> dict[str, str]:
    """Run all, `at_once` at a time; returns name → error of those that failed.

    SIGTERM and Ctrl-C let the runs save first: each gets one SIGTERM. A second signal would end it without saving, so
    each has a session of its own, which the Ctrl-C of the terminal does not reach.
    """
    start, waiting, problems = time.monotonic(), list(jobs), {}
    running: dict[str, tuple[Job, subprocess.Popen]] = {}
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // at_once)))

    def end(job: Job, status: int):
        failed = status != 0
        if failed:
            lines = job.log.read_text("utf-8", errors="replace").strip().splitlines()
            killed = f"it was killed by signal {-status}"  # by the system, where the memory is full
            problems[job.name] = killed if status < 0 else (lines or ["no message"])[-1].removeprefix("error: ")
        n, minutes = len(jobs) - len(waiting) - len(running), (time.monotonic() - start) / 60
        left = f"; about {minutes / n * (len(jobs) - n):.1f} min left" if n < len(jobs) else ""
        result = f"failed ({problems[job.name]})" if failed else "done"
        print(f"[{n}/{len(jobs)}] {job.name}: {result}, after {minutes:.1f} min{left}", flush=True)

    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        while waiting or running:
            undone = {job.name for job in waiting} | set(running)
            for job in [job for job in waiting if job.after not in undone][: at_once - len(running)]:
                waiting.remove(job)
                if job.after in problems:
                    job.log.write_text(f"error: its weights, {job.after}, are not there\n", encoding="utf-8")
                    end(job, 1)
                    continue
                with open(job.log, "w", encoding="utf-8") as log:
                    command = [sys.executable, *command_for(job)]
                    process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
                    running[job.name] = job, process
            time.sleep(0.1)
            for job, process in [pair for pair in running.values() if pair[1].poll() is not None]:
                del running[job.name]
                end(job, process.returncode)
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.wait()
        signal.signal(signal.SIGTERM, before)
    return problems


def main(argv: Sequence[str] | None = None):
    with one_line_errors():
        args, chunks = get_args(argv)
        tables, jobs, problems = tables_of(args.table), jobs_of(args, chunks), {}
        if args.print:
            for job in jobs:
                values_of(job)
                print(shlex.join(["python", *job.command]))
            for job in [job for job in jobs if job.script == "p"]:
                print(f"{job.name} must be done before the runs that begin from {job.out}", file=sys.stderr)
            return
        if not args.read:
            todo = [job for job in jobs if state_of(job) != "done"]
            print(f"{len(jobs)} runs, {len(jobs) - len(todo)} of them done before, in {args.out}", flush=True)
            args.out.mkdir(parents=True, exist_ok=True)
            problems = run_all(todo, args.jobs)
        text = markdown(args.out, tables)
        path = args.out / f"tables-{'all' if args.table == 'all' else '-'.join(tables)}.md"
        path.write_text(text, encoding="utf-8")
        print(f"\n{text}\n{path}")
        if problems:
            name, problem = next(iter(problems.items()))
            raise UserError(f"{len(problems)} of {len(jobs)} runs failed, first {name}: {problem}")


if __name__ == "__main__":
    main()
