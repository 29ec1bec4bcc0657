#!/usr/bin/env python3
"""Fine-tune BERT on one sentence-classification task at a time: SST (5 classes), then CFIMDB (2 classes).

  python classifier.py --fine-tune-mode full-model                       the course's two data sets, from data/
  python classifier.py --option pretrain --lr 1e-3                       the same with BERT frozen
  python classifier.py --train T --dev D --test E --dev_out P --test_out Q    files of your own, CMU's among them

Files are the course's (tab-separated) or CMU's (`label ||| text`); predictions are written in the same manner. It is
the training loop of multitask_classifier.py with a single task.
"""

import argparse
from contextlib import redirect_stderr
from pathlib import Path

from minbert.data import SPLITS, read_examples
from minbert.errors import Parser, UserError, at_least, one_line_errors
from minbert.tasks import TASKS
from multitask_classifier import check_out, common_flags, finish_args, run

SETS = ("sst", "cfimdb")


def get_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the flags; whatever cannot work is refused here, in one line."""
    parser = Parser(description=__doc__)
    group = common_flags(parser)
    group["training"].add_argument("--cfimdb_batch_size", metavar="N", type=at_least(int, 1),
                                   help="examples a batch of CFIMDB, whose reviews are long (default: 8)")  # fmt: skip
    data = group["data"]
    data.add_argument("--tasks", metavar="LIST", help="which data sets, with commas (default: sst,cfimdb)")
    for split in SPLITS:
        data.add_argument(f"--{split}", metavar="FILE", help=f"{split} file of your own, in place of the two sets")
    for split in ("dev", "test"):
        group["output"].add_argument(f"--{split}_out", metavar="FILE",
                                     help=f"its {split} predictions (default: OUT/{split}-output.txt)")  # fmt: skip
    args = parser.parse_args(argv)

    for flag in ("tasks", "cfimdb_batch_size"):
        if getattr(args, flag) and args.train:
            parser.error(f"--{flag} is of the course's two data sets; with --train there is one, of your own")
    args.tasks = list(dict.fromkeys((args.tasks or ",".join(SETS)).split(",")))
    for name in args.tasks:
        if name not in SETS:
            parser.error(f"--tasks {name}: the data sets are {' and '.join(SETS)}")
    if bool(args.train) != bool(args.dev):
        parser.error("--train and --dev go together: one is learned from, the other picks the best epoch")
    for flag in ("test", "dev_out", "test_out"):
        if getattr(args, flag) and not args.train:
            parser.error(f"--{flag} goes with --train and --dev")
    if args.test_out and not args.test:
        parser.error("--test_out goes with --test")
    if args.train:
        args.tasks = [which_task(args.train)]
    args.pairs, args.schedule, args.combine, args.heads = "separate", "interleaved", "separate", {}
    args.lora_per_task, args.adapter, args.freeze_bert = False, "none", False
    args.adapter_size = args.adapter_activation = None
    return finish_args(parser, args)


def for_task(args: argparse.Namespace, name: str) -> argparse.Namespace:
    """The flags of one data set's run, as multitask_classifier.py's loop reads them."""
    task = argparse.Namespace(**vars(args))
    task.tasks, task.smart_tasks, task.task_weights = [name], [name], {name: 1.0}
    task.asked_test = [name] if args.test else []
    if args.train:
        paths = {split: getattr(args, split) for split in SPLITS}
        outs = {s: getattr(args, f"{s}_out") or args.out / f"{s}-output.txt" for s in ("dev", "test")}
    else:
        paths = {split: Path(args.data) / TASKS[name].file.format(file) for split, file in SPLITS.items()}
        mode = args.option or args.mode
        outs = {s: args.out / f"predictions/{mode}-{name}-{s}-out.csv" for s in ("dev", "test")}
        task.out = args.out / name
        if name == "cfimdb":
            task.batch_size = args.cfimdb_batch_size or 8
    for split, path in paths.items():
        setattr(task, f"{name}_{split}", path)
    for split, path in outs.items():
        setattr(task, f"{name}_{split}_out", path)
    return task


def which_task(path: str) -> str:
    """SST or CFIMDB? A training file that holds no label above 1 has two classes."""
    with redirect_stderr(None):  # what is to say of its rows is said when it is read for training
        labels = {example.label for example in read_examples(path, TASKS["sst"])}
    return "cfimdb" if labels <= {0, 1} else "sst"


def main(argv: list[str] | None = None):
    with one_line_errors():
        args = get_args(argv)
        runs = [for_task(args, name) for name in args.tasks]
        for task in runs:  # find what is missing before the first of them trains
            check_out(task.out, args.overwrite)
            for split in ("train", "dev"):
                if not (path := Path(getattr(task, f"{task.tasks[0]}_{split}"))).exists():
                    raise UserError(f"{path}: no such file (data/download.py fetches the course's)")
        for task in runs:
            run(task)


if __name__ == "__main__":
    main()
