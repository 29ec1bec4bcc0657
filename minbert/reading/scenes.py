"""What is run so that every shape can be seen: real sentences through the real model, and through each technique.

Each scene says which sizes the names of dimensions have while it plays (the names are listed in `bert.py`). A module
with shapes of its own needs a scene that runs it; `python -m minbert.reading --check` names the lines that none runs.

The modules are imported inside the scenes, after `Watch.install`.
"""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from minbert.reading.watch import Watch

SENTENCES = ("A film to remember.", "Two hours of my life that I will not get back.")
PAIRS = (
    ("How do I learn to swim?", "What is a good way to learn swimming?"),
    ("A man is playing a guitar.", "The cat sleeps on a warm stone."),
)
LABELS = {"sst": (4, 0), "para": (1, 0), "sts": (4.4, 0.2), "nli": (0, 2)}


@dataclass
class Stage:
    """What every scene needs: the watch, a tokenizer, a BERT that no scene changes, and its sizes."""

    watch: Watch
    tokenizer: Any
    pristine: Any
    sizes: Mapping[str, int]

    def bert(self):
        """A fresh copy of the BERT."""
        return copy.deepcopy(self.pristine)

    def data(self, task: str, pairs: str = "separate"):
        """Two examples of a task."""
        from minbert.data import Dataset
        from minbert.tasks import TASKS

        texts = PAIRS if TASKS[task].is_pair else SENTENCES
        return Dataset.of(TASKS[task], self.tokenizer, texts, LABELS[task], pairs)

    def batch(self, task: str, pairs: str = "separate"):
        """Two examples of a task as a batch."""
        return self.data(task, pairs).batch([0, 1])

    def playing(self, scene: str, batch, free: Iterable[str] = (), **names: int):
        """A scene with a batch. names: the sizes of more names. To BERT itself every row of a batch is an example."""
        from minbert.tasks import TASKS

        R, T = batch.input_ids.shape
        sizes = {**self.sizes, "B": len(batch), "R": R, "T": T, "K": TASKS[batch.task].outputs, **names}
        rows = {"B": R}
        return self.watch.playing(scene, sizes, free, bert=rows, pals=rows, tokenizer=rows)


def play(watch: Watch, pretrained: str) -> Stage:
    """Play all scenes with the weights of `pretrained`."""
    from minbert.pretrained import load_bert, load_tokenizer

    bert, tokenizer = load_bert(pretrained), load_tokenizer(pretrained)
    config = bert.config
    sizes = {
        "C": config.hidden_size, "H": config.num_attention_heads, "D": config.hidden_size // config.num_attention_heads,
        "L": config.num_hidden_layers, "M": config.intermediate_size, "V": config.vocab_size,
    }  # fmt: skip
    stage = Stage(watch, tokenizer, bert, sizes)
    for scene in (sentences, heads, evaluation, gradients, terms, lora, pals, pretraining, sanity):
        scene(stage)
    return stage


def sentences(stage: Stage):
    """Two sentences through BERT, as batches of the single-sentence task are."""
    from minbert.bert import BertModel, attention_maps

    bert, batch = stage.bert(), stage.batch("sst")
    with stage.playing("two sentences", batch), torch.no_grad():
        inputs = stage.tokenizer.pad([stage.tokenizer.single(ids) for ids in stage.tokenizer.encode(SENTENCES)])
        bert(**inputs)
        attention_maps(bert, **inputs)
        fused = BertModel(bert.config, "sdpa").eval()
        fused.load_state_dict(bert.state_dict())
        fused(**inputs)


def heads(stage: Stage):
    """A batch of each task through every head, its loss and its predictions."""
    from minbert.heads import PAIR_HEADS
    from minbert.multitask import MultitaskBert
    from minbert.tasks import STS_LOSSES, TASKS

    forms = [("sst", "separate", "linear", "cls"), ("para", "joint", "linear", "mean")]
    forms += [(task, "separate", head, "cls") for task in ("para", "sts") for head in PAIR_HEADS[TASKS[task].kind]]
    for name, pairs, head, pooling in forms:
        task, batch = TASKS[name], stage.batch(name, pairs)
        free = ("B", "H", "D") if head == "cross_attention" else ()  # one head, as wide as the model, over examples
        with stage.playing(f"{name}, {pairs}, {head}", batch, free), torch.no_grad():
            model = MultitaskBert(stage.bert(), [name], pairs, pooling, {name: head}).eval()
            outputs = model(batch)
            task.loss(outputs, batch.labels)
            task.divergence(outputs, outputs.flip(0))
            task.predict(outputs)
            if head == "cosine":
                STS_LOSSES["cosine"](outputs, batch.labels)


