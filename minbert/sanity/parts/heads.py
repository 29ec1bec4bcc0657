"""The heads, in pieces: from sentence vectors to sentiment, paraphrase and similarity.

    sentiment    5 logits; the loss adds the softmax                 cross-entropy = -log softmax(logits)_label
    paraphrase   1 logit; loss and evaluation add the sigmoid        BCE-with-logits = -log σ(±logit)
    similarity   1 number on the labels' scale, 0…5                  5·cos(u, v), or whatever reaches 5

How a head is built is free. So what is looked at is not its numbers but what must hold of any right one, with seeded
weights in it, on top of a right little BERT that stands in for the pretrained one. What cannot be decided without
knowing how the outputs are used (a probability is no fault if nobody applies another sigmoid) is read from the source.
"""

import ast
import inspect
import re
import sys
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minbert.bert import BertModel
from minbert.config import BertConfig
from minbert.sanity.core import DROPPED, Absent, CannotCheck, Mistake, Part, Pieces, Probe, fill, seeded
from minbert.sanity.project import parsed
from minbert.sanity.search import optional, says

IDS = torch.tensor([[2, 7, 8, 9, 3], [2, 10, 3, 0, 0], [2, 12, 13, 3, 0], [2, 5, 16, 6, 3]])  # pads are 0
OTHERS = torch.tensor([[2, 14, 3, 0, 0], [2, 8, 15, 17, 3], [2, 13, 3, 0, 0], [2, 5, 16, 11, 3]])
SEEDS = range(3)

# ------------------------------------------------------------------------------------------------ the right pieces


def mean_pool(tokens: Tensor, mask: Tensor) -> Tensor:
    """The mean of the tokens' vectors, pads not counted: (B, T, C), (B, T) → (B, C)."""
    mask = mask[:, :, None].to(tokens.dtype)
    return (tokens * mask).sum(dim=1) / mask.sum(dim=1)


RIGHT = {
    "pool": mean_pool,
    "sentiment": lambda logits: logits,
    "paraphrase": lambda logit: logit,
    "similarity": lambda cosine: 5 * cosine,
    "second": lambda u, v: v,
    "second mask": lambda first, second: second,
    "dropout": lambda x, training: F.dropout(x, 0.3, training),
    "batch": lambda x: x,  # every example by itself
    "classifier": lambda logits: logits,  # classifier.py's, for one data set
    "classifier dropout": lambda x, training: F.dropout(x, 0.3, training),
    "sst loss": F.cross_entropy,
    "para loss": F.binary_cross_entropy_with_logits,
    "sts loss": F.mse_loss,
}


