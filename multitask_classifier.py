#!/usr/bin/env python3
"""Fine-tune one BERT on three tasks at once: sentiment (SST), paraphrase (Quora), similarity (STS).

  python multitask_classifier.py --quickstart                    about a minute, with the sample data
  python multitask_classifier.py --fine-tune-mode full-model     the course's run, with the course's files in data/
  python multitask_classifier.py --out runs/quickstart --predict "A film to remember."

The whole story is in `train`: choose the tasks of a step, compute their losses, step, and now and then look.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path

import torch
from tqdm.auto import tqdm

from minbert.bert import ATTENTION
from minbert.checkpoint import load_model, save_model
from minbert.data import Batches, Dataset, Example, read_examples
from minbert.errors import Parser, UserError, at_least, one_line_errors, rate, seed
from minbert.evaluation import chance, evaluate, in_words, outputs, overall, predict, score, write_predictions
from minbert.files import remove_strays
from minbert.heads import PAIR_HEADS, choose_head
from minbert.multitask import MultitaskBert
from minbert.optimizer import AdamW, lr_factor, set_lr
from minbert.pcgrad import COMBINE, Memory, give_gradients, take_gradients
from minbert.pretrained import load_bert, load_tokenizer
from minbert.sampling import SCHEDULES, Plan
from minbert.tasks import STS_LOSSES, TASKS
from minbert.tokenizer import BertTokenizer

HERE = Path(__file__).resolve().parent
FILES = {"sst": "ids-sst-{}.csv", "para": "quora-{}.csv", "sts": "sts-{}.csv", "cfimdb": "ids-cfimdb-{}.csv"}
SPLITS = {"train": "train", "dev": "dev", "test": "test-student"}
MULTITASK = ("sst", "para", "sts")
QUICKSTART = {
    "pretrained": "minilm", "data": str(HERE / "data" / "sample"), "out": "runs/quickstart",
    "pooling": "mean", "epochs": 4, "batch_size": 16, "head_lr": 1e-3, "lr_decay": "linear", "overwrite": True,
}  # fmt: skip

Data = dict[str, dict[str, Dataset]]  # task → split → data set


# ------------------------------------------------------------------------------------------------ the loop


def train(model: MultitaskBert, tokenizer: BertTokenizer, data: Data, args: argparse.Namespace) -> None:
    """Train on data[task]["train"], and keep the model with the best overall dev score in OUT/best.pt."""
    learners = [task for task in data if any(p.requires_grad for p in model.parameters_of(task))]
    if not learners:
        raise UserError(
            "nothing to learn: --fine-tune-mode last-linear-layer with --sts_head cosine, which has no weights"
        )
    train_sets = {task: data[task]["train"] for task in learners}
    dev_sets = {task: splits["dev"] for task, splits in data.items()}
    loss_of = {task: TASKS[task].loss for task in learners}
    if "sts" in learners:
        loss_of["sts"] = STS_LOSSES[args.sts_loss]

    plan = Plan(
        {t: len(d) for t, d in train_sets.items()}, args.batch_size, args.epochs, args.seed, args.steps_per_epoch
    )
    schedule = SCHEDULES[args.schedule]
    sizes = schedule.sizes(plan)
    streams = {task: Batches(d, sizes[task], args.seed) for task, d in train_sets.items()}
    optimizer = AdamW(parameter_groups(model, args), lr=args.lr)
    memory = Memory(args.seed)
    best = -1.0

    for epoch in range(args.epochs):
        model.train()
        log = EpochLog(learners)
        steps = schedule.steps(plan, epoch)
        if args.combine == "separate":
            steps = [[task] for step in steps for task in step]

        for i, step in enumerate(progress(steps, f"epoch {epoch + 1}/{args.epochs}")):
            optimizer.zero_grad()
            gradients = []
            for task in step:
                batch = streams[task].next().to(model.device)
                loss = loss_of[task](model(batch), batch.labels)
                (args.task_weights[task] * loss).backward()
                gradients.append(take_gradients(model.bert.parameters()))
                log.add(task, loss, len(batch))
            give_gradients(gradients, COMBINE[args.combine], memory)
            if args.clip:
                torch.nn.utils.clip_grad_norm_(model.parameters(), args.clip)
            done, total = epoch * len(steps) + i, args.epochs * len(steps)  # an epoch counts as one, however long
            set_lr(optimizer, lr_factor(done, total, args.warmup, args.lr_decay))
            optimizer.step()

        log.stop()
        scores = {"dev": evaluate(model, dev_sets)}
        if args.eval_train:
            scores["train"] = evaluate(model, train_sets)
        plan.history.append(scores["dev"])
        if overall(scores["dev"]) > best:
            best = overall(scores["dev"])
            save_model(args.out / "best.pt", model, tokenizer, epoch=epoch + 1, dev=scores["dev"])
        report_epoch(args, epoch, log, scores)


def parameter_groups(model: MultitaskBert, args: argparse.Namespace) -> list[dict]:
    """BERT and heads with their learning rates; biases and LayerNorms without decay if so asked."""
    groups: dict[tuple, list] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            lr = args.lr if name.startswith("bert.") else args.head_lr or args.lr
            spared = args.no_decay_norms and (name.endswith("bias") or "layer_norm" in name)
            groups.setdefault((lr, 0.0 if spared else args.weight_decay), []).append(parameter)
    return [{"params": params, "lr": lr, "weight_decay": decay} for (lr, decay), params in groups.items()]


def progress(steps: list, title: str) -> tqdm:
    """A progress bar on a terminal and in a notebook, nothing in a pipe."""
    return tqdm(steps, desc=title, unit="step", leave=False, disable=None)


class EpochLog:
    """What happened in an epoch: each task's losses, how many examples were seen, how long it took."""

    def __init__(self, tasks: list[str]):
        self.losses: dict[str, list[torch.Tensor]] = {task: [] for task in tasks}
        self.examples, self.start = 0, time.perf_counter()

    def add(self, task: str, loss: torch.Tensor, examples: int):
        self.losses[task].append(loss.detach())  # not .item(), which would wait for the GPU
        self.examples += examples
        if len(self.losses[task]) % 100 == 0:
            self.check(task)

    def check(self, task: str):
        """Stop a run whose loss has become infinite or NaN: nothing that follows would be worth having."""
        loss = self.losses[task][-1].item()
        if not math.isfinite(loss):
            raise UserError(f"the loss of {task} became {loss}; lower --lr, or add --clip 1")

    def stop(self):
        for task, losses in self.losses.items():
            if losses:
                self.check(task)
        self.mean_losses = {task: torch.stack(ls).mean().item() for task, ls in self.losses.items() if ls}
        self.seconds = time.perf_counter() - self.start


