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
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from minbert.bert import ATTENTION
from minbert.checkpoint import load_model, save_model, save_trained
from minbert.data import SPLITS, Batch, Batches, Dataset, Example, read_examples
from minbert.errors import Parser, UserError, at_least, betas, one_line_errors, rate, seed
from minbert.evaluation import chance, evaluate, in_words, outputs, overall, predict, score, write_predictions
from minbert.files import remove_strays
from minbert.heads import PAIR_HEADS, choose_head
from minbert.multitask import MultitaskBert, part_of
from minbert.optimizer import AdamW, lr_factor, parameter_groups, set_lr
from minbert.pals import ACTIVATIONS, ADAPTERS
from minbert.pcgrad import COMBINE, Memory, give_gradients, take_gradients
from minbert.pretrained import load_bert, load_tokenizer
from minbert.sampling import SCHEDULES, Plan
from minbert.smart import EPSILON, NOISE, Proximal, exact, smoothness
from minbert.tasks import STS_LOSSES, TASKS
from minbert.tokenizer import BertTokenizer

HERE = Path(__file__).resolve().parent
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
    groups = parameter_groups(model, args.lr, args.head_lr, args.weight_decay, args.no_decay_norms)
    optimizer = AdamW(groups, lr=args.lr)
    memory = Memory(args.seed)
    terms = SmartTerms(model, learners, args)
    best = -1.0

    for epoch in range(args.epochs):
        model.train()
        log = EpochLog(learners)
        terms.smooth = schedule.smooth(plan)
        steps = schedule.steps(plan, epoch)
        if args.combine == "separate":
            steps = [[task] for step in steps for task in step]

        for i, step in enumerate(progress(steps, f"epoch {epoch + 1}/{args.epochs}")):
            optimizer.zero_grad()
            gradients = []
            for task in step:
                batch = streams[task].next().to(model.device)
                with model.autocast():
                    embedded = model.embed(batch)
                    logits = model.logits(batch, embedded)
                loss = loss_of[task](logits, batch.labels)
                for part in terms(batch, embedded, logits, loss):
                    (args.task_weights[task] * part).backward()
                gradients.append(take_gradients(model.bert.parameters()))
                log.add(task, len(batch), loss=loss, **terms.seen)
            give_gradients(gradients, COMBINE[args.combine], memory)
            if args.clip:
                torch.nn.utils.clip_grad_norm_(model.parameters(), args.clip)
            done, total = epoch * len(steps) + i, args.epochs * len(steps)  # an epoch counts as one, however long
            set_lr(optimizer, lr_factor(done, total, args.warmup, args.lr_decay))
            optimizer.step()
            terms.after_step(done / total)

        log.stop()
        scores = {"dev": evaluate(model, dev_sets)}
        if args.eval_train:
            scores["train"] = evaluate(model, train_sets)
        plan.history.append(scores["dev"])
        if overall(scores["dev"]) > best:
            best = overall(scores["dev"])
            save_model(args.out / "best.pt", model, tokenizer, epoch=epoch + 1, dev=scores["dev"])
            if args.lora or args.freeze_bert:
                save_trained(args.out / "trained.pt", model)
        report_epoch(args, epoch, log, scores)


def progress(steps: list, title: str) -> tqdm:
    """A progress bar on a terminal and in a notebook, nothing in a pipe."""
    return tqdm(steps, desc=title, unit="step", leave=False, disable=None)