class RightModel(nn.Module):
    """Three heads on word vectors, of these pieces."""

    def __init__(self, pieces: Pieces):
        super().__init__()
        self.p = pieces
        self.words = nn.Embedding.from_pretrained(seeded("words", 20, 12))
        self.sentiments, self.same, self.labels = nn.Linear(12, 5), nn.Linear(24, 1), nn.Linear(12, 5)

    def vector(self, ids: Tensor, mask: Tensor) -> Tensor:
        p = self.p
        return p["dropout"](p["batch"](p["pool"](self.words(ids), mask)), self.training)

    def sst(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.p["sentiment"](self.sentiments(self.vector(ids, mask)))

    def pair(self, ids: Tensor, mask: Tensor, ids2: Tensor, mask2: Tensor) -> tuple[Tensor, Tensor]:
        u, mask2 = self.vector(ids, mask), self.p["second mask"](mask, mask2)
        return u, self.p["second"](u, self.vector(ids2, mask2))

    def para(self, *inputs: Tensor) -> Tensor:
        return self.p["paraphrase"](self.same(torch.cat(self.pair(*inputs), dim=-1)))

    def sts(self, *inputs: Tensor) -> Tensor:
        return self.p["similarity"](F.cosine_similarity(*self.pair(*inputs), dim=-1))

    def one(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.p["classifier dropout"](mean_pool(self.words(ids), mask), self.training)
        return self.p["classifier"](self.labels(x))


class Model:
    """A module and what it predicts: functions of (ids, mask) or of (ids, mask, ids, mask)."""

    def __init__(self, module: nn.Module, sst: Callable, para: Callable | None = None, sts: Callable | None = None):
        self.module, self.sst, self.para, self.sts = module.eval(), sst, para, sts

    @torch.no_grad()
    def outputs(
        self, ids: Tensor = IDS, others: Tensor = OTHERS, seed: int = 0, scale: float = 0.3,
        shown: tuple[int, int] = (99, 99),
    ) -> dict[str, Tensor]:  # fmt: skip
        """All that it predicts in evaluation, (B, ·) each, with seeded numbers for all that is not BERT.

        shown: how many tokens of the first and of the second sentences their masks let be seen.
        """
        for name, p in self.module.named_parameters():
            if "bert" not in name and not name.startswith("words"):
                p.copy_(seeded(f"{name} {seed}", *p.shape, scale=scale))
        masks = [((x != 0) & (torch.arange(x.shape[1]) < n)).long() for x, n in zip((ids, others), shown, strict=True)]
        one = [ids, masks[0]]
        two = [*one, others, masks[1]]
        found = {"sst": self.sst(*one)}
        if self.para is not None:
            found |= {"para": self.para(*two), "sts": self.sts(*two)}
        for name, value in found.items():
            if value is None:
                raise NotImplementedError(name)
            if value.numel() % len(ids):
                raise CannotCheck(f"{name}: {tuple(value.shape)} for {len(ids)} examples")
        return {name: value.float().reshape(len(ids), -1) for name, value in found.items()}


class Subject:
    """What is asked. models: with all three heads. classifier: classifier.py's, or why there is none.

    decided: which of "sentiment", "paraphrase", "similarity", "classifier" can be called wrong at all, because the rest
    of the code does take logits, or does compare with labels up to 5.
    """

    def __init__(self, models: list[Model], classifier: Model | None, losses: dict[str, Callable] | None, decided: set):
        self.models, self.classifier, self.losses, self.decided = models, classifier, losses, decided

    def three(self) -> list[Model]:
        if not self.models:
            raise Absent("no MultitaskBERT")
        return self.models

    def single(self) -> list[Model]:
        if self.classifier is None:
            raise Absent("no BertSentimentClassifier")
        return [self.classifier]


ALL = {"sentiment", "paraphrase", "similarity", "classifier"}


def reference(pieces: Pieces) -> Subject:
    model = RightModel(pieces)
    losses = {name: pieces[f"{name} loss"] for name in ("sst", "para", "sts")}
    return Subject([Model(model, model.sst, model.para, model.sts)], Model(model, model.one), losses, ALL)


# ------------------------------------------------------------------------------------------------ theirs


def little_bert(C: int, H: int) -> BertModel:
    """A right BERT with seeded weights, one layer deep."""
    config = BertConfig(
        vocab_size=20, hidden_size=C, num_hidden_layers=1, num_attention_heads=H, intermediate_size=16,
        max_position_embeddings=64, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1,
    )  # fmt: skip
    return fill(BertModel(config), scale=0.05).eval()


class Pretrained(BertModel):
    """Stands where theirs would load bert-base-uncased: as wide, because the starter writes 768 here and there."""

    @classmethod
    def from_pretrained(cls, *args: Any, **options: Any) -> BertModel:
        return little_bert(768, 12)


class Config(SimpleNamespace):
    """The starter's config. Whatever else is asked for is `other`, or a rate if it is called so."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if "drop" in name:
            return 0.3
        self.asked.append(name)
        return self.other


def build(Class: type, project: Any, labels: tuple) -> nn.Module:
    """Their module on a BERT that needs no download. labels: what num_labels may be, one after the other."""
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file and Path(file).is_relative_to(project.root) and "BertModel" in vars(module):
            module.BertModel = Pretrained
    for other in (None, 8):  # what the check cannot know is unset, or a size
        for num_labels in labels:
            config = Config(
                hidden_dropout_prob=0.3, num_labels=num_labels, hidden_size=768, data_dir=".", option="finetune",
                fine_tune_mode="full-model", asked=[], other=other,
            )  # fmt: skip
            try:
                return Class(config)
            except NotImplementedError:
                raise
            except (TypeError, ValueError, RuntimeError, AttributeError) as error:
                if not config.asked and (num_labels is labels[-1] or not isinstance(error, TypeError)):
                    raise
                failed = error
    raise CannotCheck(f"{Class.__name__} wants config.{config.asked[-1]}, which the check cannot know") from failed


def by_name(forward: Callable) -> Callable:
    """A classifier's forward as a function of (ids, mask), also where it takes token types as well."""
    names = list(inspect.signature(forward).parameters)

    def call(ids: Tensor, mask: Tensor) -> Tensor:
        given = [mask if "mask" in n else torch.zeros_like(ids) if "type" in n or "seg" in n else ids for n in names]
        return forward(*given)

    return call if len(names) == 3 and any("mask" in name for name in names) else forward


OF_LABELS = r"(?i)label|score|target|similar|(\b|_)(sim|sts|cos)(\b|_)|\by(\b|_)|cosine"
NO_LABELS = r"(?i)loss|entropy|criterion|\blen\(|num_label|accuracy|f1|corr|pearson|attention|attn"
BY_FIVE = r"[/*]=?\s*5\b|(?<![-.\w])5(\.0*)?\s*\*|\*\s*0?\.2\b|(?<![\w])0?\.2\s*\*|[Cc]osine_?[Ee]mbedding"


def rescaled(project: Any) -> bool:
    """Whether anything of theirs may bring labels and outputs of similarity to one scale, as far as names tell.

    What stands in predict_similarity is not read: its outputs are looked at. Nor are attention's scores.
    """

    def operands(node: ast.AST) -> tuple:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div | ast.Mult | ast.Sub):
            return node.left, node.right
        if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Div | ast.Mult | ast.Sub):
            return node.target, node.value
        call = node.func if isinstance(node, ast.Call) else None
        if isinstance(call, ast.Attribute) and call.attr.rstrip("_") in ("div", "mul", "sub", "true_divide"):
            return call.value, *node.args
        return ()

    def constant(node: ast.AST) -> bool:
        return isinstance(node, ast.Constant) or (isinstance(node, ast.Name) and node.id.isupper())

    def counts(node: ast.AST) -> bool:
        sides = operands(node)
        texts = [ast.unparse(side) for side in sides]
        if any(re.search(OF_LABELS, text) and not re.search(NO_LABELS, text) for text in texts):
            return True
        return any("float(" in text for text in texts) and any(constant(side) for side in sides)

    def search(node: ast.AST) -> bool:
        name = getattr(node, "name", None) or ""
        if name == "predict_similarity" or "attention" in name.lower():
            return False
        return counts(node) or any(search(below) for below in ast.iter_child_nodes(node))

    files = [f for f in project.sources if re.search("(?i)sts|similarity", f.read_text("utf-8", errors="replace"))]
    return says(project, BY_FIVE, near="similarity") or any(search(parsed(file)) for file in files)