def report_epoch(args: argparse.Namespace, epoch: int, log: EpochLog, scores: dict[str, dict[str, float]]):
    """One line for the person, one of JSON for programs."""
    speed = log.examples / log.seconds
    columns = {"loss": log.mean_losses, **scores}
    text = [f"{name} " + "  ".join(f"{t} {x:.3f}" for t, x in values.items()) for name, values in columns.items()]
    print(
        f"epoch {epoch + 1}/{args.epochs} | {' | '.join(text)} | overall {overall(scores['dev']):.3f} | "
        f"{log.seconds:.0f} s, {speed:.1f} examples/s",
        flush=True,
    )
    line = {"epoch": epoch + 1, **columns, "overall": overall(scores["dev"])}
    with open(args.out / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(line | {"seconds": log.seconds, "examples_per_second": speed}) + "\n")


# ------------------------------------------------------------------------------------------------ before and after


def seed_everything(seed: int):
    """Fix dropout and fresh heads, which draw from torch's generator; what else is random has its own."""
    torch.manual_seed(seed)


def load_data(args: argparse.Namespace, tokenizer: BertTokenizer) -> Data:
    """Read and tokenise every file that the run will need, so that a bad one is found before training starts."""
    data: Data = {}
    tokenizer.truncated = 0
    for name in args.tasks:
        data[name] = {}
        for split in SPLITS:
            path = getattr(args, f"{name}_{split}")
            if path is None:
                continue
            if split == "test" and not Path(path).exists() and name not in args.asked_test:
                print(f"{path}: not there, so there will be no test predictions for {name}", file=sys.stderr)
                continue
            examples = read_examples(path, TASKS[name], None if split == "test" else args.limit.get(name))
            if split != "test" and None in [example.label for example in examples]:
                raise UserError(f"{path}: not every row has a {TASKS[name].label}, but a {split} file needs labels")
            data[name][split] = Dataset(TASKS[name], examples, tokenizer, args.pairs)
        counts = ", ".join(f"{len(d):,} {split}" for split, d in data[name].items())
        print(f"{TASKS[name].title:18} {counts}")
    if tokenizer.truncated:
        print(f"cut to {tokenizer.max_length} tokens: {tokenizer.truncated:,} of the inputs", file=sys.stderr)
    return data


