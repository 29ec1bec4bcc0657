"""The trainer's weights with every term of the loss, against the same updates written out by hand."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import multitask_classifier
from minbert.data import Batches
from minbert.optimizer import AdamW
from minbert.pretrained import load_tokenizer
from minbert.tasks import TASKS
from tests.cli.runs import FULL, STILL, distance


def apart(task: str, a: Tensor, b: Tensor) -> Tensor:
    """ℓ_s by its definition, as a mean over the examples."""
    if task == "sts":
        return (a / 5 - b / 5).pow(2).mean()
    if task == "para":  # two classes, of which the second has the logit 0
        a, b = (F.pad(x, (0, 1)) for x in (a, b))
    p, q = a.softmax(1), b.softmax(1)
    return ((p * (p / q).log()).sum(1) + (q * (q / p).log()).sum(1)).mean()


def worst(args, model, batch, x: Tensor, clean: Tensor, random: torch.Generator) -> Tensor:
    """δ of Algorithm 1, row by row."""
    epsilon = args.smart_epsilon
    eta, sigma = args.smart_eta or 100 * epsilon, args.smart_sigma or 1e-5
    tokens = batch.attention_mask[:, :, None] == 1
    delta = sigma * torch.randn(x.shape, generator=random, dtype=x.dtype) * tokens
    for _ in range(args.smart_steps or 1):
        moved = (x + delta).detach().requires_grad_()
        (g,) = torch.autograd.grad(apart(batch.task, model.logits(batch, moved), clean.detach()), moved)
        delta = torch.stack([d + eta * row / row.abs().max() for d, row in zip(delta, g, strict=True)]) * tokens
        if args.smart_noise != "relative":
            delta = delta.clamp(min=-epsilon, max=epsilon)
            continue
        for row, i in tokens[:, :, 0].nonzero().tolist():  # each vector by itself, to ε of its own size
            delta[row, i] *= epsilon * x[row, i].detach().abs().max() / delta[row, i].abs().max()
    return delta.detach()


def by_hand(words: list[str]) -> dict[str, Tensor]:
    """The weights after a run of round_robin with one update a step: the loss and its terms, summed over the tasks.

    ½·(L(f₁) + L(f₂)) + α·½·ℓ_s(f₁, f₂)  with R-Drop, else L(f₁);  + λ·R_s + μ·D
    """
    args = multitask_classifier.get_args(words)
    torch.manual_seed(args.seed)
    data = multitask_classifier.load_data(args, load_tokenizer(args.pretrained))
    model = multitask_classifier.build_model(args)
    streams = {task: Batches(splits["train"], args.batch_size, args.seed) for task, splits in data.items()}
    optimizer = AdamW(model.parameters(), lr=args.lr)
    anchor, random = copy.deepcopy(model).eval(), torch.Generator().manual_seed(args.seed)
    betas = args.bregman_beta or (0.995, 0.995)
    for step in range(args.steps_per_epoch):
        optimizer.zero_grad()
        for task in args.tasks:
            batch = streams[task].next()
            f1 = model.train()(batch)
            loss = TASKS[task].loss(f1, batch.labels)
            if args.rdrop:
                f2 = model(batch)
                loss = (loss + TASKS[task].loss(f2, batch.labels)) / 2 + args.rdrop * apart(task, f1, f2) / 2
            x = model.eval().embed(batch)
            clean = model.logits(batch, x)
            if args.smart and task in (args.smart_tasks or args.tasks):
                delta = worst(args, model, batch, x, clean, random)
                loss = loss + args.smart * apart(task, model.logits(batch, x + delta), clean)
            loss = loss + args.bregman * apart(task, clean, anchor(batch).detach())
            (args.task_weights[task] * loss).backward()
        optimizer.step()
        beta = betas[0 if step / args.steps_per_epoch < 0.1 else 1]
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
        ("--para_head", "relational", "--sts_head", "relational"),  # two heads share a layer, which θ̃ has once
        ("--pairs", "joint", "--attention", "sdpa"),
    ],
    ids=" ".join,
)
def test_the_trainers_updates_with_smart_and_bregman_are_those_of_the_formula(train, argv, float64, flags):
    flags = (*FULL, *THREE_UPDATES, *TERMS, *flags)
    assert distance(train(*flags).weights, by_hand(argv(*flags))) < 1e-9


@pytest.mark.parametrize(
    "flags",
    [
        ("--rdrop", "3", "--task_weights", "1,2,.5"),
        ("--rdrop", "3", *TERMS),
        ("--rdrop", "3", *TERMS, "--smart_tasks", "para", "--pairs", "joint"),
    ],
    ids=" ".join,
)
def test_the_trainers_updates_with_r_drop_are_those_of_the_formula(train, argv, float64, flags):
    flags = (*FULL, *THREE_UPDATES, *flags)
    assert distance(train(*flags).weights, by_hand(argv(*flags))) < 1e-9


def test_another_value_of_any_setting_gives_other_weights(argv, float64):
    """So the comparison above depends on each of them."""
    flags = (*FULL, *THREE_UPDATES, *TERMS, "--rdrop", "3")
    weights = by_hand(argv(*flags))
    for other in (("--smart", "90"), ("--smart_epsilon", "0.09"), ("--smart_eta", "1"), ("--smart_sigma", "0.01"),
                  ("--bregman", "90"), ("--bregman_beta", "0.8"), ("--rdrop", "2.9")):  # fmt: skip
        assert distance(weights, by_hand(argv(*flags, *other))) > 1e-5, other