SINGLE = ("BertSentimentClassifier", "BertSentClassifier")


def find(project: Any) -> Subject:
    """A package like ours, or the course's MultitaskBERT and its classifier, which CMU calls BertSentClassifier."""
    if heads := optional(project, "heads", "PAIR_HEADS"):
        return ours(project, heads)
    found = {}
    for file, name, labels in (
        ("multitask_classifier", "MultitaskBERT", (dict.fromkeys(range(5), 0), 5)),
        *[("classifier", name, (5, dict.fromkeys(range(5), 0))) for name in SINGLE],
    ):
        try:
            Class = project.get(file, name)
        except Absent:
            continue
        found[name] = build(Class, project, labels)
    if not found:
        raise Absent("no MultitaskBERT and no BertSentimentClassifier or BertSentClassifier")
    models = []
    if multitask := found.get("MultitaskBERT"):
        try:
            heads = multitask.predict_sentiment, multitask.predict_paraphrase, multitask.predict_similarity
        except AttributeError as error:
            raise CannotCheck(f"MultitaskBERT: {error}; it should have the three predict_… methods") from error
        models = [Model(multitask, *heads)]
    classifier = next((found[name] for name in SINGLE if name in found), None)
    classifier = Model(classifier, by_name(classifier.forward)) if classifier else None
    decided = set()
    if says(project, r"cross_entropy\(|CrossEntropyLoss", near="predict_sentiment"):
        decided.add("sentiment")
    if says(project, r"cross_entropy\(|CrossEntropyLoss", near="class BertSent"):
        decided.add("classifier")
    with_logits = says(project, r"with_logits|WithLogits", near="predict_paraphrase")
    if with_logits or says(project, "sigmoid", near="def model_eval"):
        decided.add("paraphrase")
    if says(project, r"mse_loss|MSELoss", near="predict_similarity") and not rescaled(project):
        decided.add("similarity")
    return Subject(models, classifier, None, decided)