def build_model(args: argparse.Namespace) -> MultitaskBert:
    """Pretrained BERT, fresh heads, on the device that was asked for; BERT frozen if only heads shall train."""
    bert = load_bert(args.pretrained, args.attention, args.bert_dropout)
    model = MultitaskBert(bert, args.tasks, args.pairs, args.pooling, args.heads, args.hidden_dropout_prob).to(
        "cuda" if args.use_gpu else "cpu"
    )
    model.precision = args.precision
    if args.mode == "last-linear-layer":
        model.freeze_bert()
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    print(f"{'parameters':18} {trained:,} trained of {total:,} ({trained / total:.1%})")
    for task in args.tasks:
        if not any(p.requires_grad for p in model.parameters_of(task)):
            print(f"{task} has nothing to learn: its head has no weights and BERT is frozen", file=sys.stderr)
    return model


def write_all_predictions(args: argparse.Namespace, data: Data):
    """Reload the best model; predict dev and test; write the prediction files; say how good it is."""
    model, _ = load_model(args.out / "best.pt", args.attention)
    model.to("cuda" if args.use_gpu else "cpu").precision = args.precision
    scores = {}
    print("\nbest model, on dev:")
    for name, splits in data.items():
        task = TASKS[name]
        for split in ("dev", "test"):
            if split not in splits:
                continue
            predictions = predict(model, splits[split])
            path = Path(getattr(args, f"{name}_{split}_out"))
            write_predictions(path, task, splits[split].examples, predictions)
            if split == "dev":
                scores[name] = score(task, predictions, splits["dev"].labels)
                base = chance(task, splits["dev"].labels)
                print(f"  {task.title:18} {task.score_name:9} {scores[name]:.3f}   (without reading: {base:.3f})")
    if len(scores) > 1:
        print(f"  {'overall':28} {overall(scores):.3f}")
    if args.limit:
        print("--limit holds for dev files too, and so for their predictions", file=sys.stderr)


def answer(args: argparse.Namespace):
    """--predict: what the saved model says of one sentence, or of two."""
    path = args.out / "best.pt"
    if not path.exists():
        raise UserError(f"{path}: no trained model there; train one, or name the run's folder with --out")
    model, tokenizer = load_model(path, args.attention)
    model.to("cuda" if args.use_gpu else "cpu").precision = args.precision
    texts = tuple(args.predict)
    tasks = [TASKS[name] for name in model.build["tasks"] if TASKS[name].is_pair == (len(texts) == 2)]
    if not tasks:
        kind = "two sentences" if len(texts) == 2 else "one sentence"
        raise UserError(f"{path}: its tasks ({', '.join(model.build['tasks'])}) say nothing of {kind}")
    for task in tasks:
        data = Dataset(task, [Example(None, texts, None)], tokenizer, model.build["pairs"])
        print(f"{task.title:18} {in_words(task, outputs(model, data)[0])}")


