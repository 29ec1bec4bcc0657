"""Further pre-training: BERT reads the tasks' own sentences before anybody asks it about them (Gururangan et al. 2020).

    python -m minbert.pretraining --pretrained minilm --data data --out runs/read         two more lessons for a BERT
    python multitask_classifier.py --pretrained runs/read …                               then the course's tasks

Two lessons are taken together, L = w₁·L_MLM + w₂·L_NLI, as in the report of Mo & Ho (w₁ = .7, w₂ = .3):

MLM   masked language modelling (Devlin et al. 2019, §3.1). Of every sentence's tokens 15% are chosen; of these 80%
      become [MASK], 10% another token, 10% stay. What stood there is to be found; nothing else counts:
          L_MLM = - mean over the chosen i of log softmax(W·t(x_i) + b)[token_i],   t(x) = LN(GELU(A·x + a)),
      x_i the last layer's vector, W the word embedding itself. A sentence is masked anew each time it comes ("dynamic
      masking", Liu et al. 2019), by draws that depend on the seed, the pass and the batch alone.
NLI   does a premise entail a hypothesis, contradict it, or neither (Bowman et al. 2015)? Three logits, from both
      sentences in one row, or from two vectors as [u; v; |u-v|] (Reimers & Gurevych 2019).

It reads the *training* files. A sentence that is in a dev or test file, too, is left out of both lessons, and so are
the held-out sentences on which masked words are scored. What comes out is a directory of weights with the MLM head,
which `--pretrained` takes, and which `transformers.BertForMaskedLM` loads.
"""

import argparse
import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from minbert.bert import ATTENTION, BertModel
from minbert.config import BertConfig
from minbert.data import SPLITS, Batch, Batches, Dataset, Example, eval_batches, read_examples
from minbert.errors import Parser, UserError, at_least, one_line_errors, rate, seed, stop_signals
from minbert.evaluation import evaluate
from minbert.files import atomic, remove_strays, safe_load, sha256
from minbert.multitask import MultitaskBert
from minbert.optimizer import AdamW, lr_factor, set_lr
from minbert.pretrained import load_bert, load_strictly, load_tokenizer, mlm_weights, save_pretrained
from minbert.sampling import SCHEDULES, Plan
from minbert.tasks import TASKS
from minbert.tokenizer import SPECIAL, BertTokenizer

LESSONS = ("mlm", "nli")
SENTENCES = replace(TASKS["sst"], name="mlm", title="masked words")  # of a data set that is texts and nothing else
STATE = "resume.pt"  # where an unfinished run keeps all that it needs to go on

# ------------------------------------------------------------------------------------------------ masking


class Masking(NamedTuple):
    """How to mask. rate: the share of the tokens that is chosen. mask, random: the shares of the chosen that become
    [MASK] and a random token; the rest stays. whole_words: choose words, with all of their pieces, not pieces."""

    rate: float = 0.15
    mask: float = 0.8
    random: float = 0.1
    whole_words: bool = False