def ours(project: Any, heads: Any) -> Subject:
    """A package like ours: a model for every head, with either pooling."""
    MultitaskBert, Batch = project.get("multitask", "MultitaskBert"), project.get("data", "Batch")
    TASKS = project.get("tasks", "TASKS")
    models = []
    pairs = zip_longest(heads.PAIR_HEADS["para"], heads.PAIR_HEADS["sts"])
    for i, (para, sts) in enumerate(pairs):
        chosen = {task: head for task, head in (("para", para), ("sts", sts)) if head}
        model = MultitaskBert(little_bert(16, 2), ("sst", "para", "sts"), pooling=("mean", "cls")[i % 2], heads=chosen)

        def predict(task, *inputs, model=model):
            ids, mask = torch.cat(inputs[::2]), torch.cat(inputs[1::2])
            return model(Batch(task, list(range(len(inputs[0]))), ids, mask, torch.zeros_like(ids), None))

        models.append(Model(model, *[lambda *x, t=t, f=predict: f(t, *x) for t in ("sst", "para", "sts")]))
    losses = {  # with a float label for every example
        "sst": TASKS["sst"].loss,
        "para": lambda logit, label: TASKS["para"].loss(logit[:, None], label),
        "sts": lambda number, label: TASKS["sts"].loss(number[:, None], label),
    }
    return Subject(models, None, losses, ALL)


# ------------------------------------------------------------------------------------------------ probes