# ------------------------------------------------------------------------------------------------ the flags
# fmt: off


def common_flags(parser: Parser) -> dict[str, argparse._ArgumentGroup]:
    """Add the flags that classifier.py and multitask_classifier.py share; the groups, for each to add its own."""
    groups = {title: parser.add_argument_group(title) for title in ("data", "model", "training", "output")}
    number, positive, count = at_least(float, 0), at_least(float, 0, above=True), at_least(int, 1)

    add = groups["data"].add_argument
    add("--data", metavar="DIR", default=str(HERE / "data"),
        help="folder of the course's files (default: data/ beside this script)")
    add("--limit", metavar="N", default="",
        help="use N examples, always the same, of each train and dev file; or a list: a number for each of --tasks")

    add = groups["model"].add_argument
    add("--pretrained", metavar="NAME", default="bert-base-uncased",
        help="a BERT of the Hugging Face hub, a directory, a checkpoint (.pt), or `minilm` (small, 90 MB)")
    add("--fine-tune-mode", dest="mode", choices=("last-linear-layer", "full-model"),
        help="train the heads alone, or BERT too (default: last-linear-layer)")
    add("--option", choices=("pretrain", "finetune"),
        help="the same in the words of 2023: pretrain = last-linear-layer, finetune = full-model")
    add("--pooling", choices=("cls", "mean"), default="cls",
        help="the sentence's vector: BERT's pooler over [CLS], or the mean over its tokens")
    add("--hidden_dropout_prob", metavar="P", type=rate, default=0.3, help="dropout of the heads")
    add("--bert_dropout", metavar="P", type=rate,
        help="dropout inside BERT (default: what its config.json says, usually 0.1)")
    add("--attention", choices=tuple(ATTENTION), default="plain",
        help="written out, or by PyTorch's fused kernel; the same but for dropout's draws")

    add = groups["training"].add_argument
    add("--seed", metavar="N", type=seed, default=11711, help="of dropout, fresh heads and data order")
    add("--epochs", metavar="N", type=count, default=10, help="rounds of training")
    add("--steps_per_epoch", metavar="N", type=count,
        help="steps a round, each of one or several tasks (default: what the schedule makes it)")
    add("--batch_size", metavar="N", type=count, default=8, help="examples a batch")
    add("--lr", metavar="RATE", type=positive,
        help="learning rate (default: 1e-3 for last-linear-layer, 1e-5 for full-model)")
    add("--head_lr", metavar="RATE", type=positive, help="learning rate of the heads (default: --lr)")
    add("--warmup", metavar="SHARE", type=rate, default=0.0, help="share of the epochs in which the rates rise from 0")
    add("--lr_decay", choices=("constant", "linear"), default="constant", help="then they stay, or fall to 0")
    add("--weight_decay", metavar="RATE", type=number, default=0.0, help="AdamW's, of every weight that trains")
    add("--no_decay_norms", action="store_true", help="but not of biases and LayerNorms")
    add("--clip", metavar="NORM", type=number, default=0.0, help="cut the whole gradient to this norm; 0 does not")
    add("--precision", choices=("fp32", "bf16"), default="fp32",
        help="of the matrix products: bf16 is faster on processors made for it, and a little rough")
    add("--use_gpu", action="store_true", help="train on the first CUDA device")

    add = groups["output"].add_argument
    add("--out", metavar="DIR", default=".", help="folder for best.pt, metrics.jsonl and predictions/")
    add("--overwrite", action="store_true", help="let an earlier run's best.pt and metrics.jsonl in OUT go")
    add("--skip_predictions", action="store_true", help="end after training, without prediction files")
    add("--eval_train", action="store_true", help="score the training data each epoch as well (slow)")
    return groups


