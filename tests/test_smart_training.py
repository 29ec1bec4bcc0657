"""--smart and --bregman in the trainer, from the flags to the weights: a tiny BERT, a few rows, a second a test.

The terms by themselves are the matter of test_smart.py. Here: do they count for what the flags say, when and by how
much? Most runs have ε = 0.1: at the paper's 1e-5 the smoothness term of a BERT this small is 1e-12.
"""

import copy
import itertools
import json
import re
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import classifier
import multitask_classifier
from minbert.bert import BertModel
from minbert.data import Batches
from minbert.heads import PAIR_HEADS
from minbert.optimizer import AdamW
from minbert.pcgrad import COMBINE
from minbert.pretrained import load_bert, load_tokenizer
from minbert.sampling import SCHEDULES
from minbert.smart import Proximal
from minbert.tasks import TASKS
from multitask_classifier import SmartTerms

EVERY_TASK = {"sst", "para", "sts"}
FULL = ("--fine-tune-mode", "full-model")
STILL = ("--hidden_dropout_prob", "0", "--bert_dropout", "0")  # else .3 and .1
SMART = ("--smart", "5", "--smart_epsilon", "0.1")
BOTH = (*SMART, "--bregman", "1")
ONE_UPDATE = ("--combine", "sum", "--steps_per_epoch", "1")


class Run:
    """What a run left behind."""

    def __init__(self, out):
        self.weights = torch.load(out / "best.pt", weights_only=True)["model"]
        self.metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]

    def numbers(self) -> list[dict]:
        """The log without clock and memory."""
        names = {"epoch", "loss", "dev", "overall", "smoothness", "bregman"}
        return [{name: value for name, value in line.items() if name in names} for line in self.metrics]

    def part(self, prefix: str) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in self.weights.items() if name.startswith(prefix)}


@pytest.fixture
def argv(tiny, sample, tmp_path):
    """The flags of a run in a folder of its own."""
    base = ["--pretrained", str(tiny), "--data", str(sample), "--limit", "16", "--batch_size", "8", "--lr", "1e-3"]
    count = itertools.count()
    return lambda *flags: [
        *base,
        "--epochs",
        "1",
        "--skip_predictions",
        *flags,
        "--out",
        str(tmp_path / str(next(count))),
    ]


@pytest.fixture
def train(argv):
    def go(*flags: str, script: ModuleType = multitask_classifier) -> Run:
        words = argv(*flags)
        args = script.get_args(words)
        script.main(words)
        return Run(args.out / "sst" if script is classifier else args.out)

    return go


@pytest.fixture
def no_evaluation(monkeypatch):
    """Every dev score is .5, and nothing runs to find it."""
    monkeypatch.setattr(multitask_classifier, "evaluate", lambda model, data: dict.fromkeys(data, 0.5))


