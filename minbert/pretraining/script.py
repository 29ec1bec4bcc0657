"""The flags and the loop of `python -m minbert.pretraining`."""

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

import minbert.pretraining
from minbert.data import Batches
from minbert.engine import checked_step, find_device, seed_everything
from minbert.errors import UserError, one_line_errors, stop_signals
from minbert.evaluation import evaluate
from minbert.files import atomic, atomic_save, remove_strays, safe_load
from minbert.flags import DATA, LESSONS, parse
from minbert.optimizer import AdamW, lr_factor, parameter_groups
from minbert.parser import Parser, at_least
from minbert.pretrained import load_strictly, load_tokenizer, save_pretrained
from minbert.pretraining.corpus import Corpus, read_corpus, to_read
from minbert.pretraining.lessons import Learner, load_learner, score_masked
from minbert.pretraining.masking import Masker, Masking, generator_for
from minbert.progress import progress
from minbert.sampling import SCHEDULES, Plan
from minbert.tasks import TASKS
from minbert.tokenizer import BertTokenizer

STATE = "resume.pt"  # where a run keeps all that it needs to go on
THEIRS = ("model.safetensors", "pytorch_model.bin", "config.json", "vocab.txt", "best.pt")  # signs of an earlier run's

# ------------------------------------------------------------------------------------------------ the loop


def train(learner: Learner, tokenizer: BertTokenizer, corpus: Corpus, args: argparse.Namespace) -> None:
    """Train on corpus.train; after each epoch score, and write the weights to OUT. --resume: see State."""
    device, masker = learner.nli.device, Masker(tokenizer, args.masking)
    plan = Plan({t: len(d) for t, d in corpus.train.items()}, args.batch_size, args.epochs, args.seed,
                args.steps_per_epoch)  # fmt: skip
    schedule = SCHEDULES["interleaved"]  # an epoch sees the larger lesson once, the smaller one about once
    sizes = schedule.sizes(plan)
    streams = {task: Batches(d, sizes[task], args.seed) for task, d in corpus.train.items()}
    groups = parameter_groups(learner, args.lr, args.head_lr, args.weight_decay, spare_norms=True)
    optimizer = AdamW(groups, lr=args.lr)
    state = State(args, identity(args, learner, corpus), learner, optimizer, streams)
    if args.resume:
        state.load()
        if state.epoch == args.epochs:  # finished before; but perhaps its weights were lost
            write_weights(learner, tokenizer, args.out)
    else:
        state.report(0, {}, scores(learner, corpus, masker), 0.0, 0)

    with stop_signals() as stop:
        for epoch in range(state.epoch, args.epochs):
            learner.train()
            start, examples = time.perf_counter(), 0
            steps = schedule.steps(plan, epoch)
            for i, step in enumerate(progress(steps, f"epoch {epoch + 1}/{args.epochs}")):
                if i < state.step:  # done before the run was taken up again
                    continue
                optimizer.zero_grad()
                for task in step:
                    at = (streams[task].passes, streams[task].position)
                    batch = streams[task].next()
                    with learner.nli.autocast():
                        if task == "mlm":
                            seen, chosen = masker(batch.input_ids, generator_for(args.seed, 1, *at))
                            loss = learner.mlm_loss(batch.to(device), seen.to(device), chosen.to(device))
                        else:
                            batch = batch.to(device)
                            loss = TASKS[task].loss(learner.nli(batch), batch.labels)
                    (args.weights[task] * loss).backward()
                    state.losses[task].append(loss.detach())
                    examples += len(batch)
                done, total = epoch * len(steps) + i, args.epochs * len(steps)
                factor = lr_factor(done, total, args.warmup, args.lr_decay)
                losses = {task: state.losses[task][-1] for task in step}
                checked_step(learner, optimizer, losses, f"epoch {epoch + 1}, step {i + 1}", args.clip, factor)
                state.step = i + 1
                if stop.asked or (args.save_every and state.step % args.save_every == 0):
                    state.save()
                stop.leave_if_asked(f"stopped; --resume goes on from step {state.step} of epoch {epoch + 1}")

            losses, seconds = state.mean_losses(), time.perf_counter() - start
            state.report(epoch + 1, losses, scores(learner, corpus, masker), seconds, examples)
            state.next_epoch()
            state.save()
            write_weights(learner, tokenizer, args.out)
            stop.leave_if_asked(f"stopped; --resume goes on after epoch {epoch + 1}")

    print(f"weights     {args.out}", flush=True)


def write_weights(learner: Learner, tokenizer: BertTokenizer, folder: Path):
    """The directory that `--pretrained` and `transformers` take, with the MLM head if that is worth keeping."""
    save_pretrained(learner.bert, tokenizer, folder, learner.mlm if learner.keeps_mlm else None)


def scores(learner: Learner, corpus: Corpus, masker: Masker) -> dict[str, float]:
    """{"mlm_loss": 2.1, "masked_word_accuracy": .61, "nli": .74}, of the lessons that there are."""
    found = score_masked(learner, corpus.held_out, masker) if corpus.held_out else {}
    return found | (evaluate(learner.nli, {"nli": corpus.nli_dev}) if corpus.nli_dev else {})