class Masker:
    """Masks rows of token ids, with a tokenizer's vocabulary; special tokens and pads are never chosen nor put in."""

    def __init__(self, tokenizer: BertTokenizer, masking: Masking | None = None):
        self.masking, self.mask_id = masking or Masking(), tokenizer.mask_id
        ordinary = torch.tensor([piece not in SPECIAL for piece in tokenizer.vocab])
        self.ordinary, self.ordinary_ids = ordinary, ordinary.nonzero()[:, 0]
        self.goes_on = torch.tensor([piece.startswith("##") for piece in tokenizer.vocab])

    def __call__(self, input_ids: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Ids (B, T) on the CPU → what BERT shall see (B, T), and which places were chosen (B, T), bool."""
        rate, mask, random, whole_words = self.masking
        draw = torch.rand(input_ids.shape, generator=generator)
        if whole_words:  # a piece that goes on with a word shares the draw of the word's first piece
            places = torch.arange(input_ids.shape[1]).expand_as(input_ids)
            first = torch.where(self.goes_on[input_ids], 0, places).cummax(dim=1).values
            draw = draw.gather(1, first)
        chosen = self.ordinary[input_ids] & (draw < rate)
        fate = torch.rand(input_ids.shape, generator=generator)
        others = self.ordinary_ids[torch.randint(len(self.ordinary_ids), input_ids.shape, generator=generator)]
        seen = torch.where(chosen & (fate < mask), self.mask_id, input_ids)
        seen = torch.where(chosen & (fate >= mask) & (fate < mask + random), others, seen)
        return seen, chosen


def generator_for(*numbers: int) -> torch.Generator:
    """A generator that depends on some whole numbers and nothing else."""
    value = 0
    for number in numbers:
        value = (value * 1_000_003 + number) % 2**63
    return torch.Generator().manual_seed(value)


# ------------------------------------------------------------------------------------------------ the model


class MlmHead(nn.Module):
    """W·LN(GELU(A·x + a)) + b, W the word embedding: what BERT was pre-trained with, and most checkpoints hold."""

    def __init__(self, config: BertConfig):
        super().__init__()
        C = config.hidden_size
        self.dense = nn.Linear(C, C)
        self.layer_norm = nn.LayerNorm(C, eps=config.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        nn.init.normal_(self.dense.weight, std=config.initializer_range)
        nn.init.zeros_(self.dense.bias)

    def forward(self, x: Tensor, word_embedding: Tensor) -> Tensor:
        """Vectors (N, C) and the word embedding (V, C) → logits (N, V)."""
        return F.linear(self.layer_norm(F.gelu(self.dense(x))), word_embedding, self.bias)


class Learner(nn.Module):
    """One BERT with what both lessons need: the MLM head, and `nli`, a MultitaskBert of that one task (or of none).

    nli: the arguments of `MultitaskBert` besides BERT and tasks; None leaves the lesson out.
    """

    def __init__(self, bert: BertModel, nli: Mapping | None = None):
        super().__init__()
        self.bert = bert
        self.mlm = MlmHead(bert.config)
        self.keeps_mlm = True  # the head is worth writing: it was loaded, or it is trained
        self.nli = MultitaskBert(bert, ["nli"] if nli is not None else [], **(nli or {}))

    def mlm_logits(self, batch: Batch, seen: Tensor, chosen: Tensor) -> Tensor:
        """The logits (N, V) at the N chosen places alone: over the whole batch they would be 7 times the work.

        batch: whose attention mask and token types count. seen: its ids as masked (B, T). chosen: (B, T), bool.
        """
        x = self.bert.encode(self.bert.embed(seen, batch.token_type_ids), batch.attention_mask)  # (B, T, C)
        return self.mlm(x[chosen], self.bert.word_embedding.weight)

    def mlm_loss(self, batch: Batch, seen: Tensor, chosen: Tensor) -> Tensor:
        """Mean cross-entropy over the chosen places; 0 where chance chose none."""
        logits = self.mlm_logits(batch, seen, chosen)
        return F.cross_entropy(logits, batch.input_ids[chosen], reduction="sum") / max(1, len(logits))


@torch.no_grad()
def score_masked(learner: Learner, data: Dataset, masker: Masker) -> dict[str, float]:
    """MLM's mean loss over the chosen tokens of `data`, in nats, and the share that was found; always the same masks.

    "words" are word pieces. Without dropout; BERT is left in the mode in which it was.
    """
    was_training = learner.training
    learner.eval()
    device = learner.nli.device
    loss, found, count = 0.0, 0, 0
    for number, batch in enumerate(eval_batches(data)):
        seen, chosen = (x.to(device) for x in masker(batch.input_ids, generator_for(0, number)))
        batch = batch.to(device)
        with learner.nli.autocast():
            logits = learner.mlm_logits(batch, seen, chosen).float()
        targets = batch.input_ids[chosen]
        loss += F.cross_entropy(logits, targets, reduction="sum").item()
        found += (logits.argmax(dim=-1) == targets).sum().item()
        count += len(targets)
    learner.train(was_training)
    return {"mlm_loss": loss / max(1, count), "masked_word_accuracy": found / max(1, count)}


def load_learner(name: str | Path, attention: str, dropout: float | None, nli: Mapping | None) -> tuple[Learner, bool]:
    """The BERT of `name` with both heads, and whether the MLM head came with it; else that is fresh."""
    learner = Learner(load_bert(name, attention, dropout), nli)
    head = mlm_weights(name)
    if head:
        load_strictly(learner.mlm, head, f"{name}: the MLM head")
    return learner, bool(head)


# ------------------------------------------------------------------------------------------------ what is read


@dataclass
class Corpus:
    """What both lessons read, and what they are scored on."""

    mlm: Dataset | None  # sentences of the training files
    held_out: Dataset | None  # more of them, never trained on
    nli: Dataset | None  # pairs
    nli_dev: Dataset | None
    left_out: dict[str, int]  # how many texts or pairs were left out since a dev or test file has them: by lesson
    counts: dict[str, int]  # sentences of each file, of those that are left

    @property
    def train(self) -> dict[str, Dataset]:
        return {name: data for name, data in (("mlm", self.mlm), ("nli", self.nli)) if data}


def read_corpus(
    folder: Path,
    tokenizer: BertTokenizer,
    lessons: Iterable[str] = LESSONS,
    files: Iterable[str] = ("sst", "para", "sts", "nli"),
    limit: Mapping[str, int] | None = None,
    held_out: int = 1000,
    pairs: str = "joint",
) -> Corpus:
    """Read the training files of the tasks in `files`, each sentence once, without those of any dev or test file.

    Two texts are the same if their word pieces are. limit: how many examples of a task's training file, else all.
    held_out: sentences to keep for scoring, at most a tenth of all. pairs: "joint" or "separate", of NLI.
    """
    forbidden = set()
    for task in TASKS.values():
        for split in ("dev", "test"):
            path = folder / task.file.format(SPLITS[split])
            if path.exists():
                texts = [text for example in read_examples(path, task) for text in example.texts]
                forbidden.update(map(tuple, tokenizer.encode(texts)))

    sentences: dict[tuple[int, ...], str] = {}  # word pieces → the text
    left_out, counts = dict.fromkeys(lessons, 0), {}
    nli_pairs: list[Example] = []
    for name in to_read(lessons, files):
        path = folder / TASKS[name].file.format("train")
        examples = read_examples(path, TASKS[name], (limit or {}).get(name))
        before = len(sentences)
        for keys, example in zip(_keys(examples, tokenizer), examples, strict=True):
            known = [key in forbidden for key in keys]
            if name == "nli" and "nli" in lessons:
                left_out["nli"] += any(known)
                nli_pairs += [] if any(known) else [example]
            if "mlm" in lessons and name in files:
                left_out["mlm"] += sum(known)
                sentences.update((k, text) for k, bad, text in zip(keys, known, example.texts, strict=True) if not bad)
        if "mlm" in lessons and name in files:
            counts[name] = len(sentences) - before

    def dataset(texts: list[str]) -> Dataset | None:
        return Dataset(SENTENCES, [Example(None, (text,), None) for text in texts], tokenizer) if texts else None

    kept, aside = list(sentences), set()
    if sentences:
        drawn = torch.randperm(len(kept), generator=generator_for(0)).tolist()
        aside = {kept[i] for i in drawn[: min(held_out, len(kept) // 10)]}
        if nli_pairs:  # a held-out sentence must not come by the other door
            keys = _keys(nli_pairs, tokenizer)
            nli_pairs = [e for e, ks in zip(nli_pairs, keys, strict=True) if aside.isdisjoint(ks)]
    nli_dev = None
    if "nli" in lessons:
        dev = read_examples(folder / TASKS["nli"].file.format("dev"), TASKS["nli"])
        for split, examples in (("train", nli_pairs), ("dev", dev)):
            if not examples or None in [example.label for example in examples]:
                path = folder / TASKS["nli"].file.format(split)
                raise UserError(f"{path}: not every row has a label, or none is left; --tasks nli needs labelled pairs")
        nli_dev = Dataset(TASKS["nli"], dev, tokenizer, pairs)
    return Corpus(
        dataset([text for key, text in sentences.items() if key not in aside]),
        dataset([text for key, text in sentences.items() if key in aside]),
        Dataset(TASKS["nli"], nli_pairs, tokenizer, pairs) if nli_pairs else None,
        nli_dev,
        left_out,
        counts,
    )


def to_read(lessons: Iterable[str], files: Iterable[str]) -> list[str]:
    """The tasks whose training files are needed: those that are masked, and nli for its own lesson."""
    return list(dict.fromkeys([*files, *(["nli"] if "nli" in lessons else [])]))


def _keys(examples: list[Example], tokenizer: BertTokenizer) -> Iterator[list[tuple[int, ...]]]:
    """The word pieces of each example's texts."""
    pieces = iter(tokenizer.encode([text for example in examples for text in example.texts]))
    return ([tuple(next(pieces)) for _ in example.texts] for example in examples)


# ------------------------------------------------------------------------------------------------ the loop


def train(learner: Learner, tokenizer: BertTokenizer, corpus: Corpus, args: argparse.Namespace) -> None:
    """Train on corpus.train; after each epoch score, and write the weights to OUT. --resume: see State."""
    device, masker = learner.nli.device, Masker(tokenizer, args.masking)
    plan = Plan({t: len(d) for t, d in corpus.train.items()}, args.batch_size, args.epochs, args.seed,
                args.steps_per_epoch)  # fmt: skip
    schedule = SCHEDULES["interleaved"]  # every epoch sees all sentences, and all pairs, once
    sizes = schedule.sizes(plan)
    streams = {task: Batches(d, sizes[task], args.seed) for task, d in corpus.train.items()}
    optimizer = AdamW(parameter_groups(learner, args), lr=args.lr)
    state = State(args, learner, optimizer, streams)
    if args.resume:
        state.load()
    else:
        report(args, 0, {}, scores(learner, corpus, masker), 0.0, 0)

    with stop_signals() as stop:
        for epoch in range(state.epoch, args.epochs):
            learner.train()
            start, examples = time.perf_counter(), 0
            steps = schedule.steps(plan, epoch)
            bar = tqdm(steps, desc=f"epoch {epoch + 1}/{args.epochs}", unit="step", leave=False, disable=None)
            for i, step in enumerate(bar):
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
                if args.clip:
                    torch.nn.utils.clip_grad_norm_(learner.parameters(), args.clip)
                done, total = epoch * len(steps) + i, args.epochs * len(steps)
                set_lr(optimizer, lr_factor(done, total, args.warmup, args.lr_decay))
                optimizer.step()
                state.step = i + 1
                if stop.asked or (args.save_every and state.step % args.save_every == 0):
                    state.save()
                stop.leave_if_asked(f"stopped; --resume goes on from step {state.step} of epoch {epoch + 1}")

            losses = state.mean_losses()
            seconds = time.perf_counter() - start
            report(args, epoch + 1, losses, scores(learner, corpus, masker), seconds, examples)
            save_pretrained(learner.bert, tokenizer, args.out, learner.mlm if learner.keeps_mlm else None)
            state.next_epoch()
            state.save()
            stop.leave_if_asked(f"stopped; --resume goes on after epoch {epoch + 1}")


def scores(learner: Learner, corpus: Corpus, masker: Masker) -> dict[str, float]:
    """{"mlm_loss": 2.1, "masked_word_accuracy": .61, "nli": .74}, of the lessons that there are."""
    found = score_masked(learner, corpus.held_out, masker) if corpus.held_out else {}
    return found | (evaluate(learner.nli, {"nli": corpus.nli_dev}) if corpus.nli_dev else {})


def parameter_groups(learner: Learner, args: argparse.Namespace) -> list[dict]:
    """BERT with --lr, the heads with --head_lr; biases and LayerNorms never decay (Devlin et al. 2019, §A.2)."""
    groups: dict[tuple, list] = {}
    for name, parameter in learner.named_parameters():  # each once: BERT under its first name
        lr = args.lr if name.startswith("bert.") else args.head_lr or args.lr
        spared = name.endswith("bias") or "layer_norm" in name
        groups.setdefault((lr, 0.0 if spared else args.weight_decay), []).append(parameter)
    return [{"params": params, "lr": lr, "weight_decay": decay} for (lr, decay), params in groups.items()]


class State:
    """All that an unfinished run needs to go on as if it had never stopped, kept in OUT/resume.pt.

    epoch, step: how many epochs are done, and how many steps of the next. losses: of that epoch's batches so far.
    """

    def __init__(self, args: argparse.Namespace, learner: Learner, optimizer: AdamW, streams: dict[str, Batches]):
        self.path, self.learner, self.optimizer, self.streams = args.out / STATE, learner, optimizer, streams
        self.flags = identity(args)
        self.epoch = self.step = 0
        self.losses: dict[str, list[Tensor]] = {task: [] for task in streams}
        self.metrics = args.out / "metrics.jsonl"

    def mean_losses(self) -> dict[str, float]:
        means = {task: torch.stack(losses).mean().item() for task, losses in self.losses.items() if losses}
        for task, loss in means.items():
            if not math.isfinite(loss):
                raise UserError(f"the loss of {task} became {loss}; lower --lr, or add --clip 1")
        return means

    def next_epoch(self):
        self.epoch, self.step = self.epoch + 1, 0
        self.losses = {task: [] for task in self.losses}

    def save(self):
        """Write it, whole or not at all. A loss that is no number is never kept: the state before it is."""
        self.mean_losses()
        saved = {
            "flags": self.flags,
            "epoch": self.epoch,
            "step": self.step,
            "losses": {task: [loss.item() for loss in losses] for task, losses in self.losses.items()},
            "model": self.learner.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "streams": {task: stream.state_dict() for task, stream in self.streams.items()},
            "random": torch.get_rng_state(),  # dropout's
            "random_gpu": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
        }
        with atomic(self.path) as temporary:
            try:
                torch.save(saved, temporary)
            except RuntimeError as error:  # how PyTorch's writer says that the disk is full
                raise UserError(f"{self.path}: cannot be written ({str(error).splitlines()[0]})") from error

    def load(self):
        """Take up what `save` wrote; UserError where that run had other flags, weights or data."""
        if not self.path.exists():
            raise UserError(f"{self.path}: not there, so there is nothing to --resume; leave the flag out to begin")
        saved = safe_load(self.path)
        for name, value in self.flags.items():
            if saved.get("flags", {}).get(name) != value:
                raise UserError(
                    f"{self.path}: that run had {name} = {saved.get('flags', {}).get(name)!r}, this one has {value!r}; "
                    "--resume goes on with the same"
                )
        self.epoch, self.step = saved["epoch"], saved["step"]
        self.losses = {task: [torch.tensor(x) for x in losses] for task, losses in saved["losses"].items()}
        load_strictly(self.learner, saved["model"], self.path)
        self.optimizer.load_state_dict(saved["optimizer"])
        for task, stream in self.streams.items():
            stream.load_state_dict(saved["streams"][task])
        torch.set_rng_state(saved["random"])
        if saved["random_gpu"] is not None and torch.cuda.is_initialized():
            torch.cuda.set_rng_state(saved["random_gpu"])
        if self.metrics.exists():  # an epoch that was told of but not kept is told of again
            lines = self.metrics.read_text("utf-8").splitlines(keepends=True)
            with atomic(self.metrics) as temporary:
                temporary.write_text("".join(x for x in lines if json.loads(x)["epoch"] <= self.epoch), "utf-8")


def identity(args: argparse.Namespace) -> dict[str, str]:
    """What a run that goes on must have in common with the one that stopped: flags, and what its files hold."""
    free = ("out", "resume", "overwrite", "save_every", "data", "masking", "use_gpu")
    flags = {f"--{name}": str(value) for name, value in vars(args).items() if name not in free}
    for name in to_read(args.tasks, args.corpus):
        path = args.data / TASKS[name].file.format("train")
        flags[f"the content of {path.name}"] = sha256(path)
    return flags


def report(args: argparse.Namespace, epoch: int, losses: dict, found: dict, seconds: float, examples: int):
    """One line for the person, one of JSON for programs. Epoch 0 is how it stood before."""
    text = ["before    " if epoch == 0 else f"epoch {epoch}/{args.epochs}"]
    if losses:
        text.append("loss " + "  ".join(f"{task} {x:.3f}" for task, x in losses.items()))
    if "mlm_loss" in found:
        text.append(f"held out: mlm {found['mlm_loss']:.3f}, masked words {found['masked_word_accuracy']:.3f}")
    if "nli" in found:
        text.append(f"nli dev {found['nli']:.3f}")
    if seconds:
        text.append(f"{seconds:.0f} s, {examples / seconds:.1f} examples/s")
    print(" | ".join(text), flush=True)
    line = {"epoch": epoch, "loss": losses, **found, "seconds": seconds}
    with open(args.out / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


# ------------------------------------------------------------------------------------------------ the flags
# fmt: off


def get_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the flags; whatever cannot work is refused here, in one line."""
    parser = Parser(description=__doc__, prog="python -m minbert.pretraining")
    number, positive, count = at_least(float, 0), at_least(float, 0, above=True), at_least(int, 1)

    add = parser.add_argument_group("data").add_argument
    add("--data", metavar="DIR", type=Path, default=Path(__file__).resolve().parents[1] / "data",
        help="folder of the course's files, nli-train.csv and nli-dev.csv (default: data/ beside the package)")
    add("--tasks", metavar="LIST", default="mlm,nli", help="which lessons: mlm, nli or both, with a comma")
    add("--corpus", metavar="LIST", help="whose training files' sentences are masked: of "
        f"{', '.join(TASKS)} (default: sst,para,sts, and nli where it is a lesson)")
    add("--limit", metavar="N", default="",
        help="use N examples, always the same, of each training file; or a list: a number for each file that is read")
    add("--held_out", metavar="N", type=count, default=1000, help="sentences to score masked words on, at most a tenth")
    add("--max_length", metavar="T", type=at_least(int, 8), default=128, help="cut rows to T tokens")

    add = parser.add_argument_group("model").add_argument
    add("--pretrained", metavar="NAME", default="bert-base-uncased",
        help="a BERT of the Hugging Face hub, a directory, a checkpoint (.pt), or `minilm` (small, 90 MB)")
    add("--pairs", choices=("joint", "separate"), default="joint", help="NLI: one row of both sentences, or two rows")
    add("--pooling", choices=("cls", "mean"), default="cls", help="NLI: the pooler over [CLS], or the mean over tokens")
    add("--hidden_dropout_prob", metavar="P", type=rate, default=0.1, help="dropout of NLI's head")
    add("--bert_dropout", metavar="P", type=rate, help="dropout inside BERT (default: what its config.json says)")
    add("--attention", choices=tuple(ATTENTION), default="sdpa", help="written out, or by PyTorch's fused kernel")

    add = parser.add_argument_group("masking").add_argument
    add("--mask_rate", metavar="P", type=rate, default=0.15, help="share of the tokens that are to be found")
    add("--mask_shares", metavar="M,R", default="0.8,0.1",
        help="of those, how many become [MASK], and how many a random token; the rest stays")
    add("--whole_words", action="store_true", help="choose whole words, not word pieces")

    add = parser.add_argument_group("training").add_argument
    add("--seed", metavar="N", type=seed, default=11711, help="of dropout, fresh heads, masks and data order")
    add("--epochs", metavar="N", type=count, default=5, help="times that every sentence and pair is read")
    add("--steps_per_epoch", metavar="N", type=count, help="stop each epoch after N steps, or stretch it")
    add("--weights", metavar="LIST",
        help="a factor for the loss of each of --tasks (default: 0.7,0.3; of one alone 1)")
    add("--batch_size", metavar="N", type=count, default=32,
        help="examples a batch of the larger lesson; the other's are smaller, so that both end together")
    add("--lr", metavar="RATE", type=positive, default=5e-6, help="learning rate")
    add("--head_lr", metavar="RATE", type=positive, help="learning rate of the heads (default: --lr)")
    add("--warmup", metavar="SHARE", type=rate, default=0.0, help="share of the steps in which the rates rise from 0")
    add("--lr_decay", choices=("constant", "linear"), default="constant", help="then they stay, or fall to 0")
    add("--weight_decay", metavar="RATE", type=number, default=0.0, help="AdamW's; not of biases and LayerNorms")
    add("--clip", metavar="NORM", type=number, default=1.0, help="cut the whole gradient to this norm; 0 does not")
    add("--precision", choices=("fp32", "bf16"), default="fp32", help="of the matrix products")
    add("--use_gpu", action="store_true", help="train on the first CUDA device")

    add = parser.add_argument_group("output").add_argument
    add("--out", metavar="DIR", type=Path, required=True, help="folder for the weights, metrics.jsonl and resume.pt")
    add("--overwrite", action="store_true", help="let an earlier run's files in OUT go")
    add("--resume", action="store_true", help="go on with the run in OUT, from its last whole state")
    add("--save_every", metavar="N", type=count, help="keep a state every N steps (default: after each epoch)")
    return finish(parser, parser.parse_args(argv))
# fmt: on


def finish(parser: Parser, args: argparse.Namespace) -> argparse.Namespace:
    """Settle the flags that depend on one another."""
    args.tasks = list(dict.fromkeys(args.tasks.split(",")))
    for name in args.tasks:
        if name not in LESSONS:
            parser.error(f"--tasks {name}: the lessons are {', '.join(LESSONS)}")
    if args.corpus and "mlm" not in args.tasks:
        parser.error("--corpus needs mlm among --tasks")
    default = ["sst", "para", "sts"] if "mlm" in args.tasks else []
    corpus = args.corpus.split(",") if args.corpus else default + (["nli"] if args.tasks != ["mlm"] else [])
    for name in corpus:
        if name not in TASKS:
            parser.error(f"--corpus {name}: the files are those of {', '.join(TASKS)}")
    args.corpus = list(dict.fromkeys(corpus))
    files, limits = to_read(args.tasks, args.corpus), args.limit.split(",") if args.limit else []
    try:
        limits = [at_least(int, 1)(word) for word in limits]
        args.limit = dict(zip(files, limits * len(files) if len(limits) == 1 else limits, strict=bool(limits)))
    except (ValueError, argparse.ArgumentTypeError):
        parser.error(f"--limit {args.limit}: give one number, or one for each of {','.join(files)}")
    words = (args.weights or ("0.7,0.3" if len(args.tasks) == 2 else "1")).split(",")
    try:
        args.weights = dict(zip(args.tasks, map(at_least(float, 0, above=True), words), strict=True))
    except (ValueError, argparse.ArgumentTypeError):
        parser.error(f"--weights {args.weights}: give a number above 0 for each of --tasks {','.join(args.tasks)}")
    try:
        mask, random = map(at_least(float, 0), args.mask_shares.split(","))
        if mask + random > 1 + 1e-9:
            raise ValueError
    except (ValueError, argparse.ArgumentTypeError):
        parser.error(f"--mask_shares {args.mask_shares}: give two shares, with a comma, that are at most 1 together")
    if not args.mask_rate:
        parser.error("--mask_rate 0: nothing would be learned")
    args.masking = Masking(args.mask_rate, mask, random, args.whole_words)
    if args.resume and args.overwrite:
        parser.error("--resume and --overwrite contradict each other")
    if args.use_gpu and not torch.cuda.is_available():
        parser.error("--use_gpu: this PyTorch sees no CUDA device; leave the flag out to train on the CPU")
    return args


def run(args: argparse.Namespace):
    """Read, load, train."""
    for name in ("model.safetensors", STATE):
        if (args.out / name).exists() and not (args.overwrite or args.resume):
            raise UserError(f"{args.out / name}: an earlier run's; add --resume or --overwrite, or another --out")
    torch.manual_seed(args.seed)
    tokenizer = load_tokenizer(args.pretrained)
    tokenizer.max_length = min(tokenizer.max_length, args.max_length)
    corpus = read_corpus(args.data, tokenizer, args.tasks, args.corpus, args.limit, args.held_out, args.pairs)
    nli = {"pairs": args.pairs, "pooling": args.pooling, "dropout": args.hidden_dropout_prob}
    learner, known = load_learner(args.pretrained, args.attention, args.bert_dropout, nli if corpus.nli else None)
    learner.to("cuda" if args.use_gpu else "cpu")
    learner.nli.precision = args.precision
    learner.keeps_mlm = known or corpus.mlm is not None
    if corpus.mlm:
        counts = ", ".join(f"{TASKS[name].title} {n:,}" for name, n in corpus.counts.items())
        print(f"sentences   {len(corpus.mlm):,} to read, {len(corpus.held_out or ()):,} held out ({counts})")
        print(f"            left out {corpus.left_out['mlm']:,} that a dev or test file has, too")
        print(f"MLM head    {'came with the weights' if known else 'fresh: the weights came without one'}")
    if corpus.nli:
        print(f"NLI pairs   {len(corpus.nli):,} to read, {len(corpus.nli_dev):,} dev; "
              f"left out {corpus.left_out['nli']:,} with a sentence that a dev or test file has, too")  # fmt: skip
    args.out.mkdir(parents=True, exist_ok=True)
    remove_strays(args.out)
    if not args.resume:
        for name in ("metrics.jsonl", STATE, "model.safetensors"):
            (args.out / name).unlink(missing_ok=True)
    train(learner, tokenizer, corpus, args)


def main(argv: list[str] | None = None):
    with one_line_errors():
        run(get_args(argv))


if __name__ == "__main__":
    main()
