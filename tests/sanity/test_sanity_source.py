"""What is read of the source alone, in scripts that never run: right code gets no complaint, and its mistake does."""

from textwrap import indent
from types import SimpleNamespace

import pytest
import torch

from minbert.sanity import losses, parts, their_heads
from minbert.sanity.check import _by_hand, _once
from minbert.sanity.layout import Layout
from minbert.sanity.losses import BCE, KL, LEFT_OUT, NEVER_TRAINS, NEVER_ZERO, NLL, ROUNDED, TWICE
from tests.sanity.making import read, written

OUT = 'out = model.predict_similarity(ids, mask, ids2, mask2).view(-1)\ny = batch["labels"]\n'
LOSS = f"{OUT}loss = F.mse_loss(out, y)\nloss.backward()\n"
ROUNDS = LOSS.replace("(out,", "(out.round(),")
METRIC = "    return F.mse_loss(model.predict_similarity(*pair).detach().flatten(), labels).item()\n"


def script(
    step: str = LOSS, above: str = "", before: str = "model.train()", zero: str = "optimizer.zero_grad()"
) -> str:
    """A script that trains. step: what it does with a batch; above: other functions; before, zero: two of its lines."""
    return (
        f"import torch\nimport torch.nn.functional as F\nfrom torch import nn\n\n{above}\n"
        f"def train(args, model, optimizer, loader):\n    {before}\n    for batch in loader:\n        {zero}\n"
        f"{indent(step, ' ' * 8)}        optimizer.step()\n\n\nif __name__ == '__main__':\n    train()\n"
    )


def said(folder, train: str, **others: str) -> set[str]:
    """The mistakes that train.py and other files are said to have."""
    project = read(folder, {"bert.py": "", "train.py": train, **{f"{name}.py": text for name, text in others.items()}})
    found = losses.facts(project, losses.losses(project))
    return {name for name, place in found.items() if place}


A_FUNCTION = "def of(model, batch, labels):\n    return F.mse_loss(model.predict_similarity(batch).round(), labels)\n"


@pytest.mark.parametrize(
    "text, expected",
    [
        (script(ROUNDS), {ROUNDED}),
        (script("loss = of(model, batch, y)\nloss.backward()\n", A_FUNCTION), {ROUNDED}),
        (script(f"{OUT}losses = [F.mse_loss(out.round(), y)]\nsum(losses).backward()\n"), {ROUNDED}),
        (script(f"{LOSS}running += F.mse_loss(out.detach(), y)\n"), set()),
        (script(f"{LOSS}mae = F.l1_loss(out.detach(), y)\nwandb.log({{'mae': mae}})\nrunning += mae\n"), set()),
        (script(above=f"def evaluate(model, pair, labels):\n{METRIC}"), set()),
        (script(f"{LOSS}print(of(model, batch, y))\n", A_FUNCTION), set()),
        (script(f"{LOSS}with torch.no_grad():\n    loss = F.mse_loss(out.round(), y)\n"), set()),
        (script(f"{LOSS}for b in dev:\n    loss = F.mse_loss(model.predict_similarity(b).round(), y)\n"), set()),
    ],
    ids=["rounded", "in a function", "in a list", "a metric", "a metric that is logged", "in the evaluation",
         "a function's value is printed", "without gradients", "in a loop of its own"],
)  # fmt: skip
def test_only_a_loss_that_backward_reaches_can_be_one_of_rounded_outputs(text, expected, tmp_path):
    assert said(tmp_path, text) == expected


def test_a_file_that_no_script_uses_is_not_judged(tmp_path):
    assert said(tmp_path / "a", script(), attempt=script(ROUNDS).partition("\n\nif __name__")[0]) == set()
    assert said(tmp_path / "b", script(above="import attempt"), attempt=script(ROUNDS).partition("\n\nif")[0]) == {
        ROUNDED
    }


LATER = "detached = out.detach().cpu()\npred = detached\nmae = F.l1_loss(pred, y)\nrunning += mae.item()\n"


@pytest.mark.parametrize(
    "more, expected",
    [
        ("mae = F.l1_loss(out.detach(), y)\nrunning += mae.item()\n", set()),
        ("hits = F.l1_loss(out.argmax(-1), y)\nprint(hits)\n", set()),
        (LATER, set()),
        ("mae = F.l1_loss(out, y)\nrunning += mae.item()\n", set()),  # another loss has these outputs
        ("out = model.predict_paraphrase(*pair)\nmae = F.l1_loss(out, y)\nrunning += mae.item()\n", {LEFT_OUT}),
        ("mae = F.l1_loss(model.predict_paraphrase(*pair), y)\nrunning += mae.item()\n", {LEFT_OUT}),
    ],
    ids=["detached", "argmax", "by a variable", "of the same outputs", "of other outputs", "of another task"],
)
def test_a_metric_of_detached_outputs_is_not_a_loss_that_is_left_out(more, expected, tmp_path):
    assert said(tmp_path, script(f"{LOSS}{more}")) == expected