def get_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the flags; whatever cannot work is refused here, in one line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--quickstart", action="store_true",
                        help="minilm, the sample data, settings that suit them, in runs/quickstart")
    parser.add_argument("--predict", metavar="TEXT", nargs="+", help="ask the model in OUT about one sentence or two")
    groups = common_flags(parser)

    add = groups["data"].add_argument
    add("--tasks", metavar="LIST", default="sst,para,sts", help="which tasks, with commas")
    for name in MULTITASK:
        for split, file in SPLITS.items():
            add(f"--{name}_{split}", metavar="FILE", help=f"default: DATA/{FILES[name].format(file)}")

    add = groups["model"].add_argument
    add("--pairs", choices=("separate", "joint"), default="separate",
        help="each sentence through BERT alone, or both as one row with a [SEP]")
    add("--para_head", choices=PAIR_HEADS["para"], help="of separate pairs (default: difference); see minbert/heads.py")
    add("--sts_head", choices=PAIR_HEADS["sts"], help="of separate pairs (default: cosine)")
    add("--sts_loss", choices=tuple(STS_LOSSES), default="mse", help="squared error, or pull cosines up and down")

    add = groups["training"].add_argument
    add("--schedule", choices=tuple(SCHEDULES), default="round_robin",
        help="which tasks each step trains on; see minbert/sampling.py")
    add("--combine", choices=tuple(COMBINE), default="separate",
        help="one update from a step's several losses: an update each, or one of all; see minbert/pcgrad.py")
    add("--task_weights", metavar="LIST", help="a factor for each of the losses of --tasks (default: 1,1,1)")

    add = groups["output"].add_argument
    for name in MULTITASK:
        for split in ("dev", "test"):
            add(f"--{name}_{split}_out", metavar="FILE", help=f"default: OUT/predictions/{name}-{split}-output.csv")

    if "--quickstart" in (sys.argv[1:] if argv is None else argv):
        parser.set_defaults(**QUICKSTART)
    args = parser.parse_args(argv)
    return finish_multitask(parser, args)
# fmt: on


def finish_multitask(parser: Parser, args: argparse.Namespace) -> argparse.Namespace:
    """Settle the flags that depend on one another, and refuse what cannot work, naming the flags that disagree."""
    args.tasks = list(dict.fromkeys(args.tasks.split(",")))
    for name in args.tasks:
        if name not in MULTITASK:
            parser.error(f"--tasks {name}: the tasks are {', '.join(MULTITASK)}")
    if args.predict and len(args.predict) > 2:
        parser.error(f"--predict takes one sentence or two, not {len(args.predict)}: quote each")

    args.asked_test = [name for name in args.tasks if getattr(args, f"{name}_test")]
    for name in MULTITASK:
        for split, file in SPLITS.items():
            if getattr(args, f"{name}_{split}") is None:
                setattr(args, f"{name}_{split}", Path(args.data) / FILES[name].format(file))
            elif name not in args.tasks:
                parser.error(f"--{name}_{split} needs {name} among --tasks")
        for split in ("dev", "test"):
            if getattr(args, f"{name}_{split}_out") is None:
                setattr(args, f"{name}_{split}_out", Path(args.out) / f"predictions/{name}-{split}-output.csv")
            elif name not in args.tasks:
                parser.error(f"--{name}_{split}_out needs {name} among --tasks")

    if args.quickstart and not (args.option or args.mode):
        args.mode, args.lr = "full-model", args.lr or 1e-4
    if args.quickstart and args.pairs == "separate" and "para" in args.tasks:
        args.para_head = args.para_head or "relational"  # learns the most from 300 pairs
    args.heads = {"para": args.para_head, "sts": args.sts_head}
    for name, head in args.heads.items():
        if head and name not in args.tasks:
            parser.error(f"--{name}_head {head} needs {name} among --tasks")
        try:
            args.heads[name] = choose_head(TASKS[name], args.pairs, head)
        except UserError as error:
            parser.error(str(error))
    if args.sts_loss == "cosine" and ("sts" not in args.tasks or args.heads["sts"] != "cosine"):
        parser.error("--sts_loss cosine needs sts among --tasks, --pairs separate and --sts_head cosine")

    if args.combine in ("pcgrad", "gradvac", "cagrad") and len(args.tasks) < 2:
        parser.error(f"--combine {args.combine} needs two tasks or more; --tasks names {args.tasks[0]} alone")
    if args.combine != "separate" and not SCHEDULES[args.schedule].together:
        together = ", ".join(name for name, schedule in SCHEDULES.items() if schedule.together)
        parser.error(f"--combine {args.combine} needs several tasks in a step; --schedule {args.schedule} has one "
                     f"(several: {together})")  # fmt: skip
    if args.schedule == "quora_first" and "para" not in args.tasks:
        parser.error("--schedule quora_first needs para among --tasks")
    if args.steps_per_epoch and args.schedule == "sequential":
        parser.error("--steps_per_epoch does not go with --schedule sequential, which sees all of every task")
    args.task_weights = per_task("--task_weights", args.task_weights or "1", args.tasks, float, parser)
    finish_args(parser, args)
    if args.sts_loss == "cosine" and args.mode == "last-linear-layer":
        parser.error(f"--sts_loss cosine trains BERT alone; --fine-tune-mode {args.mode} freezes it")
    if args.combine in ("pcgrad", "gradvac", "cagrad") and args.mode == "last-linear-layer":
        parser.error(f"--combine {args.combine} works on a BERT that trains; --fine-tune-mode {args.mode} freezes it")
    return args