def differ(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether any output changed by more than rounding."""
    return any(
        a[k].shape != b[k].shape or bool((a[k] - b[k]).abs().max() > 1e-3 * (1e-3 + a[k].abs().max())) for k in a
    )


def always(holds: Callable[[Tensor], Tensor], models: list[Model], task: str, others: Tensor = OTHERS) -> bool:
    """Whether something holds of all outputs of a model, whatever its weights; for any model."""
    return any(all(bool(holds(m.outputs(others=others, seed=s, scale=5.0)[task]).all()) for s in SEEDS) for m in models)


def yes(answer: bool) -> Tensor:
    return torch.tensor(answer)


def probabilities(rows: Tensor) -> Tensor:
    return ((rows.sum(dim=-1) - 1).abs() < 1e-3) & (rows >= 0).all(dim=-1)


def within(low: float, high: float) -> Callable[[Tensor], Tensor]:
    return lambda x: (x >= low - 1e-4) & (x <= high + 1e-4)


def pads_matter(models: list[Model]) -> Tensor:
    longer, others = F.pad(IDS, (0, 3)), F.pad(OTHERS, (0, 3))
    return yes(any(differ(m.outputs(), m.outputs(longer, others)) for m in models))


def dropped_in_evaluation(models: list[Model]) -> Tensor:
    DROPPED.clear()
    return yes(any(differ(m.outputs(), m.outputs()) for m in models) or bool(DROPPED))


def mixed(s: Subject) -> Tensor:
    def halves(m: Model) -> dict[str, Tensor]:
        parts = [m.outputs(IDS[i : i + 2], OTHERS[i : i + 2]) for i in (0, 2)]
        return {k: torch.cat([p[k] for p in parts]) for k in parts[0]}

    return yes(any(differ(m.outputs(), halves(m)) for m in s.three()))


def deaf(s: Subject) -> Tensor:
    """Whether the second sentences can be changed without any effect."""
    changed, scales = OTHERS.roll(1, dims=0), (0.02, 0.3)  # a probability near 1 hides much; small weights do not

    def unread(m: Model, task: str) -> bool:
        return all(torch.equal(m.outputs(scale=x)[task], m.outputs(others=changed, scale=x)[task]) for x in scales)

    return yes(any(unread(m, task) for m in s.three() for task in ("para", "sts")))


def first_mask(s: Subject) -> Tensor:
    """Whether the second sentences are read, but only the first ones' mask changes anything."""

    def same(m: Model, task: str, scale: float, **changed: Any) -> bool:
        return torch.equal(m.outputs(scale=scale)[task], m.outputs(scale=scale, **changed)[task])

    def wrong(m: Model, task: str) -> bool:
        x = 0.3 if not same(m, task, 0.3, others=OTHERS.roll(1, dims=0)) else 0.02
        read, masked = not same(m, task, x, others=OTHERS.roll(1, dims=0)), not same(m, task, x, shown=(2, 99))
        return read and masked and all(same(m, task, scale, shown=(99, 2)) for scale in (0.02, 0.3))

    return yes(any(wrong(m, task) for m in s.three() for task in ("para", "sts")))


def sure(s: Subject) -> dict[str, Tensor]:
    if s.losses is None:
        raise Absent("the losses stand in the training loop")
    five, label = 100 * torch.eye(5)[[3]], torch.tensor([3])
    return {
        "sentiment, logit 100": s.losses["sst"](five, label),
        "paraphrase, logit 100": s.losses["para"](torch.tensor([100.0]), torch.tensor([1.0])),
        "similarity, 5 for 5": s.losses["sts"](torch.tensor([5.0]), torch.tensor([5.0])),
    }


PROBES = (
    Probe("whether sentiment's outputs are probabilities",
          lambda s: yes("sentiment" in s.decided and always(probabilities, s.three(), "sst")),
          "Four sentences and three sets of weights: whether every row sums to 1."),
    Probe("whether paraphrase's output is a probability",
          lambda s: yes("paraphrase" in s.decided and always(within(0, 1), s.three(), "para")),
          "Four pairs and three sets of weights: whether the output never leaves [0, 1]."),
    Probe("whether similarity stays below the labels' scale",
          lambda s: yes("similarity" in s.decided and always(within(-1, 1), s.three(), "sts", others=IDS)),
          "Four sentences, each with itself, and three sets of weights: whether the output never leaves [-1, 1]."),
    Probe("whether pads change the answer", lambda s: pads_matter(s.three()),
          "The same sentences with three more pads at the end."),
    Probe("whether dropout is on in evaluation", lambda s: dropped_in_evaluation(s.three()),
          "The same sentences twice after `model.eval()`."),
    Probe("whether a batch's examples are mixed", mixed, "Four examples at once, and two and two."),
    Probe("whether the second sentence goes unread", deaf, "The same pairs with the second sentences exchanged."),
    Probe("whether the second sentence's mask goes unread", first_mask,
          "The same pairs with all but two tokens masked in the second sentences, or in the first."),
    Probe("the loss of a sure and right answer", sure,
          "Logits of 100 for the right label, and a similarity of 5 where 5 is right: each loss is 0."),
    Probe("whether classifier.py's outputs are probabilities",
          lambda s: yes(always(probabilities, s.single(), "sst") and "classifier" in s.decided),
          "The classifier of one data set, four sentences and three sets of weights: whether every row sums to 1."),
    Probe("whether classifier.py drops out in evaluation", lambda s: dropped_in_evaluation(s.single()),
          "The classifier of one data set, the same sentences twice after `eval()`."),
)  # fmt: skip

# ------------------------------------------------------------------------------------------------ mistakes

CROSS_ENTROPY, BCE = "loss = -log softmax(logits)_label", "loss = -log σ(logit)   for a paraphrase"
COURSE, SBERT = "the course's handout: the outputs are logits", "Reimers & Gurevych 2019, §3"
DROPOUT = "Srivastava et al. 2014, §4: at test time no unit is dropped"


def mistake(name: str, equation: str, source: str, why: str, *forms: Pieces, where: tuple[str, ...]) -> Mistake:
    return Mistake(name, forms[0], why, equation, source, where, also=forms[1:])


def softmax(logits: Tensor) -> Tensor:
    return logits.softmax(dim=-1)


def on(x: Tensor, training: bool) -> Tensor:
    return F.dropout(x, 0.3)


def with_pads(tokens: Tensor, mask: Tensor) -> Tensor:
    return tokens.mean(dim=1)


PAIRS = ("MultitaskBERT.predict_paraphrase", "MultitaskBert.logits")
ONE = tuple(f"{name}.forward" for name in SINGLE)
PREDICTS = ("MultitaskBERT.forward", "MultitaskBERT.predict_sentiment", "LinearHead.forward")
MISTAKES = (
    mistake("softmax before the cross-entropy", CROSS_ENTROPY, COURSE,
            "The loss has a softmax inside. A second one squeezes the logits into [0, 1]: with five classes the loss "
            "cannot fall below .9048. Return the logits.",
            {"sentiment": softmax}, where=("MultitaskBERT.predict_sentiment", "LinearHead.forward")),
    mistake("sigmoid twice for paraphrase", BCE, COURSE,
            "What comes out is a probability already, and BCE-with-logits and the evaluation apply a sigmoid: a pair "
            "can never look different (σ(0) = ½), and the loss cannot fall below .3133. Return the logit.",
            {"paraphrase": torch.sigmoid}, where=("MultitaskBERT.predict_paraphrase", "LinearHead.forward")),
    mistake("similarity is not on the labels' scale", "similarity = 5·cos(u, v)", SBERT,
            "Labels go from 0 to 5, and the output never leaves [-1, 1]: the squared error pulls all pairs to their "
            "largest value. Multiply by 5, or divide the labels by 5.",
            {"similarity": lambda cosine: cosine}, {"similarity": torch.sigmoid},
            where=("MultitaskBERT.predict_similarity", "CosineHead.forward")),
    mistake("pads are part of the sentence's vector", "u = Σₜ maskₜ·hₜ / Σₜ maskₜ", SBERT,
            "Adding pads changes the answer, so it depends on what else is in the batch. Multiply by the mask before "
            "summing and divide by the number of real tokens; and do not concatenate padded rows of ids.",
            {"pool": with_pads}, where=("mean_pool", *PREDICTS)),
    mistake("dropout is on in evaluation", "u at test time = E[u in training]", DROPOUT,
            "`F.dropout` drops unless told not to. Use an `nn.Dropout` module, or pass `training=self.training`.",
            {"dropout": on}, where=PREDICTS),
    mistake("the examples of a batch are mixed", "f(x)ᵢ = f(xᵢ)", COURSE,
            "An answer depends on the other examples of its batch: a softmax, a cosine, a mean or a norm is taken over "
            "dim 0. Use dim=-1 (the default of `cosine_similarity` is 1, of a squeezed vector that is wrong).",
            {"batch": lambda x: x - x.mean(dim=0)}, where=PREDICTS),
    mistake("the second sentence is not read", "f(u, v)", SBERT,
            "Exchanging the second sentences changes nothing: a copied line still has the first one's name.",
            {"second": lambda u, v: u}, where=PAIRS),
    mistake("the first sentence's mask is used for the second", "v = Σₜ mask'ₜ·h'ₜ / Σₜ mask'ₜ", SBERT,
            "Masking the second sentences changes nothing: they are read with `attention_mask_1`, so that their words "
            "are hidden and their pads are read. Use `attention_mask_2` for `input_ids_2`.",
            {"second mask": lambda first, second: first}, where=PAIRS),
    mistake("softmax inside the loss of sentiment", CROSS_ENTROPY, COURSE,
            "`F.cross_entropy` takes logits. With a softmax before it the loss cannot fall below .9048.",
            {"sst loss": lambda x, label: F.cross_entropy(softmax(x), label)}, where=("classification_loss",)),
    mistake("sigmoid inside the loss of paraphrase", BCE, COURSE,
            "`binary_cross_entropy_with_logits` takes the logit. With a sigmoid before it the loss cannot fall below "
            ".3133.",
            {"para loss": lambda x, label: F.binary_cross_entropy_with_logits(x.sigmoid(), label)},
            where=("binary_loss",)),
    mistake("outputs and labels of similarity have different scales", "loss = mean (ŷ - y)²", SBERT,
            "One side is divided by 5 and the other is not: identical sentences are pulled away from their label.",
            {"sts loss": lambda x, label: F.mse_loss(x / 5, label)},
            {"sts loss": lambda x, label: F.mse_loss(x, label / 5)}, where=("regression_loss",)),
    mistake("classifier.py: softmax before the cross-entropy", CROSS_ENTROPY, COURSE,
            "The loss has a softmax inside. Return the logits as they are.",
            {"classifier": softmax}, where=ONE),
    mistake("classifier.py: dropout is on in evaluation", "u at test time = E[u in training]", DROPOUT,
            "`F.dropout` drops unless told not to. Use an `nn.Dropout` module, or pass `training=self.training`.",
            {"classifier dropout": on}, where=ONE),
)  # fmt: skip

PART = Part(
    name="heads",
    title="the heads of the tasks",
    right=RIGHT,
    reference=reference,
    find=find,
    probes=PROBES,
    mistakes=MISTAKES,
)