def test_a_loss_may_be_cast_before_backward(tmp_path):
    assert said(tmp_path, script(LOSS.replace("loss.back", "loss.float().back"))) == set()


SCALED = "scaler.scale(loss).backward()"
AMP = LOSS.replace("loss.back", f"if amp:\n    {SCALED}\n    scaler.step(optimizer)\n    continue\nloss.back")


@pytest.mark.parametrize(
    "step, expected",
    [
        (AMP, set()),
        (AMP.replace("    continue\n", ""), {TWICE}),
        (f"{LOSS}if amp:\n    {SCALED}\n    continue\n", {TWICE}),
    ],
    ids=["goes on with the next batch", "falls through", "after the first"],
)
def test_a_branch_that_leaves_the_pass_does_not_meet_what_follows_it(step, expected, tmp_path):
    assert said(tmp_path, script(step)) == expected


@pytest.mark.parametrize(
    "line, expected",
    [
        ("model.train(args.training)", set()),
        ("model.train(mode=True)", set()),
        ("model.train(False)", {NEVER_TRAINS}),
        ("model.train(mode=False)", {NEVER_TRAINS}),
        ("model.eval()", {NEVER_TRAINS}),
    ],
)
def test_the_training_mode_may_be_an_expression(line, expected, tmp_path):
    assert said(tmp_path, script(before=line)) == expected


OTHER_TRAIN = "def train(optimizer):\n    optimizer.zero_grad()\n"
INIT = "def init_weights(module):\n    module.bias.data.zero_()\n"
UNUSED_PCGRAD = "def project(params, grads):\n    for p, g in zip(params, grads):\n        p.grad = g\n"
CLEAR = "def clear(model):\n    for p in model.parameters():\n        p.grad = None\n"
IN_STEP = "class Adam:\n    def step(self):\n        for p in self.params:\n            p.grad.zero_()\n"
OUTER = "def run(model, loaders):\n    for x in loaders:\n        clear(model)\n        train(0, model, optimizer, x)\n"


@pytest.mark.parametrize(
    "above, zero, expected",
    [
        (INIT, "pass", {NEVER_ZERO}),
        (UNUSED_PCGRAD, "pass", {NEVER_ZERO}),
        (CLEAR, "pass", {NEVER_ZERO}),
        (CLEAR, "clear(model)", set()),
        (UNUSED_PCGRAD, "project(model.parameters(), grads)", set()),
        (IN_STEP, "pass", set()),
        (OTHER_TRAIN, "model.train()", {NEVER_ZERO}),
        (CLEAR + OUTER, "pass", set()),
        ("", "optimizer.zero_grad()", set()),
    ],
    ids=["initialisation", "PCGrad that is not used", "a function that is not called", "a function", "PCGrad",
         "the optimizer's step", "a function that has the name of a method", "a loop around it", "zero_grad"],
)  # fmt: skip
def test_gradients_are_set_to_zero_in_the_training_loop(above, zero, expected, tmp_path):
    assert said(tmp_path, script(above=above, zero=zero)) == expected


@pytest.mark.parametrize(
    "loss, expected",
    [
        ("F.kl_div(F.softmax(out, -1), q)", {KL}),
        ("F.kl_div(input=F.softmax(out, -1), target=q)", {KL}),
        ("nn.KLDivLoss(reduction='batchmean')(out.softmax(-1), q)", {KL}),
        ("kl(torch.softmax(out, -1), q)", {KL}),
        ("kl(F.log_softmax(out, -1), q.softmax(-1))", set()),
        ("F.kl_div(target=F.softmax(out, -1), input=q)", set()),
    ],
)
def test_the_input_of_kl_div_is_found_however_it_is_given(loss, expected, tmp_path):
    text = script(f"{LOSS}extra = {loss}\nextra.backward()\n", above="kl = nn.KLDivLoss()\n")
    assert said(tmp_path, text) == expected


# ------------------------------------------------------------------------------------------------ what the losses get


def gets(folder, train: str, outputs: torch.Tensor) -> set[str]:
    """Whether NLL and BCE are said of train.py, whose model gives these outputs."""
    model = SimpleNamespace(outputs=lambda tasks, **_: {task: outputs for task in tasks})
    subject = SimpleNamespace(single=lambda: model, able=lambda *tasks: [(model, task) for task in tasks])
    project = read(folder, {"bert.py": "", "train.py": train})
    values, _ = their_heads.facts(project, losses.losses(project), subject)
    return {name for name in (NLL, BCE) if values[name]()}


