#!/usr/bin/env python3
"""Fine-tune BERT on one sentence-classification task at a time: SST (5 classes), then CFIMDB (2 classes).

  python classifier.py --fine-tune-mode full-model                          the course's two data sets, from data/
  python classifier.py --option pretrain                                    the same with BERT frozen
  python classifier.py --train T --dev D --test E --dev_out P --test_out Q  files of the course's forms, CMU's too
  python classifier.py --train T --dev D --text headline --label topic      a data set of your own: csv, tsv, json lines

Predictions are written in the form of the files. The training loop is multitask_classifier.py's, with a single task.
"""

from minbert.command_line import show_help

if __name__ == "__main__":
    show_help("c", __doc__)  # before PyTorch is loaded

import contextlib
import io
from argparse import Namespace
from pathlib import Path

from minbert import processes
from minbert.data import read_split
from minbert.errors import UserError, one_line_errors
from minbert.folder import RUNS, RunFolder, check_places, free_folder
from minbert.own import own_task
from minbert.settings import SPLITS, from_command_line, settle_rows
from minbert.tasks import Task
from multitask_classifier import run, start


def get_args(argv: list[str] | None = None) -> Namespace:
    """The settings of a command line; flags that cannot be combined end the program, with one line."""
    return from_command_line("c", argv, __doc__)


def for_task(args: Namespace, task: Task) -> Namespace:
    """The settings of one data set's run, as the loop reads them."""
    one = settle_rows(Namespace(**vars(args)), {task.name: task})
    one.course_folder = args.course_folder
    if args.train:
        one.files[task.name] = {split: Path(getattr(args, split)) for split in SPLITS if getattr(args, split)}
        one.asked_test, one.run_name = [task.name], f"{args.mode}-{Path(args.train).stem}"
    else:
        one.out = args.out / task.name
        if task.name == "cfimdb":
            one.batch_size = args.cfimdb_batch_size or 8
    train = one.files[task.name]["train"]
    if train.name == task.file.format("train"):  # Stanford's files, so Stanford's names for the predictions
        one.prediction_name = f"{args.option or args.mode}-{{task}}-{{split}}-out.csv"
    else:  # CMU's names, or those of a data set of your own
        stem, suffix = (part.replace("{", "{{").replace("}", "}}") for part in (train.stem, train.suffix))
        name = f"{stem}-{{split}}-output.csv" if args.label else f"{{task}}-{{split}}-output{suffix}"
        one.prediction_name, one.course_folder = name, one.course_folder and Path()
    if args.train or task.name == args.tasks[-1]:
        one.outs[task.name] = {s: Path(getattr(args, f"{s}_out")) for s in ("dev", "test") if getattr(args, f"{s}_out")}
    return one


def run_all(args: Namespace) -> dict[str, float]:
    """Check that all files are there before training on one data set after the other; returns dev scores."""
    rows = list(args.rows.values())
    if args.train:
        rows = [own_task(Path(args.train), args.text, args.text2, args.label, args.regression)]
    elif args.out is None:
        args.out = processes.from_first(lambda: free_folder(RUNS, args.run_name))
    runs = [for_task(args, task) for task in rows]
    for one in runs:
        if args.resume:
            one.resume = bool(RunFolder(one.out).contents())  # the run may have been stopped before this one began
        elif one.out:
            RunFolder(one.out).check_free(args.overwrite)
        for split in ("train", "dev"):
            if not (path := one.files[one.tasks[0]][split]).exists():
                raise UserError(f"{path}: no such file (data/download.py fetches the course's)")
    for one in runs[1:]:
        check_places(one, others=runs[:-1])
    for one in runs[1:]:  # the first run reads its files at once
        with contextlib.redirect_stderr(io.StringIO()):  # messages about rows are printed later
            for split, path in one.files[one.tasks[0]].items():
                if split != "test" or (path.exists() and not one.skip_predictions):
                    read_split(path, one.rows[one.tasks[0]], split, one.limit.get(one.tasks[0]))
    return {task: score for one in runs for task, score in run(one).items()}


def main(argv: list[str] | None = None):
    with one_line_errors(), processes.joined():
        start(get_args(argv), run_all)


if __name__ == "__main__":
    main()