@pytest.fixture
def float64(monkeypatch):
    """Models of double precision. In float32 two ways to one number part in its last bits, the search goes another way
    where the gradient is of their size, and Adam makes as much of a small gradient as of a large one."""
    build_model = multitask_classifier.build_model
    monkeypatch.setattr(multitask_classifier, "build_model", lambda args: build_model(args).double())


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest difference of two weights."""
    assert one.keys() == other.keys()
    return max((tensor - other[name]).abs().max().item() for name, tensor in one.items())


# ------------------------------------------------------------------------------------------ off, on, and how far


def test_weights_of_zero_are_a_run_without_the_flags_bit_by_bit(train):
    plain, zero, smart = train(*FULL), train(*FULL, "--smart", "0", "--bregman", "0"), train(*FULL, *SMART)
    assert distance(plain.weights, zero.weights) == 0 and plain.numbers() == zero.numbers()
    assert distance(plain.weights, smart.weights) > 1e-4


WAYS = [
    *(("--schedule", name) for name in SCHEDULES),
    *(("--combine", name) for name in COMBINE),
    *((f"--{task}_head", name) for task in ("para", "sts") for name in PAIR_HEADS[task]),
    *(("--pairs", "joint", "--combine", name) for name in ("separate", "pcgrad")),
    ("--pooling", "mean"), ("--precision", "bf16"), ("--attention", "sdpa"), ("--sts_loss", "cosine"), ("--clip", "1"),
    ("--smart_noise", "relative"), ("--smart_steps", "3"), STILL,
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS, ids=" ".join)
def test_it_goes_with_every_other_technique(train, way):
    """The ascent finds a worse point than where it starts, and stays in its ball."""
    (line,) = train(*FULL, *BOTH, "--smart_sigma", "0.03", *way).metrics
    seen = set(line["loss"])
    assert seen <= EVERY_TASK and set(line["bregman"]) == seen
    assert set(line.get("smoothness", {})) == (set() if "priority" in way else seen)  # priority: below
    for found in line.get("smoothness", {}).values():
        assert set(found) == {"before", "after", "max_delta"}
        assert 0 < found["before"] < found["after"] < 0.1
        if "relative" not in way:  # there the ball is as wide as the vector is long
            assert found["max_delta"] == pytest.approx(0.1, rel=1e-6)  # and one step does reach its edge
    assert all(0 <= value < 0.1 for value in line["bregman"].values())
    assert max(line["bregman"].values()) > 0


def test_the_papers_figures_are_the_defaults_of_a_run(train):
    """ε = 1e-5; the term is of the order of its square."""
    (line,) = train(*FULL, "--smart", "5").metrics
    for found in line["smoothness"].values():
        assert found["max_delta"] == pytest.approx(1e-5) and 0 < found["after"] < 1e-9


def test_pads_stay_where_they_are(train, monkeypatch):
    """A pad is not seen by anybody, so neither loss nor weights could tell; but its δ would count for max|δ|."""
    found, batches = [], []
    smoothness, call = multitask_classifier.smoothness, SmartTerms.__call__
    monkeypatch.setattr(
        multitask_classifier, "smoothness", lambda *a, **k: (found.append(smoothness(*a, **k)), found[-1])[1]
    )
    monkeypatch.setattr(
        SmartTerms, "__call__", lambda self, batch, *more: (batches.append(batch), call(self, batch, *more))[1]
    )
    train(*FULL, *SMART)
    pads = [batch.attention_mask == 0 for batch in batches]
    assert len(found) == 6 and any(mask.any() for mask in pads)
    for (_, _, delta), mask in zip(found, pads, strict=True):
        assert (delta[mask] == 0).all() and (delta[~mask] != 0).float().mean() > 0.9


# ------------------------------------------------------------------------------------------ which tasks, and when


def test_priority_switches_it_on_when_all_tasks_stand_still(train, no_evaluation, capsys):
    """Dev scores that never change: after the second epoch all are saturated, and the third is in the end phase."""
    run, plain = (train(*FULL, *more, "--schedule", "priority", "--epochs", "4") for more in (BOTH, ("--bregman", "1")))
    assert [set(line.get("smoothness", {})) for line in run.metrics] == [set(), set(), EVERY_TASK, EVERY_TASK]
    assert [set(line["bregman"]) for line in run.metrics] == [EVERY_TASK] * 4
    same = [line["loss"] == other["loss"] for line, other in zip(run.metrics, plain.metrics, strict=True)]
    assert same == [True, True, False, False]

    always = train(*FULL, *SMART, "--schedule", "round_robin", "--epochs", "4")
    assert [set(line["smoothness"]) for line in always.metrics] == [EVERY_TASK] * 4


def test_smart_tasks_are_those_whose_loss_has_the_term(train):
    """After one update, what differs from the run without it is the head of that task, and BERT."""
    heads = ("--sts_head", "difference")
    plain = train(*FULL, *ONE_UPDATE, *heads)
    for names in ({"sts"}, {"sst", "para"}, EVERY_TASK):
        run = train(*FULL, *ONE_UPDATE, *heads, *SMART, "--smart_tasks", ",".join(names))
        assert set(run.metrics[0]["smoothness"]) == names
        for task in EVERY_TASK:
            moved = distance(run.part(f"heads.{task}."), plain.part(f"heads.{task}."))
            assert (moved > 0) == (task in names), task
        assert distance(run.part("bert."), plain.part("bert.")) > 0


def test_smart_tasks_leave_the_other_tasks_runs_as_they_were(train):
    """A whole epoch with BERT frozen, which nobody shares then: dropout's numbers are the same too."""
    run, plain = (train("--sts_head", "dot", *more) for more in ((*SMART, "--smart_tasks", "sts"), ()))
    for task in EVERY_TASK:
        same = distance(run.part(f"heads.{task}."), plain.part(f"heads.{task}.")) == 0
        assert same == (run.metrics[0]["loss"][task] == plain.metrics[0]["loss"][task]) == (task != "sts")