LOGITS = "logits = model.predict_sentiment(ids, mask).squeeze()\n"
PAIRS = "logits = model.predict_paraphrase(*pair).view(-1)\n"


@pytest.mark.parametrize(
    "step, above, expected",
    [
        (f"{LOGITS}loss = nll(logits, y)\n", "nll = nn.NLLLoss()\n", {NLL}),
        (f"{LOGITS}loss = nll(m(logits), y)\n", "m = nn.LogSoftmax(dim=1)\nnll = nn.NLLLoss()\n", set()),
        (f"{LOGITS}loss = F.nll_loss(to_log_probs(logits), y)\n", "", set()),
        (f"{PAIRS}loss = F.binary_cross_entropy(logits, y.float())\n", "", {BCE}),
        (f"{PAIRS}loss = nn.BCELoss()(act(logits), y)\n", "act = nn.Sigmoid()\n", set()),
        ("loss = F.nll_loss(model(ids, mask), y)\n", "class BertSentimentClassifier:\n    pass\n", {NLL}),
        ("loss = F.nll_loss(model(ids, mask), y)\n", "class MultitaskBERT:\n    pass\n", set()),
    ],
    ids=["nll of logits", "a module", "a function", "bce of a logit", "a sigmoid's module", "the classifier",
         "another model"],
)  # fmt: skip
def test_an_operation_that_is_not_known_may_make_the_outputs_fit(step, above, expected, tmp_path):
    assert gets(tmp_path, script(f"{step}loss.backward()\n", above), torch.tensor([[2.0, -1.0, 3.0]])) == expected


BRANCHES = (
    "logits = model.predict_paraphrase(*pair)\nif a:\n    logits = torch.sigmoid(logits)\n"
    "    loss = F.binary_cross_entropy(logits, y)\nelse:\n    loss = F.binary_cross_entropy_with_logits(logits, y)\n"
)


@pytest.mark.parametrize(
    "step, done",
    [
        (BRANCHES, [{"sigmoid"}, set()]),
        (f"{BRANCHES}loss = F.binary_cross_entropy_with_logits(logits, y)\n", [{"sigmoid"}, set(), None]),
        ("logits = model.predict_paraphrase(*pair)\nif a:\n    logits = logits.sigmoid()\n    raise ValueError\n"
         "loss = F.binary_cross_entropy_with_logits(logits, y)\n", [set()]),
        ("logits = model.predict_paraphrase(*pair)\nif gpu:\n    logits = logits.cpu()\n"
         "loss = F.binary_cross_entropy_with_logits(logits, y)\n", [{"cpu"}]),
    ],
    ids=["two branches", "after them", "a branch that leaves", "the same numbers"],
)  # fmt: skip
def test_what_is_done_in_one_branch_is_not_done_in_the_other(step, done, tmp_path):
    """None: which of the two was done is not known, and so no task is named."""
    project = read(tmp_path, {"bert.py": "", "train.py": script(step)})
    found = [set(loss.done) if loss.task else None for loss in losses.losses(project)]
    assert found == done


# ------------------------------------------------------------------------------------------------ what excuses a result


OFTEN = {"attention": "what the dropout falls on", "layer": "how often hidden dropout falls",
         "embeddings": "how often dropout falls"}  # fmt: skip


@pytest.mark.parametrize("part", OFTEN)
def test_all_that_shows_how_often_dropout_falls_is_of_dropout(part, tmp_path):
    loaded = parts.load(part)
    differs = [probe.name for probe in loaded.probes if "training" in probe.name] + [OFTEN[part]]
    assert len(differs) > 1 and OFTEN[part] in {probe.name for probe in loaded.probes}
    owner, _, method = loaded.mistakes[0].where[0].partition(".")
    text = f"from a import f\nclass {owner}:\n    def {method}(self): pass\n"
    layout = Layout.find(written(tmp_path, {"bert.py": text, "a.py": "def f(x): return torch.rand_like(x)"}))
    assert _by_hand(differs, layout, loaded)
    assert not _by_hand([*differs, "the output, in evaluation"], layout, loaded)
    written(tmp_path / "b", {"bert.py": text, "a.py": "def f(x): return 0.7 * x"})
    assert not _by_hand(differs, Layout.find(tmp_path / "b"), loaded)


def test_only_a_failure_that_is_known_is_the_failure_of_another_part():
    """A part that ends the process has no failure: two of them may have ended it in two ways."""
    part = parts.load("layer")
    ended, other = ({"status": "crashed", "title": title, "note": note} for title, note in (("a", "9"), ("b", "11")))
    assert _once(part, other, [ended]) is other
    failed = [result | {"failure": {"error": "NameError"}} for result in (ended, other)]
    assert _once(part, failed[1], failed[:1])["note"] == "it fails as a does"
