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

Both learn from the *training* files. A sentence that a dev or test file has, too, is left out of both lessons, and so
are the held-out sentences on which masked words are scored. What comes out is a directory of weights with the MLM head,
which `--pretrained` takes, and which `transformers.BertForMaskedLM` loads.
"""

import argparse
import hashlib
import json
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from minbert.bert import ATTENTION, BertModel
from minbert.config import BertConfig
from minbert.data import SPLITS, Batch, Batches, Dataset, Example, eval_batches, read_examples, read_texts
from minbert.errors import Parser, UserError, at_least, one_line_errors, rate, seed, stop_signals
from minbert.evaluation import evaluate
from minbert.files import atomic, atomic_save, remove_strays, safe_load
from minbert.multitask import MultitaskBert
from minbert.optimizer import AdamW, lr_factor, parameter_groups, set_lr
from minbert.pretrained import load_bert, load_strictly, load_tokenizer, mlm_weights, save_pretrained
from minbert.sampling import SCHEDULES, Plan
from minbert.tasks import TASKS
from minbert.tokenizer import SPECIAL, BertTokenizer

LESSONS = ("mlm", "nli")
SENTENCES = replace(TASKS["sst"], name="mlm", title="masked words")  # of a data set that is texts and nothing else
STATE = "resume.pt"  # where a run keeps all that it needs to go on
THEIRS = ("model.safetensors", "pytorch_model.bin", "config.json", "vocab.txt", "best.pt")  # signs of an earlier run's

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

    nli: the arguments of `MultitaskBert` besides BERT and tasks; None leaves the lesson out. keeps_mlm: whether the MLM
    head is worth writing, because it was loaded or will be trained.
    """

    keeps_mlm = True

    def __init__(self, bert: BertModel, nli: Mapping | None = None):
        super().__init__()
        self.bert = bert
        self.mlm = MlmHead(bert.config)
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
        seen, chosen = (x.to(device) for x in masker(batch.input_ids, generator_for(2, number)))
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


Key = tuple[int, ...]  # a text's word pieces: two texts with the same are the same


@dataclass
class Corpus:
    """What both lessons read, and what they are scored on."""

    mlm: Dataset | None  # sentences of the training files
    held_out: Dataset | None  # more of them, never trained on
    nli: Dataset | None  # pairs
    nli_dev: Dataset | None
    notes: list[str]  # what was read and what was left out, for the person

    @property
    def train(self) -> dict[str, Dataset]:
        return {name: data for name, data in (("mlm", self.mlm), ("nli", self.nli)) if data}

    def digest(self) -> str:
        """sha256 of all that is read, as ids: it changes with the files, the vocabulary, and what is left out."""
        digest = hashlib.sha256()
        for data in (self.mlm, self.held_out, self.nli, self.nli_dev):
            digest.update(repr(data and (data.rows, data.labels)).encode())
        return digest.hexdigest()