def per_task(flag: str, text: str, tasks: list[str], kind: type, parser: Parser) -> dict:
    """A flag's one number for all tasks, or its list of one for each: {"sst": 1.0, "para": 2.0, "sts": 1.0}."""
    words = text.split(",")
    if len(words) == 1:
        words *= len(tasks)
    try:
        return dict(zip(tasks, map(at_least(kind, 0, above=True), words), strict=True))
    except (ValueError, argparse.ArgumentTypeError):
        parser.error(f"{flag} {text}: give a number above 0, or one for each of --tasks {','.join(tasks)}")


def finish_args(parser: Parser, args: argparse.Namespace) -> argparse.Namespace:
    """What both scripts settle after reading their flags: the mode's two names, its learning rate, the device."""
    args.limit = per_task("--limit", args.limit, args.tasks, int, parser) if args.limit else {}
    if args.option:
        mode = {"pretrain": "last-linear-layer", "finetune": "full-model"}[args.option]
        if args.mode and args.mode != mode:
            parser.error(f"--option {args.option} and --fine-tune-mode {args.mode} contradict each other")
        args.mode = mode
    args.mode = args.mode or "last-linear-layer"
    if args.lr is None:
        args.lr = 1e-3 if args.mode == "last-linear-layer" else 1e-5
    if args.no_decay_norms and not args.weight_decay:
        parser.error("--no_decay_norms needs a --weight_decay above 0")
    if args.use_gpu and not torch.cuda.is_available():
        parser.error("--use_gpu: this PyTorch sees no CUDA device; leave the flag out to train on the CPU")
    args.out = Path(args.out)
    return args


def check_out(out: Path, overwrite: bool):
    """Refuse to write a run over another."""
    if (out / "best.pt").exists() and not overwrite:
        raise UserError(f"{out / 'best.pt'}: an earlier run's; name another folder with --out, or add --overwrite")


def run(args: argparse.Namespace):
    """Load, train, reload the best, predict."""
    check_out(args.out, args.overwrite)
    seed_everything(args.seed)
    tokenizer = load_tokenizer(args.pretrained)
    data = load_data(args, tokenizer)
    model = build_model(args)
    args.out.mkdir(parents=True, exist_ok=True)
    remove_strays(args.out)
    for name in ("metrics.jsonl", "best.pt"):  # of an earlier run; nobody shall take them for this one's
        (args.out / name).unlink(missing_ok=True)
    train(model, tokenizer, data, args)
    if not args.skip_predictions:
        write_all_predictions(args, data)


def main(argv: list[str] | None = None):
    with one_line_errors():
        args = get_args(argv)
        answer(args) if args.predict else run(args)


if __name__ == "__main__":
    main()