class SmartTerms:
    """What --smart and --bregman add to the loss of a task: λ·R_s + μ·D of `minbert/smart.py`.

    smooth: whether λ counts at present; some schedules switch it on late. seen: what to log of the last batch.
    """

    def __init__(self, model: MultitaskBert, tasks: list[str], args: argparse.Namespace):
        self.model, self.smooth, self.seen = model, True, {}
        self.lambdas = {task: args.smart if task in args.smart_tasks else 0.0 for task in tasks}
        self.search = {name: getattr(args, f"smart_{name}") for name in ("epsilon", "sigma", "eta", "steps", "noise")}
        self.random = torch.Generator(model.device).manual_seed(args.seed)
        self.mu = args.bregman
        self.proximal = Proximal(model, args.bregman_beta) if args.bregman else None
        dropout = any(module.p for module in model.modules() if isinstance(module, nn.Dropout))
        self.share = not dropout and model.precision == "fp32"  # then the loss's pass is as good as a clean one

    def __call__(self, batch: Batch, embedded: Tensor, logits: Tensor, loss: Tensor) -> Iterator[Tensor]:
        """The loss with its terms, in one part or in two that add up: send each backward before asking for the next.

        Two where the terms need a clean pass of their own: then the activations of the loss's pass are gone before.
        embedded, logits: what the loss was made of.
        """
        lambda_, model, divergence = self.lambdas[batch.task] * self.smooth, self.model, TASKS[batch.task].divergence
        self.seen = {}
        if not (lambda_ or self.proximal):
            yield loss
            return
        if not self.share:
            yield loss
            loss = 0.0
            with exact(model):
                embedded = model.embed(batch)
                logits = model.logits(batch, embedded)
        if lambda_:
            found = smoothness(model, embedded, divergence, lambda x: model.logits(batch, x), clean=logits,
                               mask=batch.attention_mask, generator=self.random, **self.search)  # fmt: skip
            loss = loss + lambda_ * found.term
            self.seen = {"before": found.before, "after": found.term, "max_delta": found.delta.abs().max()}
        if self.proximal:
            self.seen["bregman"] = self.proximal(logits, divergence, batch)
            loss = loss + self.mu * self.seen["bregman"]
        yield loss

    def after_step(self, progress: float):
        """progress: the share of the training that is done."""
        if self.proximal:
            self.proximal.update(progress)


class EpochLog:
    """What happened in an epoch: each task's losses and terms, how many examples were seen, how long it took."""

    def __init__(self, tasks: list[str]):
        self.values: dict[str, dict[str, list[Tensor]]] = {}  # name of a value → task → a number a batch
        self.examples, self.start = 0, time.perf_counter()

    def add(self, task: str, examples: int, **values: Tensor):
        for name, value in values.items():  # not value.item(), which would wait for the GPU
            self.values.setdefault(name, {}).setdefault(task, []).append(value.detach())
        self.examples += examples
        if len(self.values["loss"][task]) % 100 == 0:
            self.check(task)

    def check(self, task: str):
        """Stop a run whose loss has become infinite or NaN: nothing that follows would be worth having."""
        loss = self.values["loss"][task][-1].item()
        if not math.isfinite(loss):
            raise UserError(f"the loss of {task} became {loss}; lower --lr, or add --clip 1")

    def stop(self):
        for task in self.values["loss"]:
            self.check(task)
        whole = {"max_delta": torch.max}  # all others are means
        self.means = {
            name: {task: whole.get(name, torch.mean)(torch.stack(values)).item() for task, values in by_task.items()}
            for name, by_task in self.values.items()
        }
        self.seconds = time.perf_counter() - self.start

    def terms(self) -> dict[str, dict]:
        """What SMART did, for metrics.jsonl; empty where it was off."""
        found = {}
        if "after" in self.means:
            found["smoothness"] = {
                task: {name: self.means[name][task] for name in ("before", "after", "max_delta")}
                for task in self.means["after"]
            }
        if "bregman" in self.means:
            found["bregman"] = self.means["bregman"]
        return found


