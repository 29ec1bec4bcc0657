"""What is read of the training loop: where it is put into training mode, and what of BERT is frozen."""

import pytest

from minbert.sanity.losses import FREEZES, LEFT_OUT, ONCE_AN_EPOCH, STAYS, UNBOUNDED, UNUSED
from tests.sanity.making import changed, complaints, example, swap, verdicts

LOOP = "    for epoch in range(args.epochs):\n        model.train()\n        sst_train"
ONCE = "    model.train()\n    for epoch in range(args.epochs):\n        sst_train"
PRINTED = "        print(model_eval_multitask("
FREEZE = 'param.requires_grad = config.fine_tune_mode == "full-model"'
MODE = "    model.eval()\n    with torch.no_grad():\n        para_logits"
RETURN = "    return (\n        sentiment_accuracy"
RESTORED = (MODE, f"    was = model.training\n{MODE}", RETURN, f"    model.train(was)\n{RETURN}")


def branches(first: bool, negated: bool = False) -> str:
    is_not = "!" if negated else "="
    start = f'if config.fine_tune_mode {is_not}= "last-linear-layer":\n                param.requires_grad = {first}\n'
    return start + f"            else:\n                param.requires_grad = {not first}"


@pytest.mark.parametrize(
    "texts, expected",
    [
        ((LOOP, ONCE), [f"heads: {STAYS}"]),
        ((LOOP, ONCE, PRINTED, "        if epoch + 1 == args.epochs:\n            print(model_eval_multitask("), []),
        ((LOOP, ONCE, *RESTORED), []),
        ((LOOP, ONCE, "(*splits[\"dev\"], model, device)", "(*splits[\"dev\"], ema_model, device)"), []),
        ((FREEZE, branches(True)), [f"heads: {FREEZES}"]),
        pytest.param((FREEZE, branches(False, negated=True)), [f"heads: {FREEZES}"], marks=pytest.mark.slow),
        pytest.param((FREEZE, FREEZE.replace("==", "!=")), [f"heads: {FREEZES}"], marks=pytest.mark.slow),
        ((FREEZE, branches(False)), []),
        pytest.param((FREEZE, branches(True, negated=True)), [], marks=pytest.mark.slow),
    ],
    ids=["once", "evaluated at the end", "put back", "a copy is evaluated", "if", "if not", "!=",
         "right if", "right if not"],
)  # fmt: skip
def test_the_loop_is_read(texts, expected, tmp_path):
    assert complaints(verdicts(tmp_path, changed(example("course"), swap(*texts)), ["heads"])) == expected


ZERO = "            optimizer.zero_grad()\n            logits = model.predict_sentiment"
STEP = "            optimizer.step()\n        for batch in tqdm(para"
MAKE = "    model = MultitaskBERT(config).to(device)\n    optimizer = AdamW(model.parameters(), lr=args.lr)\n"
MADE = f"{MAKE}    scheduler = get_linear_schedule_with_warmup(optimizer, 10, 100)\n"
EPOCH = "        sst_train, para_train, sts_train ="
AN_EPOCH = (ZERO, ZERO.partition("\n")[2], EPOCH, f"        optimizer.zero_grad()\n{EPOCH}")


@pytest.mark.parametrize(
    "texts, expected",
    [
        (AN_EPOCH, [f"heads: {ONCE_AN_EPOCH}"]),
        ((*AN_EPOCH, STEP, STEP.replace("step()\n", "step()\n            model.zero_grad()\n")), []),
        ((MAKE, MADE), [f"heads: {UNUSED}"]),
        ((MAKE, MADE, STEP, STEP.replace("step()\n", "step()\n            scheduler.step()\n")), []),
        ((MAKE, MADE, STEP, STEP.replace("step()\n", "step()\n            after_step(scheduler)\n")), []),
    ],
    ids=["zero_grad an epoch", "zero_grad a step", "no step of the schedule", "a step", "handed on"],
)  # fmt: skip
def test_what_is_done_once_a_step_is_read(texts, expected, tmp_path):
    assert complaints(verdicts(tmp_path, changed(example("course"), swap(*texts)), ["heads"])) == expected


SCORES = (
    '            loss = F.mse_loss(scores, batch["labels"].to(device).view(-1).float())\n            loss.backward()\n'
)
SHIFTED = SCORES.replace("loss = ", "similarity = ").partition("\n")[0]
OTHER = "F.l1_loss(model.predict_paraphrase(*pair_inputs(batch, device)), torch.ones(1))"
BOTH = f"{SHIFTED}\n            loss = {OTHER}\n"
DEV = "        print(model_eval_multitask("
OF_DEV = (
    '        total = F.mse_loss(model.predict_similarity(*pair).view(-1), batch["labels"].view(-1))\n'
    "        print(total)\n"
)
HELD_BACK = BOTH.replace("similarity = ", "dev_loss = ")
ALOUD = '            print(f"{similarity}", similarity.item(), float(similarity))\n'


@pytest.mark.parametrize(
    "new, expected",
    [
        (f"{BOTH}            loss.backward()\n", [LEFT_OUT]),
        (f"{BOTH}{ALOUD}            loss.backward()\n", [LEFT_OUT]),
        (f"{BOTH}            (loss + similarity).backward()\n", []),
        (f"{BOTH}            optimizer.pc_backward([loss, similarity])\n", []),
        (f"{BOTH}            optimizer.pc_backward([loss])\n", [LEFT_OUT]),
        (SCORES.replace("loss = ", f"loss = {OTHER}\n            loss = "), [LEFT_OUT]),
        (SCORES.replace("loss = ", f"loss = {OTHER}\n            loss = loss + "), []),
        (f"{HELD_BACK}            loss.backward()\n", []),
        (SCORES.replace("loss.back", "(torch.exp(-model.s) * loss + model.s).back"), []),
        (SCORES.replace("loss.back", "(0.5 * torch.exp(model.s) * loss + 0.5 * model.s).back"), [UNBOUNDED]),
    ],
    ids=["not read", "only printed", "in the sum", "in a list", "not in the list", "overwritten", "added to",
         "of dev data", "right weights", "wrong weights"],
)  # fmt: skip
def test_every_loss_is_read(new, expected, tmp_path):
    files = changed(example("course"), swap(SCORES, new))
    assert complaints(verdicts(tmp_path, files, ["heads"])) == [f"heads: {name}" for name in expected]


def test_a_loss_outside_of_the_training_loop_may_be_printed_alone(tmp_path):
    files = changed(example("course"), swap(DEV, OF_DEV + DEV))
    assert complaints(verdicts(tmp_path, files, ["heads"])) == []