class State:
    """All that a run needs to go on as if it had never stopped, kept in OUT/resume.pt.

    epoch, step: how many epochs are done, and how many steps of the next. losses: of that epoch's batches so far.
    lines: of metrics.jsonl. identity: what a run that goes on must have in common with this one.
    """

    def __init__(self, args: argparse.Namespace, identity: dict[str, str], learner: Learner, optimizer: AdamW,
                 streams: dict[str, Batches]):  # fmt: skip
        self.args, self.learner, self.optimizer, self.streams = args, learner, optimizer, streams
        self.path, self.identity = args.out / STATE, identity
        self.epoch = self.step = 0
        self.losses: dict[str, list[Tensor]] = {task: [] for task in streams}
        self.lines: list[str] = []

    def mean_losses(self) -> dict[str, float]:
        means = {task: torch.stack(losses).mean().item() for task, losses in self.losses.items() if losses}
        for task, loss in means.items():
            if not math.isfinite(loss):
                raise UserError(f"the loss of {task} became {loss}; lower --lr, or add --clip 1")
        return means

    def next_epoch(self):
        self.epoch, self.step = self.epoch + 1, 0
        self.losses = {task: [] for task in self.losses}

    def report(self, epoch: int, losses: dict, found: dict, seconds: float, examples: int):
        """One line for the person, one of JSON for programs. Epoch 0 is how it stood before."""
        text = ["before    " if epoch == 0 else f"epoch {epoch}/{self.args.epochs}"]
        if losses:
            text.append("loss " + "  ".join(f"{task} {x:.3f}" for task, x in losses.items()))
        if "mlm_loss" in found:
            text.append(f"held out: mlm {found['mlm_loss']:.3f}, masked words {found['masked_word_accuracy']:.3f}")
        if "nli" in found:
            text.append(f"nli dev {found['nli']:.3f}")
        if seconds:
            text.append(f"{seconds:.0f} s, {examples / seconds:.1f} examples/s")
        print(" | ".join(text), flush=True)
        if not all(map(math.isfinite, found.values())):
            raise UserError(f"the held-out loss became {found['mlm_loss']}; begin again with a lower --lr")
        self.lines.append(json.dumps({"epoch": epoch, "loss": losses, **found, "seconds": seconds}) + "\n")
        with atomic(self.args.out / "metrics.jsonl") as temporary:
            temporary.write_text("".join(self.lines), encoding="utf-8")

    def save(self):
        """Write it, whole or not at all. A loss that is no number is never kept: the state before it is."""
        self.mean_losses()
        saved = {
            "identity": self.identity,
            "lines": self.lines,
            "epoch": self.epoch,
            "step": self.step,
            "losses": {task: [loss.item() for loss in losses] for task, losses in self.losses.items()},
            "model": self.learner.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "streams": {task: stream.state_dict() for task, stream in self.streams.items()},
            "random": torch.get_rng_state(),  # dropout's
            "random_gpu": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
        }
        atomic_save(self.path, saved)

    def load(self):
        """Take up what `save` wrote; UserError where that run had other flags, weights or data."""
        saved = safe_load(self.path)
        for name, value in self.identity.items():
            before = saved.get("identity", {}).get(name)
            if before != value:
                raise UserError(f"{self.path}: that run had {name} = {before}, this one has {value}; "
                                "--resume goes on with the same; --overwrite begins again")  # fmt: skip
        self.epoch, self.step, self.lines = saved["epoch"], saved["step"], saved["lines"]
        device = self.learner.nli.device
        self.losses = {task: [torch.tensor(x, device=device) for x in xs] for task, xs in saved["losses"].items()}
        load_strictly(self.learner, saved["model"], self.path)
        self.optimizer.load_state_dict(saved["optimizer"])
        for task, stream in self.streams.items():
            stream.load_state_dict(saved["streams"][task])
        torch.set_rng_state(saved["random"])
        if saved["random_gpu"] is not None and torch.cuda.is_initialized():
            torch.cuda.set_rng_state(saved["random_gpu"])


def identity(args: argparse.Namespace, learner: Learner, corpus: Corpus) -> dict[str, str]:
    """What a run that goes on must have in common with the one that stopped: flags, BERT's sizes, what is read."""
    free = ("out", "resume", "overwrite", "save_every", "data", "pretrained", "masking", "use_gpu")
    flags = {f"--{name}": str(value) for name, value in vars(args).items() if name not in free}
    return flags | {"config": str(learner.bert.config.to_dict()), "the data's sha256": corpus.digest()}


# ------------------------------------------------------------------------------------------------ the flags