def peak_memory() -> float:
    """The most memory that the run has held so far, in GiB: of the GPU where one is in use, else of the process."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**30
    try:
        import resource  # not on Windows
    except ImportError:
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in KiB, on a Mac in bytes
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def report_epoch(args: argparse.Namespace, epoch: int, log: EpochLog, scores: dict[str, dict[str, float]]):
    """One line for the person, one of JSON for programs."""
    speed = log.examples / log.seconds
    columns = {"loss": log.means["loss"], **scores}
    text = [f"{name} " + "  ".join(f"{t} {x:.3f}" for t, x in values.items()) for name, values in columns.items()]
    print(
        f"epoch {epoch + 1}/{args.epochs} | {' | '.join(text)} | overall {overall(scores['dev']):.3f} | "
        f"{log.seconds:.0f} s, {speed:.1f} examples/s, {peak_memory():.1f} GiB",
        flush=True,
    )
    terms = log.terms()
    text = [f"{t} {x['before']:.1e} → {x['after']:.1e}" for t, x in terms.get("smoothness", {}).items()]
    if text:
        largest = max(x["max_delta"] for x in terms["smoothness"].values())
        print(f"  smoothness, before → after ascent: {',  '.join(text)};  max|δ| {largest:.1e}", flush=True)
    if "bregman" in terms:
        print(f"  bregman: {',  '.join(f'{t} {x:.1e}' for t, x in terms['bregman'].items())}", flush=True)
    line = {"epoch": epoch + 1, **columns, "overall": overall(scores["dev"]), **terms}
    line |= {"seconds": log.seconds, "examples_per_second": speed, "peak_memory_gib": peak_memory()}
    with open(args.out / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


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
    """Pretrained BERT, what is added to it, fresh heads, on the device that was asked for; BERT frozen if so asked."""
    bert = load_bert(args.pretrained, args.attention, args.bert_dropout)
    try:
        model = MultitaskBert(bert, args.tasks, args.pairs, args.pooling, args.heads, args.hidden_dropout_prob,
                              args.lora, args.adapter_options)  # fmt: skip
    except ValueError as error:  # what only the weights can tell
        raise UserError(f"{'--lora_targets' if args.lora_targets else '--adapter_size'}: {error}") from error
    model.to("cuda" if args.use_gpu else "cpu").precision = args.precision
    if args.mode == "last-linear-layer" or args.freeze_bert:
        model.freeze_bert()
    print_parameters(model)
    for task in args.tasks:
        if not any(p.requires_grad for p in model.parameters_of(task)):
            print(f"{task} has nothing to learn: its head has no weights and BERT is frozen", file=sys.stderr)
    return model


def print_parameters(model: MultitaskBert):
    """How many numbers the model has, how many of them train, and where they are."""
    trained: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        trained[part_of(name)] = trained.get(part_of(name), 0) + parameter.requires_grad * parameter.numel()
    total, parts = sum(p.numel() for p in model.parameters()), ", ".join(f"{k} {n:,}" for k, n in trained.items())
    n = sum(trained.values())
    print(f"{'parameters':18} {n:,} trained ({parts}) of {total:,}: {n / total:.1%}")


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
    titles = ("data", "model", "additions to BERT", "training", "SMART", "output")
    groups = {title: parser.add_argument_group(title) for title in titles}
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

    add = groups["additions to BERT"].add_argument
    add("--lora_rank", metavar="R", type=at_least(int, 0), default=0,
        help="freeze BERT and train rank-R additions to its matrices; 0 does not; see minbert/lora.py")
    add("--lora_alpha", metavar="A", type=positive, help="scale α of the additions, of which α/R counts (default: 16)")
    add("--lora_dropout", metavar="P", type=rate, help="dropout of what goes into them (default: 0)")
    add("--lora_targets", metavar="LIST", help="which linear layers: query,value or others (default: all)")

    add = groups["training"].add_argument
    add("--seed", metavar="N", type=seed, default=11711, help="of dropout, fresh heads and data order")
    add("--epochs", metavar="N", type=count, default=10, help="rounds of training")
    add("--steps_per_epoch", metavar="N", type=count,
        help="steps a round, each of one or several tasks (default: what the schedule makes it)")
    add("--batch_size", metavar="N", type=count, default=8, help="examples a batch")
    add("--lr", metavar="RATE", type=positive,
        help="learning rate (default: 1e-3 where BERT's weights are frozen, 1e-5 where they train)")
    add("--head_lr", metavar="RATE", type=positive, help="learning rate of the heads (default: --lr)")
    add("--warmup", metavar="SHARE", type=rate, default=0.0, help="share of the epochs in which the rates rise from 0")
    add("--lr_decay", choices=("constant", "linear"), default="constant", help="then they stay, or fall to 0")
    add("--weight_decay", metavar="RATE", type=number, default=0.0, help="AdamW's, of every weight that trains")
    add("--no_decay_norms", action="store_true", help="but not of biases and LayerNorms")
    add("--clip", metavar="NORM", type=number, default=0.0, help="cut the whole gradient to this norm; 0 does not")
    add("--precision", choices=("fp32", "bf16"), default="fp32",
        help="of the matrix products: bf16 is a little rough; faster on processors made for it, far slower on others")
    add("--use_gpu", action="store_true", help="train on the first CUDA device")

    add = groups["SMART"].add_argument
    add("--smart", metavar="LAMBDA", type=number, default=0.0,
        help="weight λ of the smoothness term (the paper's: 5); see minbert/smart.py")
    add("--smart_epsilon", metavar="E", type=positive,
        help="radius ε around the embeddings (default: 1e-5, the paper's; 0.05 for relative noise)")
    add("--smart_sigma", metavar="S", type=positive, help="spread σ of the random start (default: 1e-5)")
    add("--smart_eta", metavar="H", type=positive, help="step η of the ascent (default: 100 ε, the paper's 1e-3)")
    add("--smart_steps", metavar="K", type=count, help="steps K of the ascent (default: 1)")
    add("--smart_noise", choices=tuple(NOISE),
        help="the worst point within ε (default: ball), or noise of a fixed share of each vector, not the paper's")
    add("--bregman", metavar="MU", type=number, default=0.0,
        help="weight μ of the nearness to a running mean of the weights (the paper's: 1)")
    add("--bregman_beta", metavar="BETA", type=betas,
        help="its β; or two, with a comma: in the first tenth, and after (default: 0.995; the paper's: 0.99,0.999)")

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
    count = at_least(int, 1)

    add = groups["data"].add_argument
    add("--tasks", metavar="LIST", default="sst,para,sts", help="which tasks, with commas")
    for name in MULTITASK:
        for split, file in SPLITS.items():
            add(f"--{name}_{split}", metavar="FILE", help=f"default: DATA/{TASKS[name].file.format(file)}")

    add = groups["model"].add_argument
    add("--pairs", choices=("separate", "joint"), default="separate",
        help="each sentence through BERT alone, or both as one row with a [SEP]")
    add("--para_head", choices=PAIR_HEADS["para"], help="of separate pairs (default: difference); see minbert/heads.py")
    add("--sts_head", choices=PAIR_HEADS["sts"], help="of separate pairs (default: cosine)")
    add("--sts_loss", choices=tuple(STS_LOSSES), default="mse", help="squared error, or pull cosines up and down")

    add = groups["additions to BERT"].add_argument
    add("--lora_per_task", action="store_true", help="additions of each task's own, on one BERT")
    add("--adapter", choices=("none", *ADAPTERS), default="none",
        help="a layer of each task's own beside every layer of BERT; see minbert/pals.py")
    add("--adapter_size", metavar="N", type=count,
        help="its inner width (default: 204 for pal and 100 for low_rank, to BERT-base's 768, in proportion)")
    add("--adapter_activation", choices=tuple(ACTIVATIONS), help="of low_rank (default: identity)")
    add("--freeze_bert", action="store_true", help="train the adapters and the heads alone")

    add = groups["training"].add_argument
    add("--schedule", choices=tuple(SCHEDULES), default="round_robin",
        help="which tasks each step trains on; see minbert/sampling.py")
    add("--combine", choices=tuple(COMBINE), default="separate",
        help="one update from a step's several losses: an update each, or one of all; see minbert/pcgrad.py")
    add("--task_weights", metavar="LIST", help="a factor for each of the losses of --tasks (default: 1,1,1)")

    add = groups["SMART"].add_argument
    add("--smart_tasks", metavar="LIST", help="of which tasks the smoothness counts (default: all of --tasks)")

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
                setattr(args, f"{name}_{split}", Path(args.data) / TASKS[name].file.format(file))
            elif name not in args.tasks:
                parser.error(f"--{name}_{split} needs {name} among --tasks")
        for split in ("dev", "test"):
            if getattr(args, f"{name}_{split}_out") is None:
                setattr(args, f"{name}_{split}_out", Path(args.out) / f"predictions/{name}-{split}-output.csv")
            elif name not in args.tasks:
                parser.error(f"--{name}_{split}_out needs {name} among --tasks")

    if args.quickstart and not (args.option or args.mode):
        args.mode = "full-model"
        if not (args.lora_rank or args.freeze_bert):
            args.lr = args.lr or 1e-4
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
    if args.smart_tasks and not args.smart:
        parser.error("--smart_tasks needs --smart above 0")
    asked = args.smart_tasks
    args.smart_tasks = list(dict.fromkeys(asked.split(","))) if asked else args.tasks
    for name in args.smart_tasks:
        if name not in args.tasks:
            parser.error(f"--smart_tasks {name} needs {name} among --tasks")
    args.task_weights = per_task("--task_weights", args.task_weights or "1", args.tasks, float, parser)
    finish_args(parser, args)
    if args.sts_loss == "cosine" and args.mode == "last-linear-layer":
        parser.error(f"--sts_loss cosine trains BERT alone; --fine-tune-mode {args.mode} freezes it")
    if args.combine in ("pcgrad", "gradvac", "cagrad"):
        nothing_shared = {f"--fine-tune-mode {args.mode}": args.mode == "last-linear-layer",
                          "--freeze_bert": args.freeze_bert, "--lora_per_task": args.lora_per_task}  # fmt: skip
        for flag in (flag for flag, on in nothing_shared.items() if on):
            parser.error(f"--combine {args.combine} works on weights inside BERT that tasks share; {flag} leaves none")
    frozen_cosine = args.mode == "last-linear-layer" and args.heads["sts"] == "cosine"
    if asked and args.smart_tasks == ["sts"] and frozen_cosine:
        parser.error(f"--smart_tasks sts: with --sts_head cosine and --fine-tune-mode {args.mode} sts learns nothing")
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
    """What both scripts settle after reading their flags: what trains, at which rate, on which device."""
    args.limit = per_task("--limit", args.limit, args.tasks, int, parser) if args.limit else {}
    if args.option:
        mode = {"pretrain": "last-linear-layer", "finetune": "full-model"}[args.option]
        if args.mode and args.mode != mode:
            parser.error(f"--option {args.option} and --fine-tune-mode {args.mode} contradict each other")
        args.mode = mode
    inside = finish_surgery(parser, args)
    args.mode = args.mode or ("full-model" if inside else "last-linear-layer")
    if inside and args.mode == "last-linear-layer":
        parser.error(f"{inside} trains inside BERT, --fine-tune-mode {args.mode} (--option pretrain) the heads alone")
    if args.lr is None:
        frozen = args.mode == "last-linear-layer" or args.freeze_bert or args.lora
        args.lr = 1e-3 if frozen else 1e-5
    finish_smart(parser, args)
    if args.no_decay_norms and not args.weight_decay:
        parser.error("--no_decay_norms needs a --weight_decay above 0")
    if args.use_gpu and not torch.cuda.is_available():
        parser.error("--use_gpu: this PyTorch sees no CUDA device; leave the flag out to train on the CPU")
    args.out = Path(args.out)
    return args


def finish_surgery(parser: Parser, args: argparse.Namespace) -> str | None:
    """Settle what is added to BERT, args.lora and args.adapter_options; the flag that asks for it."""
    for flag in ("alpha", "dropout", "targets", "per_task"):
        if getattr(args, f"lora_{flag}") and not args.lora_rank:
            parser.error(f"--lora_{flag} needs --lora_rank above 0")
    for flag in ("size", "activation"):
        if getattr(args, f"adapter_{flag}") and args.adapter == "none":
            parser.error(f"--adapter_{flag} needs an --adapter")
    if args.adapter_activation and args.adapter != "low_rank":
        parser.error(f"--adapter_activation {args.adapter_activation} goes with --adapter low_rank, not {args.adapter}")
    if args.freeze_bert and args.lora_rank:
        parser.error(f"--freeze_bert: --lora_rank {args.lora_rank} freezes BERT by itself")
    if args.freeze_bert and args.adapter == "none":
        parser.error("--freeze_bert needs an --adapter; for the heads alone: --fine-tune-mode last-linear-layer")
    if args.lora_per_task and len(args.tasks) < 2:
        parser.error(f"--lora_per_task needs two tasks or more; --tasks names {args.tasks[0]} alone")

    args.lora = args.adapter_options = None
    if args.lora_rank:
        args.lora = {"rank": args.lora_rank, "alpha": args.lora_alpha or 16.0, "dropout": args.lora_dropout or 0.0,
                     "targets": args.lora_targets.split(",") if args.lora_targets else None,
                     "names": args.tasks if args.lora_per_task else ["all"]}  # fmt: skip
    if args.adapter != "none":
        options = {"kind": args.adapter, "size": args.adapter_size, "activation": args.adapter_activation}
        args.adapter_options = {key: value for key, value in options.items() if value is not None}
    if args.lora:
        return f"--lora_rank {args.lora_rank}"
    return f"--adapter {args.adapter}" if args.adapter_options else None


def finish_smart(parser: Parser, args: argparse.Namespace):
    """Settle the flags of SMART's two terms."""
    for flag in ("epsilon", "sigma", "eta", "steps", "noise"):
        if getattr(args, f"smart_{flag}") is not None and not args.smart:
            parser.error(f"--smart_{flag} needs --smart above 0")
    args.smart_noise = args.smart_noise or "ball"
    args.smart_epsilon = args.smart_epsilon or EPSILON[args.smart_noise]
    args.smart_sigma = args.smart_sigma or 1e-5
    args.smart_steps = args.smart_steps or 1
    if args.bregman_beta and not args.bregman:
        parser.error("--bregman_beta needs --bregman above 0")
    args.bregman_beta = args.bregman_beta or (0.995, 0.995)


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
    for name in ("metrics.jsonl", "best.pt", "trained.pt"):  # of an earlier run; nobody shall take them for this one's
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