def test_a_frozen_bert_is_searched_through_and_not_trained(train, tiny):
    plain = train("--sts_head", "dot")
    for terms in (SMART, ("--bregman", "100"), BOTH):
        run = train("--sts_head", "dot", *terms)
        start = {f"bert.{name}": tensor for name, tensor in load_bert(tiny).state_dict().items()}
        assert distance(run.part("bert."), start) == 0
        for task in EVERY_TASK:
            assert distance(run.part(f"heads.{task}."), plain.part(f"heads.{task}.")) > 1e-5


# ------------------------------------------------------------------------------------------ passes and random numbers


@pytest.mark.parametrize(
    ("flags", "extra"),
    [
        (STILL, 0),
        ((*STILL, *SMART), 2),  # the search's, and f(x̃); f(x) is the loss's own pass
        ((*STILL, *SMART, "--smart_steps", "3"), 4),
        ((*STILL, "--bregman", "1"), 1),  # f(x; θ̃)
        ((*STILL, *BOTH), 3),
        ((), 0),
        (SMART, 3),  # with dropout the loss's pass will not do
        (("--hidden_dropout_prob", "0", *SMART), 3),
        (("--bert_dropout", "0", *SMART), 3),
        ((*STILL, *SMART, "--precision", "bf16"), 3),  # nor in bf16
        (("--bregman", "1"), 2),
        (BOTH, 4),
        ((*BOTH, "--smart_steps", "3"), 6),
        (("--smart", "5", "--smart_tasks", "sst", "--tasks", "para,sst", "--task_weights", "1,1"), 3 / 2),
        ((*SMART, "--schedule", "priority", "--combine", "separate"), 0),  # in its first epoch
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_no_more_passes_than_it_takes(train, no_evaluation, monkeypatch, flags, extra):
    """How often a batch goes through BERT, beside the once of its loss."""
    calls, encode = [], BertModel.encode
    monkeypatch.setattr(BertModel, "encode", lambda self, *args: (calls.append(1), encode(self, *args))[1])
    tasks = () if "--tasks" in flags else ("--tasks", "sst")
    train(*FULL, *ONE_UPDATE, *tasks, *flags)
    batches = 2 if "--tasks" in flags else 1
    assert len(calls) == batches * (1 + extra)


@pytest.mark.parametrize(("flags", "order"), [(SMART, "F B FFF B"), ((*STILL, *SMART), "FFF B")], ids=["", "still"])
def test_what_a_loss_alone_needs_is_gone_before_the_terms_begin(train, no_evaluation, monkeypatch, flags, order):
    """Its backward pass comes before their forward passes, where those share nothing with it: less memory at once."""
    events, encode, backward = [], BertModel.encode, Tensor.backward
    monkeypatch.setattr(BertModel, "encode", lambda self, *args: (events.append("F"), encode(self, *args))[1])
    monkeypatch.setattr(Tensor, "backward", lambda self, *args: (events.append("B"), backward(self, *args))[1])
    train(*FULL, *ONE_UPDATE, *flags)
    assert "".join(events) == 3 * order.replace(" ", "")


def test_the_loss_s_own_pass_is_as_good_as_a_clean_one(train, float64, monkeypatch):
    """Where it is used: without dropout, in fp32."""
    shared = train(*FULL, *STILL, *BOTH)
    init = SmartTerms.__init__
    seen = []

    def unshared(self, *args):
        init(self, *args)
        seen.append(self.share)
        self.share = False

    monkeypatch.setattr(SmartTerms, "__init__", unshared)
    alone = train(*FULL, *STILL, *BOTH)
    assert seen == [True]
    assert distance(shared.weights, alone.weights) < 1e-9
    for task in EVERY_TASK:
        for value in ("loss", "smoothness", "bregman"):
            one, other = (run.metrics[0][value][task] for run in (shared, alone))
            assert one == pytest.approx(other, rel=1e-6)


def test_the_terms_do_not_depend_on_the_dropout_or_the_precision_of_the_loss(train):
    """At the first update, when the weights are the same. The losses do."""
    still, dropout, rough = (
        train(*FULL, *ONE_UPDATE, *SMART, *more).metrics[0] for more in (STILL, (), (*STILL, "--precision", "bf16"))
    )
    for other in (dropout, rough):
        for task in EVERY_TASK:
            assert other["loss"][task] != still["loss"][task]
            assert other["smoothness"][task] == pytest.approx(still["smoothness"][task], rel=1e-3)


def test_bregman_s_first_step_is_at_zero(train):
    """θ̃ is θ then, and a dropout or a bf16 on one side alone would show."""
    for more in ((), (*STILL, "--precision", "bf16")):
        (line,) = train(*FULL, *ONE_UPDATE, "--bregman", "1", *more).metrics
        assert all(value < 1e-12 for value in line["bregman"].values())


def test_dropout_draws_what_it_would_have_drawn(train):
    """The search has a generator of its own: with dropout on, the loss of the first update is the same to the bit,
    and so is the state of PyTorch's generator after a whole epoch."""
    losses, states = [], []
    for terms in ((), SMART, ("--bregman", "1"), (*BOTH, "--smart_steps", "3")):
        losses.append(train(*FULL, *ONE_UPDATE, *terms).metrics[0]["loss"])
        train(*FULL, *terms)
        states.append(torch.get_rng_state())
    assert all(loss == losses[0] for loss in losses)
    assert all(torch.equal(state, states[0]) for state in states)
    assert train(*FULL, *ONE_UPDATE, "--seed", "1").metrics[0]["loss"] != losses[0]


def test_the_random_start_depends_on_the_seed(train, monkeypatch):
    """And goes on from batch to batch: no two are alike."""
    starts = []
    randn = torch.randn
    monkeypatch.setattr(torch, "randn", lambda *a, **k: (starts.append(randn(*a, **k)), starts[-1])[1])
    for seed in ("1", "1", "2"):
        train(*FULL, *SMART, "--seed", seed, "--tasks", "sst", "--steps_per_epoch", "2")
    heads = [start.flatten()[:20] for start in starts]
    assert len(heads) == 6
    same = [(i, j) for i, j in itertools.combinations(range(6), 2) if torch.equal(heads[i], heads[j])]
    assert same == [(0, 2), (1, 3)]


def test_the_bregman_average_hears_of_every_step_how_far_the_training_is(train, monkeypatch):
    progress = []
    update = Proximal.update
    monkeypatch.setattr(Proximal, "update", lambda self, share: (progress.append(share), update(self, share))[1])
    train(*FULL, "--bregman", "1", "--epochs", "2", "--steps_per_epoch", "2")  # three tasks a step, an update each
    assert progress == pytest.approx([i / 12 for i in range(12)])
    progress.clear()
    train(*FULL, "--bregman", "1", "--epochs", "2", "--steps_per_epoch", "2", "--combine", "sum")
    assert progress == pytest.approx([0, 1 / 4, 2 / 4, 3 / 4])


# ------------------------------------------------------------------------------------------ by hand


def apart(task: str, a: Tensor, b: Tensor) -> Tensor:
    """ℓ_s by its definition, the mean over the examples."""
    if task == "sts":
        return (a / 5 - b / 5).pow(2).mean()
    if task == "para":  # two classes, of which the second's logit is 0
        a, b = (F.pad(x, (0, 1)) for x in (a, b))
    p, q = a.softmax(1), b.softmax(1)
    return ((p * (p / q).log()).sum(1) + (q * (q / p).log()).sum(1)).mean()


def worst(args, model, batch, x: Tensor, clean: Tensor, random: torch.Generator) -> Tensor:
    """δ of Algorithm 1, row by row."""
    epsilon, eta = args.smart_epsilon, args.smart_eta or 100 * args.smart_epsilon
    tokens = batch.attention_mask[:, :, None] == 1
    delta = args.smart_sigma * torch.randn(x.shape, generator=random, dtype=x.dtype) * tokens
    for _ in range(args.smart_steps):
        moved = (x + delta).detach().requires_grad_()
        (g,) = torch.autograd.grad(apart(batch.task, model.logits(batch, moved), clean.detach()), moved)
        delta = torch.stack([d + eta * row / row.abs().max() for d, row in zip(delta, g, strict=True)]) * tokens
        if args.smart_noise == "ball":
            delta = delta.clamp(min=-epsilon, max=epsilon)
            continue
        for row, i in tokens[:, :, 0].nonzero().tolist():  # each vector by itself, to ε of its own size
            delta[row, i] *= epsilon * x[row, i].detach().abs().max() / delta[row, i].abs().max()
    return delta.detach()


def by_hand(words: list[str]) -> dict[str, Tensor]:
    """The weights after a run of round_robin with one update a step: loss + λ·R_s + μ·D, summed over the tasks."""
    args = multitask_classifier.get_args(words)
    torch.manual_seed(args.seed)
    data = multitask_classifier.load_data(args, load_tokenizer(args.pretrained))
    model = multitask_classifier.build_model(args)
    streams = {task: Batches(splits["train"], args.batch_size, args.seed) for task, splits in data.items()}
    optimizer = AdamW(model.parameters(), lr=args.lr)
    anchor, random = copy.deepcopy(model).eval(), torch.Generator().manual_seed(args.seed)
    for step in range(args.steps_per_epoch):
        optimizer.zero_grad()
        for task in args.tasks:
            batch = streams[task].next()
            loss = TASKS[task].loss(model.train()(batch), batch.labels)
            x = model.eval().embed(batch)
            clean = model.logits(batch, x)
            if task in args.smart_tasks and args.smart:
                delta = worst(args, model, batch, x, clean, random)
                loss = loss + args.smart * apart(task, model.logits(batch, x + delta), clean)
            loss = loss + args.bregman * apart(task, clean, anchor(batch).detach())
            (args.task_weights[task] * loss).backward()
        optimizer.step()
        beta = args.bregman_beta[0 if step / args.steps_per_epoch < 0.1 else 1]
        for mean, p in zip(anchor.parameters(), model.parameters(), strict=True):
            mean.data = beta * mean.data + (1 - beta) * p.data
    return model.state_dict()


THREE_UPDATES = ("--combine", "sum", "--steps_per_epoch", "3")
TERMS = ("--smart", "100", "--smart_epsilon", "0.1", "--bregman", "100", "--bregman_beta", "0.2,0.8")


@pytest.mark.parametrize(
    "flags",
    [
        STILL,
        (),  # with dropout
        (*STILL, "--smart_steps", "2", "--smart_eta", "0.05", "--smart_sigma", "0.05"),
        ("--smart_noise", "relative", "--pooling", "mean"),
        ("--smart_tasks", "sst,sts", "--task_weights", "1,2,.5"),
        ("--para_head", "relational", "--sts_head", "relational"),  # a layer in two heads: θ̃ has it once
        ("--pairs", "joint", "--attention", "sdpa"),
    ],
    ids=" ".join,
)
def test_the_trainer_s_updates_are_those_of_the_formula(train, argv, float64, flags):
    flags = (*FULL, *THREE_UPDATES, *TERMS, *flags)
    assert distance(train(*flags).weights, by_hand(argv(*flags))) < 1e-9


def test_with_another_figure_they_would_be_others(argv, float64):
    """The comparison can tell."""
    flags = (*FULL, *THREE_UPDATES, *TERMS)
    weights = by_hand(argv(*flags))
    for other in (("--smart", "90"), ("--smart_epsilon", "0.09"), ("--smart_eta", "1"), ("--smart_sigma", "0.01"),
                  ("--bregman", "90"), ("--bregman_beta", "0.8")):  # fmt: skip
        assert distance(weights, by_hand(argv(*flags, *other))) > 1e-5, other


def test_bregman_needs_two_steps_to_matter(train):
    """After the first, D = 0 has no gradient."""
    for steps, differs in (("1", False), ("2", True)):
        flags = (*FULL, *STILL, "--combine", "sum", "--steps_per_epoch", steps)
        plain, near = train(*flags), train(*flags, "--bregman", "100")
        assert (distance(plain.weights, near.weights) > 1e-5) == differs


# ------------------------------------------------------------------------------------------ what is said


def test_the_log_is_the_mean_over_the_batches(train, monkeypatch):
    """But max|δ| is their largest. In `sequential` the batches come two of SST, two of Quora, two of STS."""
    found, distances = [], []
    smoothness, proximal = multitask_classifier.smoothness, Proximal.__call__
    monkeypatch.setattr(
        multitask_classifier, "smoothness", lambda *a, **k: (found.append(smoothness(*a, **k)), found[-1])[1]
    )
    monkeypatch.setattr(Proximal, "__call__", lambda self, *a: (distances.append(proximal(self, *a)), distances[-1])[1])
    (line,) = train(*FULL, *BOTH, "--smart_noise", "relative", "--schedule", "sequential").metrics
    for i, task in enumerate(("sst", "para", "sts")):
        (one, other), near = found[2 * i : 2 * i + 2], distances[2 * i : 2 * i + 2]
        largest = [x.delta.abs().max().item() for x in (one, other)]
        assert largest[0] != largest[1]
        assert line["smoothness"][task] == pytest.approx(
            {
                "before": (one.before + other.before).item() / 2,
                "after": (one.term + other.term).item() / 2,
                "max_delta": max(largest),
            }
        )
        assert line["bregman"][task] == pytest.approx(sum(near).item() / 2)


NUMBER = r"\d\.\de-\d\d"


def test_a_line_says_what_the_ascent_found_and_one_how_near_the_weights_stay(train, capsys):
    (line,) = train(*FULL, *BOTH, "--epochs", "1").metrics
    out = capsys.readouterr().out
    (said,) = re.findall(rf"^  smoothness, before → after ascent: (.*);  max\|δ\| ({NUMBER})$", out, re.M)
    words = [f"{task} {x['before']:.1e} → {x['after']:.1e}" for task, x in line["smoothness"].items()]
    assert said == (",  ".join(words), "1.0e-01")
    (said,) = re.findall(r"^  bregman: (.*)$", out, re.M)
    assert said == ",  ".join(f"{task} {x:.1e}" for task, x in line["bregman"].items())
    assert re.fullmatch(rf"(\w+ {NUMBER},  ){{2}}\w+ {NUMBER}", said)

    train(*FULL)
    out = capsys.readouterr().out
    assert "smoothness" not in out and "bregman" not in out


# ------------------------------------------------------------------------------------------ classifier.py


def test_classifier_has_the_terms_too(train):
    plain, smart, near = (train(*FULL, "--tasks", "sst", *more, script=classifier) for more in ((), SMART, BOTH))
    assert set(smart.metrics[0]["smoothness"]) == set(near.metrics[0]["bregman"]) == {"sst"}
    assert not {"smoothness", "bregman"} & set(plain.metrics[0]) and "bregman" not in smart.metrics[0]
    for one, other in itertools.combinations((plain, smart, near), 2):
        assert distance(one.weights, other.weights) > 1e-5