def get_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the flags; flags that cannot be combined stop the program here, in one line."""
    args = argparse.Namespace(**parse("p", argv, minbert.pretraining.__doc__, "python -m minbert.pretraining"))
    try:
        return finish(args)
    except UserError as error:
        Parser(prog="python -m minbert.pretraining").error(str(error))


def finish(args: argparse.Namespace) -> argparse.Namespace:
    """Settle the flags that depend on one another; UserError where they cannot be combined."""
    args.data, args.out = Path(args.data) if args.data else DATA, Path(args.out) if args.out else None
    args.tasks = list(dict.fromkeys(args.tasks.split(",")))
    for name in args.tasks:
        if name not in LESSONS:
            raise UserError(f"--tasks {name}: the lessons are {', '.join(LESSONS)}")
    if args.corpus and "mlm" not in args.tasks:
        raise UserError("--corpus needs mlm among --tasks")
    default = ["sst", "para", "sts", *(["nli"] if "nli" in args.tasks else [])]
    corpus = args.corpus.split(",") if args.corpus else default if "mlm" in args.tasks else []
    for name in corpus:
        if name not in TASKS:
            raise UserError(f"--corpus {name}: the files are those of {', '.join(TASKS)}")
    args.corpus = list(dict.fromkeys(corpus))
    files, limits = to_read(args.tasks, args.corpus), args.limit.split(",") if args.limit else []
    try:
        limits = [at_least(int, 1)(word) for word in limits]
        args.limit = dict(zip(files, limits * len(files) if len(limits) == 1 else limits, strict=bool(limits)))
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise UserError(f"--limit {args.limit}: give one number, or one for each of {','.join(files)}") from error
    words = (args.weights or ("0.7,0.3" if len(args.tasks) == 2 else "1")).split(",")
    try:
        args.weights = dict(zip(args.tasks, map(at_least(float, 0, above=True), words), strict=True))
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise UserError(
            f"--weights {args.weights}: give a number above 0 for each of --tasks {','.join(args.tasks)}"
        ) from error
    try:
        mask, random = map(at_least(float, 0), args.mask_shares.split(","))
        if mask + random > 1 + 1e-9:
            raise ValueError
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise UserError(
            f"--mask_shares {args.mask_shares}: give two shares, with a comma, that are at most 1 together"
        ) from error
    if not args.mask_rate:
        raise UserError("--mask_rate 0: nothing would be learned")
    args.masking = Masking(args.mask_rate, mask, random, args.whole_words)
    if args.out is None:
        raise UserError("--out DIR is needed: the folder for the weights")
    return args


def check_out(args: argparse.Namespace):
    """Refuse to write over what is there, or to go on with what is not, before anything is read."""
    state = args.out / STATE
    if args.resume:
        if not state.exists():
            raise UserError(f"{state}: not there, so there is nothing to --resume; leave the flag out to begin")
    elif not args.overwrite:
        for path in (state, *(args.out / name for name in THEIRS)):
            if path.exists():
                more = "add --resume or --overwrite, or another --out" if state.exists() else "name another --out"
                raise UserError(f"{path}: an earlier run's; {more}")
    if Path(args.pretrained).is_dir() and Path(args.pretrained).resolve() == args.out.resolve():
        raise UserError(f"--out {args.out} is --pretrained itself; name another folder")
    for name in to_read(args.tasks, args.corpus):
        for split in ("train", "dev") if name == "nli" and "nli" in args.tasks else ("train",):
            path = args.data / TASKS[name].file.format(split)
            if not path.exists():
                hint = (
                    "`python data/download.py nli` fetches it, --tasks mlm does without"
                    if name == "nli"
                    else ("data/download.py fetches the course's; --data names their folder, --corpus which are read")
                )
                raise UserError(f"{path}: no such file ({hint})")
    args.out.mkdir(parents=True, exist_ok=True)
    remove_strays(args.out)
    if args.overwrite:
        for name in ("metrics.jsonl", STATE, "model.safetensors"):
            (args.out / name).unlink(missing_ok=True)


def run(args: argparse.Namespace):
    """Read, load, train."""
    check_out(args)
    device = find_device(args.use_gpu)
    seed_everything(args.seed)
    tokenizer = load_tokenizer(args.pretrained, args.local_files_only)
    tokenizer.max_length = min(tokenizer.max_length, args.max_length)
    corpus = read_corpus(args.data, tokenizer, args.tasks, args.corpus, args.limit, args.held_out, args.pairs)
    nli = {"pairs": args.pairs, "pooling": args.pooling, "dropout": args.hidden_dropout_prob}
    learner, had_head = load_learner(args.pretrained, args.attention, args.bert_dropout, nli if corpus.nli else None,
                                     args.local_files_only)  # fmt: skip
    learner.to(device)
    learner.nli.precision = args.precision
    learner.keeps_mlm = had_head or corpus.mlm is not None
    if corpus.mlm:
        print(f"sentences   {len(corpus.mlm):,} to read, {len(corpus.held_out or ()):,} to score")
        print(f"MLM head    {'came with the weights' if had_head else 'fresh: the weights came without one'}")
    if corpus.nli:
        print(f"NLI pairs   {len(corpus.nli):,} to read, {len(corpus.nli_dev):,} to score")
    print("".join(f"            {note}\n" for note in corpus.notes), end="", flush=True)
    train(learner, tokenizer, corpus, args)


def main(argv: list[str] | None = None):
    with one_line_errors():
        run(get_args(argv))


if __name__ == "__main__":
    main()