def evaluation(stage: Stage):
    """The outputs and the score of a data set; and pairs of which a frozen BERT reads each row once."""
    from minbert.evaluation import evaluate, remembered
    from minbert.multitask import MultitaskBert

    data = stage.data("sst")
    with stage.playing("a data set", data.batch([0, 1]), N=2):
        evaluate(MultitaskBert(stage.bert(), ["sst"]), {"sst": data})
    pairs, model = stage.data("para"), MultitaskBert(stage.bert(), ["para"])
    model.freeze_bert()
    model.still_bert()
    with stage.playing("pairs, read once", pairs.batch([0, 1]), N=2), remembered(model, {"para": pairs}, {}, 2):
        model(pairs.batch([0, 1]))


def gradients(stage: Stage):
    """One update from three tasks' gradients, in every way; T is then the number of tasks."""
    from minbert.epoch_log import EpochLog
    from minbert.multitask import MultitaskBert
    from minbert.pcgrad import COMBINE, Memory, give_gradients, take_gradients

    tasks = ("sst", "para", "sts")
    model, memory = MultitaskBert(stage.bert(), tasks), Memory(0)
    for name, combine in COMBINE.items():
        if combine:
            taken = []
            for task in tasks:
                batch = stage.batch(task)
                with stage.playing(f"{name}: {task}", batch):
                    model.tasks[task].loss(model(batch), batch.labels).backward()
                taken.append(take_gradients(model.bert.parameters()))
            T = {"T": len(tasks)}
            with stage.watch.playing(name, stage.sizes, pcgrad=T, epoch_log=T):
                give_gradients(taken, combine, memory)
                EpochLog().add_cosines(tasks, memory.cosines())


def terms(stage: Stage):
    """SMART's two terms and R-Drop, of every kind of task."""
    from minbert.multitask import MultitaskBert
    from minbert.terms import Pass, backward, build_terms

    settings = {"smart": {"smart": 5.0}, "bregman": {"bregman": 1.0}, "rdrop": {"rdrop": 1.0}}
    for task in ("sst", "para", "sts"):
        batch, model = stage.batch(task), MultitaskBert(stage.bert(), [task]).train()
        for noise in ("ball", "relative"):
            settings["smart"]["noise"] = noise
            with stage.playing(f"terms of {task}, {noise}", batch):
                backward(Pass(model, batch, model.tasks[task].loss), build_terms(model, settings, seed=0))


def lora(stage: Stage):
    """LoRA in the first feed-forward matrix, which is not square: `in` and `out` differ."""
    from minbert.lora import add_lora, merge_lora
    from minbert.multitask import MultitaskBert

    batch, names = stage.batch("sst"), {"r": 7, "in": stage.sizes["C"], "out": stage.sizes["M"]}
    with stage.playing("LoRA", batch, **names), torch.no_grad():
        model = MultitaskBert(stage.bert(), ["sst"])
        add_lora(model.bert, rank=7, alpha=16, targets=["interm_dense"])
        model(batch)
        merge_lora(model.bert)


def pals(stage: Stage):
    """PALs and low-rank layers; the attention inside a PAL has the same heads and is less wide."""
    from minbert.multitask import MultitaskBert
    from minbert.pals import low_rank_size, pal_size

    C, H, batch = stage.sizes["C"], stage.sizes["H"], stage.batch("sst")
    for adapter, size in (("pal", pal_size(C, H)), ("low_rank", low_rank_size(C))):
        with stage.playing(adapter, batch, free=("C", "D"), size=size), torch.no_grad():
            MultitaskBert(stage.bert(), ["sst"], additions={"adapter": {"adapter": adapter}})(batch)


def pretraining(stage: Stage):
    """Masked words: N is the number of places that were chosen."""
    from minbert.pretraining.lessons import Learner
    from minbert.pretraining.masking import Masker, Masking, generator_for

    batch, masker = stage.batch("sst"), Masker(stage.tokenizer, Masking(rate=0.5))
    _, chosen = masker(batch.input_ids, generator_for(0))
    with stage.playing("masked words", batch, N=int(chosen.sum())), torch.no_grad():
        Learner(stage.bert()).mlm_loss(batch, *masker(batch.input_ids, generator_for(0)))


def sanity(stage: Stage):
    """The pieces of the sanity check and its BERT of PyTorch's layers, with its own small sizes."""
    from minbert.sanity import library
    from minbert.sanity.parts import attention, embeddings, model

    B, T, C, H, D = 3, 7, attention.C, attention.H, attention.D
    with stage.watch.playing("the sanity check's pieces", {"B": B, "T": T, "C": C, "H": H, "D": D}):
        heads = attention.RIGHT["split"](torch.randn(B, T, C))
        attention.RIGHT["product"](heads, heads)
        attention.RIGHT["merge"](heads)
        model.RIGHT["extended"](torch.ones(B, T))
        library.BertModel(embeddings.CONFIG)(torch.ones(B, T, dtype=torch.long), torch.ones(B, T))