def forbidden_sentences(folder: Path, tokenizer: BertTokenizer) -> tuple[set[Key], list[str]]:
    """What no lesson may hold: all texts of all tasks' dev and test files in `folder`; and the names of these."""
    every = {folder / task.file.format(SPLITS[split]): task for task in TASKS.values() for split in ("dev", "test")}
    found = {path: task for path, task in every.items() if path.exists()}
    texts = [text for path, task in found.items() for text in read_texts(path, task)]
    return set(map(tuple, tokenizer.encode(texts))), [path.name for path in found]


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

    limit: how many examples of a task's training file, else all. held_out: sentences to keep for scoring, at most a
    tenth of all; pairs that hold one of them are left out. pairs: "joint" or "separate", of NLI.
    """
    forbidden, compared = forbidden_sentences(folder, tokenizer)
    notes = [f"compared with {', '.join(compared) or 'nothing: no dev or test file is there'}"]
    sentences: dict[Key, str] = {}
    nli_pairs: list[tuple[list[Key], Example]] = []
    for name in to_read(lessons, files):
        task = TASKS[name]
        examples = read_examples(folder / task.file.format("train"), task, (limit or {}).get(name))
        pieces = iter(tokenizer.encode([text for example in examples for text in example.texts]))
        before = len(sentences)
        for example in examples:
            keys = [tuple(next(pieces)) for _ in example.texts]
            if name in files and "mlm" in lessons:
                sentences.update(zip(keys, example.texts, strict=True))
            if name == "nli" and "nli" in lessons:
                nli_pairs.append((keys, example))
        if len(sentences) > before:
            notes.append(f"{task.title}: {len(sentences) - before:,} sentences")
    kept = [key for key in sentences if key not in forbidden]
    drawn = torch.randperm(len(kept), generator=generator_for(0)).tolist()
    aside = {kept[i] for i in drawn[: min(held_out, len(kept) // 10)]}
    if kept:
        notes.append(
            f"left out {len(sentences) - len(kept):,} sentences that a dev or test file has; held out {len(aside):,}"
        )

    def dataset(keys: Iterable[Key]) -> Dataset | None:
        examples = [Example(None, (sentences[key],), None) for key in keys]
        return Dataset(SENTENCES, examples, tokenizer) if examples else None

    nli = nli_dev = None
    if "nli" in lessons:
        clean = [(keys, example) for keys, example in nli_pairs if forbidden.isdisjoint(keys)]
        mine = [example for keys, example in clean if aside.isdisjoint(keys)]
        notes.append(
            f"left out {len(nli_pairs) - len(clean):,} pairs with a dev or test file's sentence, "
            f"{len(clean) - len(mine):,} with a held-out one"
        )
        dev = read_examples(folder / TASKS["nli"].file.format("dev"), TASKS["nli"])
        for split, examples in (("train", mine), ("dev", dev)):
            if not examples or None in [example.label for example in examples]:
                path = folder / TASKS["nli"].file.format(split)
                raise UserError(f"{path}: not every row has a label, or none is left; --tasks nli needs labelled pairs")
        nli, nli_dev = (Dataset(TASKS["nli"], examples, tokenizer, pairs) for examples in (mine, dev))
    return Corpus(dataset(key for key in kept if key not in aside), dataset(key for key in kept if key in aside),
                  nli, nli_dev, notes)  # fmt: skip


def to_read(lessons: Iterable[str], files: Iterable[str]) -> list[str]:
    """The tasks whose training files are needed: those that are masked, and nli for its own lesson."""
    return list(dict.fromkeys([*files, *(["nli"] if "nli" in lessons else [])]))


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
                norm = torch.nn.utils.clip_grad_norm_(learner.parameters(), args.clip or math.inf)
                if not torch.isfinite(norm):  # no weight has changed yet
                    wild = [task for task in step if not torch.isfinite(state.losses[task][-1])]
                    raise UserError(
                        f"epoch {epoch + 1}, step {i + 1}: the {'loss' if wild else 'gradient'} of "
                        f"{' and '.join(wild or step)} is no number any more; lower --lr, or add --clip 1"
                    )
                done, total = epoch * len(steps) + i, args.epochs * len(steps)
                set_lr(optimizer, lr_factor(done, total, args.warmup, args.lr_decay))
                optimizer.step()
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
        help="use N examples, always the same, of each training file; or a list: a number for each of --corpus and nli")
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
    add("--epochs", metavar="N", type=count, default=5, help="times that the larger lesson is read whole")
    add("--steps_per_epoch", metavar="N", type=count, help="stop each epoch after N steps, or stretch it")
    add("--weights", metavar="LIST",
        help="a factor for the loss of each of --tasks (default: 0.7,0.3; of one alone 1)")
    add("--batch_size", metavar="N", type=count, default=32,
        help="examples a batch of the larger lesson; the other's are smaller, so that both end at about the same time")
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
    default = ["sst", "para", "sts", *(["nli"] if "nli" in args.tasks else [])]
    corpus = args.corpus.split(",") if args.corpus else default if "mlm" in args.tasks else []
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
    torch.manual_seed(args.seed)
    tokenizer = load_tokenizer(args.pretrained)
    tokenizer.max_length = min(tokenizer.max_length, args.max_length)
    corpus = read_corpus(args.data, tokenizer, args.tasks, args.corpus, args.limit, args.held_out, args.pairs)
    nli = {"pairs": args.pairs, "pooling": args.pooling, "dropout": args.hidden_dropout_prob}
    learner, had_head = load_learner(args.pretrained, args.attention, args.bert_dropout, nli if corpus.nli else None)
    learner.to("cuda" if args.use_gpu else "cpu")
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
