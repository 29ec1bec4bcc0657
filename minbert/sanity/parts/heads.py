"""The heads, in pieces: from sentence vectors to sentiment, paraphrase and similarity, and to their losses.

    sentiment    5 logits; the loss adds the softmax                 cross-entropy = -log softmax(logits)_label
    paraphrase   1 logit; loss and evaluation add the sigmoid        BCE-with-logits = -log σ(±logit)
    similarity   1 number on the labels' scale, 0…5                  5·cos(u, v), or whatever reaches 5

A head may be built in any way. So the probes look not at its numbers but at what must hold for any right head, with
seeded weights in it, on top of a little BERT that stands in for the pretrained one. Where it matters how the outputs
are used (a probability is no fault if no other sigmoid follows), that is read from the source.
"""

import ast
import inspect
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minbert.sanity import losses
from minbert.sanity.core import DROPPED, Absent, CannotCheck, Mistake, Part, Pieces, Probe, group, seeded
from minbert.sanity.models import METHODS, SINGLE
from minbert.sanity.their_heads import ALL, IDS, OTHERS, Model, Subject, find, within

SEEDS = range(3)
SCALES = (0.3, 0.02)  # of seeded weights: a probability near 1 hides much, small weights do not

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
    **dict.fromkeys(losses.FACTS, False),  # what is read from the source
    "gradient": lambda x: x,
    "sst loss": F.cross_entropy,
    "para loss": F.binary_cross_entropy_with_logits,
    "sts loss": F.mse_loss,
}


class RightModel(nn.Module):
    """Three heads on word vectors, of these pieces."""

    is_right = True  # or wrong on purpose: there is no source of theirs to read

    def __init__(self, pieces: Pieces):
        super().__init__()
        self.p = pieces
        self.words = nn.Embedding.from_pretrained(seeded("words", 20, 12), freeze=False)
        self.sentiments, self.same, self.labels = nn.Linear(12, 5), nn.Linear(24, 1), nn.Linear(12, 5)

    def vector(self, ids: Tensor, mask: Tensor) -> Tensor:
        p = self.p
        return p["dropout"](p["batch"](p["pool"](self.words(ids), mask)), self.training)

    def sst(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.p["gradient"](self.p["sentiment"](self.sentiments(self.vector(ids, mask))))

    def pair(self, ids: Tensor, mask: Tensor, ids2: Tensor, mask2: Tensor) -> tuple[Tensor, Tensor]:
        u, mask2 = self.vector(ids, mask), self.p["second mask"](mask, mask2)
        return u, self.p["second"](u, self.vector(ids2, mask2))

    def para(self, *inputs: Tensor) -> Tensor:
        return self.p["gradient"](self.p["paraphrase"](self.same(torch.cat(self.pair(*inputs), dim=-1))))

    def sts(self, *inputs: Tensor) -> Tensor:
        return self.p["gradient"](self.p["similarity"](F.cosine_similarity(*self.pair(*inputs), dim=-1)))

    def one(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.p["classifier dropout"](mean_pool(self.words(ids), mask), self.training)
        return self.p["classifier"](self.labels(x))


def reference(pieces: Pieces) -> Subject:
    model = RightModel(pieces)
    functions = {name: pieces[f"{name} loss"] for name in ("sst", "para", "sts")}
    three = Model(model, {"sst": model.sst, "para": model.para, "sts": model.sts})
    facts = {name: pieces[name] for name in losses.FACTS}
    return Subject([three], Model(model, {"one": model.one}), functions, ALL, facts)


# ------------------------------------------------------------------------------------------------ probes

PAIRWISE = ("para", "sts")
THREE = ("sst", *PAIRWISE)


def differ(a: Tensor, b: Tensor) -> bool:
    """Whether an output changed by more than rounding."""
    return a.shape != b.shape or bool((a - b).abs().max() > 1e-3 * (1e-3 + a.abs().max()))


def yes(answer: bool) -> Tensor:
    return torch.tensor(answer)


def always(holds: Callable[[Tensor], Tensor], m: Model, task: str, others: Tensor = OTHERS) -> bool:
    """Whether something holds for all outputs of a model, whatever its weights, in training as well.

    Raises CannotCheck for outputs that are constant or not finite. For pairs of a sentence with itself (others are IDS)
    a constant, such as a cosine of 1, is allowed.
    """
    results = [m.outputs(others=others, seed=s, scale=x, tasks=(task,))[task] for s in SEEDS for x in (5.0, *SCALES)]
    if not all(bool(holds(x).all()) for x in results):
        return False
    if not holds(m.outputs(others=others, scale=5.0, tasks=(task,), training=True)[task]).all():
        return False  # the loss gets the logits, and only a prediction is squashed
    numbers = torch.cat(results)
    if (others is not IDS and numbers.unique().numel() <= 2) or not numbers.isfinite().all():
        raise CannotCheck(f"{METHODS.get(task, 'forward')} gives one or two numbers for all sentences and weights")
    return True


def probabilities(rows: Tensor) -> Tensor:
    return ((rows.sum(dim=-1) - 1).abs() < 1e-3) & (rows >= 0).all(dim=-1) & torch.tensor(rows.shape[-1] > 1)


def normalised(s: Subject) -> Tensor:
    """Whether sentiment's outputs are probabilities, or a paraphrase's where it has two logits."""
    pairs = [(m, t) for m, t in s.able("sst", "para") if (t == "sst" and "sentiment" in s.decided) or
             (t == "para" and "two logits" in s.decided)]  # fmt: skip
    return yes(any([always(probabilities, m, t) for m, t in pairs]))


def squashed(s: Subject) -> Tensor:
    """Whether sentiment's outputs lie in [0, 1], each example's by itself, and are no probabilities."""

    def alone(m: Model) -> bool:
        return not differ(m.outputs(IDS[:1], OTHERS[:1], tasks=("sst",))["sst"], m.outputs(tasks=("sst",))["sst"][:1])

    pairs = s.able("sst")
    if "sentiment" not in s.decided:
        return yes(False)
    return yes(any(always(within(0, 1), m, t) and not always(probabilities, m, t) and alone(m) for m, t in pairs))


def a_probability(s: Subject) -> Tensor:
    pairs = s.able("para")
    if "paraphrase" not in s.decided:
        return yes(False)
    models = [m for m, task in pairs if always(within(0, 1), m, task) and not always(probabilities, m, task)]
    if models and not any("igmoid" in text or "oftmax" in text for m in models for text in _sources(m.module)):
        raise CannotCheck(
            "paraphrase's logit never leaves [0, 1], and no sigmoid is in its code that would explain it",
            "The loss adds a sigmoid: below 0 a logit says no, so that it must be able to go there.",
        )
    return yes(bool(models))


def _sources(module: nn.Module) -> list[str]:
    """The functions of a model's class without its other heads; for the check's own model, a word in its place."""
    try:
        text = inspect.getsource(type(module))
    except (OSError, TypeError):
        return ["sigmoid"]
    tree = ast.parse(inspect.cleandoc("\n" + text) if text[:1].isspace() else text)
    others = ("predict_sentiment", "predict_similarity")
    return ["sigmoid"] if getattr(module, "is_right", False) else [
        ast.unparse(node) for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name not in others
    ]  # fmt: skip


def pads_matter(s: Subject) -> Tensor:
    """Whether three more pads change an answer. Raises CannotCheck for rows that were joined after padding."""
    longer, others, after = F.pad(IDS, (0, 3)), F.pad(OTHERS, (0, 3)), None
    for m, task in s.able(*THREE):
        before = m.outputs(tasks=(task,))[task]
        if m.read is not None:
            m.read.clear()
        if not differ(before, m.outputs(longer, others, tasks=(task,), again=True)[task]):
            continue
        joins = m.read is not None and any(ids.shape[1] > longer.shape[1] + 3 for ids in m.read)
        if not joins or differ(before, m.outputs(others=others, tasks=(task,))[task]):
            return yes(True)
        after = METHODS[task]
    if after:
        raise CannotCheck(
            f"{after} joins two padded rows, so that the second sentence's positions depend on the first one's pads",
            "Join the sentences before they are padded: then an answer does not depend on its batch.",
        )
    return yes(False)


def dropped_in_evaluation(pairs: list[tuple[Model, str]]) -> Tensor:
    DROPPED.clear()
    twice = [[m.outputs(tasks=(task,), again=True)[task] for _ in range(2)] for m, task in pairs]
    return yes(any(differ(*both) for both in twice) or bool(DROPPED))


def mixed(s: Subject) -> Tensor:
    def halves(m: Model, task: str) -> Tensor:
        return torch.cat([m.outputs(IDS[i : i + 2], OTHERS[i : i + 2], tasks=(task,))[task] for i in (0, 2)])

    return yes(any(differ(m.outputs(tasks=(task,))[task], halves(m, task)) for m, task in s.able(*THREE)))


def _moves(m: Model, task: str, scale: float, **changed: Any) -> bool:
    """Whether a change of the inputs changes the answer at all."""
    before = m.outputs(scale=scale, tasks=(task,))[task]
    return not torch.equal(before, m.outputs(scale=scale, tasks=(task,), **changed)[task])


def with_other_words(ids: Tensor) -> Tensor:
    """Sentences of the same lengths, so that their masks stay: words are 4 to 17."""
    return torch.where(ids > 3, 21 - ids, ids)


def deaf(s: Subject) -> Tensor:
    """Whether the second sentences' words can be changed without any effect, and the first ones' cannot."""
    first, second = {"ids": with_other_words(IDS)}, {"others": with_other_words(OTHERS)}
    blind = None
    for m, task in s.able(*PAIRWISE):
        if any(_moves(m, task, x, **second) for x in SCALES):
            continue
        if any(_moves(m, task, x, **first) for x in SCALES):
            return yes(True)
        blind = METHODS[task]
    if blind:
        raise CannotCheck(f"{blind} gives the same numbers whatever is changed: it is saturated, or constant")
    return yes(False)


def first_mask(s: Subject) -> Tensor:
    """Whether the second sentences are read, but only the first ones' mask changes anything."""

    def wrong(m: Model, task: str) -> bool:
        reads = [x for x in SCALES if _moves(m, task, x, others=OTHERS.roll(1, dims=0))]
        masked = any(_moves(m, task, x, shown=(2, 99)) for x in reads)
        return masked and not any(_moves(m, task, x, shown=(99, 2)) for x in SCALES)

    return yes(any(wrong(m, task) for m, task in s.able(*PAIRWISE)))


def without_gradient(s: Subject) -> Tensor:
    if s.fact(losses.FREEZES):
        raise Absent("BERT does not train, which is a mistake of its own")
    return yes(any(not m.in_training(task).requires_grad for m, task in s.able(*THREE)))


def sure(s: Subject) -> dict[str, Tensor]:
    if s.losses is None:
        raise Absent("the losses are not known")
    five, label = 100 * torch.eye(5)[[3]], torch.tensor([3])
    return {
        "sentiment, logit 100": s.losses["sst"](five, label),
        "paraphrase, logit 100": s.losses["para"](torch.tensor([100.0]), torch.tensor([1.0])),
        "similarity, 5 for 5": s.losses["sts"](torch.tensor([5.0]), torch.tensor([5.0])),
    }


def asked(task: str) -> Probe:
    return Probe(
        f"{METHODS[task]}, as your script calls it",
        lambda s: yes(all(m.can(task) for m in s.three())),
        "Whether it can be called, with the arguments that your own training or evaluation gives it.",
    )


PROBES = (
    *map(asked, THREE),
    Probe("whether logits are probabilities", normalised,
          "Four sentences and nine sets of weights: whether every row sums to 1, where the loss is a cross-entropy."),
    Probe("whether sentiment's outputs lie between 0 and 1", squashed,
          "Four sentences and nine sets of weights: whether no output leaves [0, 1], though rows do not sum to 1."),
    Probe("whether paraphrase's output is a probability", a_probability,
          "Four pairs and nine sets of weights: whether the output never leaves [0, 1]."),
    Probe("whether similarity stays below the labels' scale",
          lambda s: yes(any([always(within(-1, 1), m, t, others=IDS) for m, t in s.able("sts")
                             if "similarity" in s.decided])),
          "Four sentences, each with itself, and nine sets of weights: whether the output never leaves [-1, 1]."),
    Probe("whether pads change the answer", pads_matter, "The same sentences with three more pads at the end."),
    Probe("whether dropout is on in evaluation", lambda s: dropped_in_evaluation(s.able(*THREE)),
          "The same sentences twice after `model.eval()`."),
    Probe("whether a batch's examples are mixed", mixed, "Four examples at once, and two and two."),
    Probe("whether the second sentence goes unread", deaf, "The same pairs with other words in the second sentences."),
    Probe("whether the second sentence's mask goes unread", first_mask,
          "The same pairs with all but two tokens masked in the second sentences, or in the first."),
    Probe("whether the outputs have no gradient", without_gradient, "The outputs in training: whether they need none."),
    Probe("the loss of a sure and right answer", sure,
          "Logits of 100 for the right label, and a similarity of 5 where 5 is right: each loss is 0."),
    Probe("whether classifier.py's outputs are probabilities",
          lambda s: yes(always(probabilities, s.single(), "one") and "classifier" in s.decided),
          "The classifier of one data set, four sentences and nine sets of weights: whether every row sums to 1."),
    Probe("whether classifier.py drops out in evaluation", lambda s: dropped_in_evaluation([(s.single(), "one")]),
          "The classifier of one data set, the same sentences twice after `eval()`."),
    *(Probe(f"read from the source: {name}", lambda s, name=name: yes(s.fact(name)), says)
      for name, says in losses.FACTS.items()),
)  # fmt: skip

# ------------------------------------------------------------------------------------------------ mistakes

CROSS_ENTROPY, BCE = "loss = -log softmax(logits)_label", "loss = -log σ(logit)   for a paraphrase"
COURSE, SBERT = "the course's handout: the outputs are logits", "Reimers & Gurevych 2019, §3"
DROPOUT = "Srivastava et al. 2014, §4: at test time no unit is dropped"
WITH_DROPOUT = "Srivastava et al. 2014, §4: in training units are dropped at random"
TASKS = "the course's handout: BERT and the heads of all tasks are trained"
DOCS = "PyTorch's documentation: "


def softmax(logits: Tensor) -> Tensor:
    return logits.softmax(dim=-1)


def on(x: Tensor, training: bool) -> Tensor:
    return F.dropout(x, 0.3)


def with_pads(tokens: Tensor, mask: Tensor) -> Tensor:
    return tokens.mean(dim=1)


PAIRS = ("MultitaskBERT.predict_paraphrase", "MultitaskBert.logits")
ONE = tuple(f"{name}.forward" for name in SINGLE)
SENTIMENT = ("MultitaskBERT.predict_sentiment", "MultitaskBERT.predict_paraphrase", "LinearHead.forward")
PREDICTS = ("MultitaskBERT.forward", "MultitaskBERT.predict_sentiment", "LinearHead.forward")
TRAINING = ("train_multitask", "train")


def written(fact: str, equation: str, source: str, why: str) -> tuple[Mistake, ...]:
    """A mistake that is read from the source code. source: the place that says what is right."""
    return group(equation, source, TRAINING, (fact, {fact: True}, why))


MISTAKES = (
    *group(CROSS_ENTROPY, COURSE, SENTIMENT,
        ("softmax before the cross-entropy", {"sentiment": softmax},
         "The loss has a softmax inside. A second one squeezes the logits into [0, 1]: with five classes the loss "
         "cannot fall below .9048. Return the logits.")),
    *group(BCE, COURSE, ("MultitaskBERT.predict_paraphrase", "LinearHead.forward"),
        ("sigmoid twice for paraphrase", {"paraphrase": torch.sigmoid},
         "What comes out is a probability already, and BCE-with-logits and the evaluation apply a sigmoid: a pair can "
         "never look different (σ(0) = ½), and the loss cannot fall below .3133. Return the logit.")),
    *group("similarity = 5·cos(u, v)", SBERT, ("MultitaskBERT.predict_similarity", "CosineHead.forward"),
        ("similarity is not on the labels' scale",
         ({"similarity": lambda cosine: cosine}, {"similarity": torch.sigmoid}),
         "Labels go from 0 to 5, and the output never leaves [-1, 1]: the squared error pulls all pairs to their "
         "largest value. Multiply by 5, or divide the labels by 5.")),
    *group("u = Σₜ maskₜ·hₜ / Σₜ maskₜ", SBERT, ("mean_pool", *PREDICTS),
        ("pads are part of the sentence's vector", {"pool": with_pads},
         "Adding pads changes the answer, so it depends on what else is in the batch. Multiply by the mask before "
         "summing and divide by the number of real tokens; and do not concatenate padded rows of ids.")),
    *group("u at test time = E[u in training]", DROPOUT, PREDICTS,
        ("dropout is on in evaluation", {"dropout": on},
         "`F.dropout` drops unless told not to. Use an `nn.Dropout` module, or pass `training=self.training`.")),
    *group("f(x)ᵢ = f(xᵢ)", COURSE, PREDICTS,
        ("the examples of a batch are mixed", {"batch": lambda x: x - x.mean(dim=0)},
         "An answer depends on the other examples of its batch: a softmax, a cosine, a mean or a norm is taken over "
         "dim 0. Use dim=-1 (the default of `cosine_similarity` is 1, of a squeezed vector that is wrong).")),
    *group("f(u, v)", SBERT, PAIRS,
        ("the second sentence is not read", {"second": lambda u, v: u},
         "Other words in the second sentences change nothing: perhaps a copied line still has the first one's name.")),
    *group("v = Σₜ mask'ₜ·h'ₜ / Σₜ mask'ₜ", SBERT, PAIRS,
        ("the first sentence's mask is used for the second", {"second mask": lambda first, second: first},
         "Masking the second sentences changes nothing: they are read with `attention_mask_1`, so that their words are "
         "hidden and their pads are read. Use `attention_mask_2` for `input_ids_2`.")),
    *group(CROSS_ENTROPY, COURSE, ("classification_loss",),
        ("softmax inside the loss of sentiment", {"sst loss": lambda x, label: F.cross_entropy(softmax(x), label)},
         "`F.cross_entropy` takes logits. With a softmax before it the loss cannot fall below .9048.")),
    *group(BCE, COURSE, ("binary_loss",),
        ("sigmoid inside the loss of paraphrase",
         {"para loss": lambda x, label: F.binary_cross_entropy_with_logits(x.sigmoid(), label)},
         "`binary_cross_entropy_with_logits` takes the logit. With a sigmoid before it the loss cannot fall below "
         ".3133.")),
    *group("loss = mean (ŷ - y)²", SBERT, ("regression_loss",),
        ("outputs and labels of similarity have different scales",
         ({"sts loss": lambda x, label: F.mse_loss(x / 5, label)},
          {"sts loss": lambda x, label: F.mse_loss(x, label / 5)}),
         "One side is divided by 5 and the other is not: identical sentences are pulled away from their label.")),
    *group(CROSS_ENTROPY, COURSE, ONE,
        ("classifier.py: softmax before the cross-entropy", {"classifier": softmax},
         "The loss has a softmax inside. Return the logits as they are.")),
    *group("u at test time = E[u in training]", DROPOUT, ONE,
        ("classifier.py: dropout is on in evaluation", {"classifier dropout": on},
         "`F.dropout` drops unless told not to. Use an `nn.Dropout` module, or pass `training=self.training`.")),
    *group(CROSS_ENTROPY, COURSE, ("MultitaskBERT.predict_sentiment", "LinearHead.forward"),
        ("sigmoid before the cross-entropy", {"sentiment": torch.sigmoid},
         "Five numbers between 0 and 1 are no logits: the softmax of the loss can make no class likelier than .405. "
         "Return the logits.")),
    *group("∂loss/∂θ", COURSE, PREDICTS,
        ("the outputs have no gradient", {"gradient": lambda x: x.detach()},
         "Nothing can be learned from outputs that are detached, rounded, or computed under `torch.no_grad()`.")),
    *written(losses.NLL, "nll_loss(log p) = -log p_label", DOCS + "nll_loss",
            "`F.nll_loss` takes log-probabilities. Of raw logits it has no lower bound, and the loss runs away to -∞. "
            "Return `F.log_softmax(logits, dim=-1)`, or use `F.cross_entropy`."),
    *written(losses.BCE, BCE, DOCS + "binary_cross_entropy",
            "`F.binary_cross_entropy` takes a probability and fails on anything outside [0, 1]. Use "
            "`F.binary_cross_entropy_with_logits`."),
    *written(losses.ROUNDED, "∂ round(x)/∂x = 0", DOCS + "autograd mechanics",
            "Rounding, `argmax` and `detach` have no gradient: nothing is learned from such a loss. Take the loss of "
            "the raw outputs, and round only for the predictions."),
    *written(losses.EVERY, "loss = mean_i (ŷ_i - y_i)²", DOCS + "broadcasting semantics",
            "PyTorch spreads (B, 1) and (B,) to (B, B): every output is pulled towards every label, and all outputs "
            "become the labels' mean. Give both one shape: `outputs.view(-1)` beside `labels.view(-1)`."),
    *written(losses.KL, "KL(p‖q) = Σ_k p_k (log p_k - log q_k)", DOCS + "kl_div",
            "`F.kl_div(input, target)` takes the logarithm of the probabilities as its input, and the probabilities as "
            "its target. Use `F.log_softmax` for the first."),
    *written(losses.TWICE, "θ ← θ - α·∇loss, once a batch", DOCS + "torch.amp",
            "`loss.backward()` and `scaler.scale(loss).backward()` both run: the gradient is added twice, once scaled "
            "by thousands and once not. Keep the scaled one alone, and step with `scaler.step(optimizer)`."),
    *written(losses.NEVER_ZERO, "g = ∇loss of this batch", DOCS + "zeroing out gradients",
            "`backward` adds to the gradients that are there, so that every batch is pulled by all batches before. "
            "Call `optimizer.zero_grad()` before each `backward`."),
    *written(losses.ONCE_AN_EPOCH, "g = ∇loss of this batch", DOCS + "zeroing out gradients",
            "`backward` adds to the gradients that are there: within an epoch every step follows all batches before "
            "it. Call `optimizer.zero_grad()` after each `optimizer.step()`, inside the loop over batches."),
    *written(losses.UNUSED, "α_t = α·λ(t)", DOCS + "torch.optim, how to adjust the learning rate",
            "Without `scheduler.step()` after each `optimizer.step()` the learning rate stays at its first value, "
            "which is 0 where the schedule begins with a warm-up."),
    *written(losses.LEFT_OUT, "loss = Σ_task loss_task", TASKS,
            "A task whose loss is not in the sum, or is overwritten by the next one, learns nothing: its head keeps "
            "the weights that it began with. Add it to what `backward` is called on."),
    *written(losses.UNBOUNDED, "L = Σ_task exp(-s_task)·loss_task + s_task", "Kendall, Gal & Cipolla 2018, §3",
            "The sum falls without end as s does, so that every loss gets a weight of 0. s is the logarithm of a "
            "variance, and its sign in the exponent is minus."),
    *written(losses.NEVER_TRAINS, "f(x) with dropout while training", WITH_DROPOUT,
            "BERT comes out of `from_pretrained` in evaluation mode, and evaluating puts the model there: without "
            "`model.train()` at the start of each epoch nothing is dropped."),
    *written(losses.STAYS, "f(x) with dropout while training", WITH_DROPOUT,
            "The evaluation calls `model.eval()`, and nothing puts the model back: from the second epoch on nothing is "
            "dropped. Call `model.train()` at the start of each epoch, inside the loop."),
    *written(losses.ONLY_BERT, "θ ← θ - α·∇loss, for BERT's θ and the heads'", TASKS,
            "`model.bert.parameters()` leaves the heads out: they keep the weights that they began with. Give the "
            "optimizer `model.parameters()`, or the heads as a group of their own."),
    *written(losses.ZERO_BEFORE, "g = Σ_k ∇loss_k / K, over the K batches of a step", DOCS + "gradient accumulation",
            "`zero_grad` in every pass throws away what the batches before gave, so that a step sees its last batch "
            "alone. Call `optimizer.zero_grad()` beside `optimizer.step()`, below the same `if`."),
    *written(losses.CLIPPED, "g ← g·min(1, c/‖g‖), then the step", DOCS + "clip_grad_norm_",
            "Clipping changes the gradients that the next step uses. After the step, or before `backward`, there are "
            "none that are used. The order is `backward`, clip, `optimizer.step()`."),
    *written(losses.KEPT, "θ* = θ of the best epoch", DOCS + "saving and loading models",
            "`state_dict()` refers to the model's own weights, which go on changing: what is loaded in the end is what "
            "the model has already. Keep `copy.deepcopy(model.state_dict())`, or save it to a file."),
    *written(losses.OTHER_HEAD, "loss_task = ℓ(head_task(u, v), y)", TASKS,
            "A copied line calls another task's `predict_` method: the task's own head never learns, and the other one "
            "learns from wrong labels."),
    *written(losses.LOG_TARGET, "KL(p‖q) = Σ_k p_k (log p_k - log q_k)", DOCS + "kl_div",
            "`F.kl_div(input, target)` takes the probabilities as its target, and of negative numbers the loss is 0 or "
            "not a number. Use `F.softmax` for the second, or say `log_target=True`."),
    *written(losses.FREEZES, "frozen: ∂loss/∂θ of BERT is not used; fine-tuned: θ ← θ - α·∇loss",
            "the course's handout, --fine-tune-mode and --option",
            "\"pretrain\" and \"last-linear-layer\" keep BERT's weights and train the heads alone; \"finetune\" and "
            "\"full-model\" train all. Exchange True and False of `requires_grad`."),
)  # fmt: skip

PART = Part(
    name="heads",
    title="the heads of the tasks",
    right=RIGHT,
    reference=reference,
    find=find,
    probes=PROBES,
    mistakes=MISTAKES,
    owns=("MultitaskBERT", *SINGLE),
)
