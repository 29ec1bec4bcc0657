"""What is read of the step: which weights it moves, where gradients are cut and set to zero, and what is kept."""

from types import SimpleNamespace

import pytest

from minbert.sanity.losses import CLIPPED, KEPT, LOG_TARGET, ONLY_BERT, OTHER_HEAD, ZERO_BEFORE
from minbert.sanity.steps import (
    clipped_in_vain,
    kept_by_reference,
    log_target,
    only_bert,
    other_head,
    zeroed_before,
)
from tests.sanity.making import changed, complaints, example, swap, verdicts

BACK = "            loss.backward()\n            optimizer.step()\n"
STS = 'loss = F.mse_loss(scores, batch["labels"].to(device).view(-1).float())\n' + BACK
ZERO = "            optimizer.zero_grad()\n            scores = model.predict_similarity"
MAKE = "    model = MultitaskBERT(config).to(device)\n    optimizer = AdamW(model.parameters(), lr=args.lr)"
EVALUATE = '        print(model_eval_multitask(*splits["dev"], model, device))\n'
CLIP = "            nn.utils.clip_grad_norm_(model.parameters(), 1.0)\n"
SCALED = "            scaler.scale(loss).backward()\n            scaler.unscale_(optimizer)\n"


def loss_then(text: str) -> tuple[str, str]:
    return STS, STS.replace(BACK, text)


def every_fourth(step: str) -> str:
    return (
        f"            loss.backward()\n            if (n + 1) % 4 == 0:\n                {step}\n            n += 1\n"
    )


def best(kept: str, put_back: str) -> tuple[str, ...]:
    """The best weights of all epochs are kept, and put back after the last one."""
    return EVALUATE, f"{EVALUATE}        {kept}\n    {put_back}\n"


PARA = "logits = model.predict_paraphrase(*pair_inputs(batch, device)).view(-1)"
KL = "            loss = loss + F.kl_div(F.log_softmax(scores, dim=-1), {}, {})\n" + BACK

CASES = {
    "only BERT": ((MAKE, MAKE.replace("model.p", "model.bert.p")), ONLY_BERT),
    "BERT and heads by name": (
        (MAKE, MAKE.replace("model.parameters()", "[*model.bert.parameters(), *heads_of(model)]")), None),
    "another optimizer for the heads": (
        (MAKE, MAKE.replace("model.p", "model.bert.p") + "\n    heads = AdamW(head_parameters(model), lr=1e-3)"), None),
    "a group added": (
        (MAKE, MAKE.replace("model.p", "model.bert.p") + '\n    optimizer.add_param_group({"params": heads})'), None),
    "a step every fourth batch, zero every batch": (loss_then(every_fourth("optimizer.step()")), ZERO_BEFORE),
    "both every fourth batch": (
        (*loss_then(every_fourth("optimizer.step(); optimizer.zero_grad()")), ZERO, ZERO.partition("\n")[2]), None),
    "a schedule's step every fourth batch": (
        loss_then(f"{BACK}            if n % 4 == 0:\n                scheduler.step()\n"), None),
    "clipped after the step": (loss_then(BACK + CLIP), CLIPPED),
    "clipped before backward": (loss_then(CLIP + BACK), CLIPPED),
    "clipped between": (loss_then(BACK.replace("            opt", f"{CLIP}            opt")), None),
    "clipped in the next pass": (
        loss_then("            optimizer.step()\n            optimizer.zero_grad()\n"
                  "            loss.backward()\n" + CLIP), None),
    "unscaled, clipped, stepped": (loss_then(f"{SCALED}{CLIP}            scaler.step(optimizer)\n"), None),
    "kept by reference": (best("kept = model.state_dict()", "model.load_state_dict(kept)"), KEPT),
    "kept as a copy": (best("kept = deepcopy(model.state_dict())", "model.load_state_dict(kept)"), None),
    "kept in a file": (best("kept = model.state_dict(); torch.save(kept, 'best.pt')",
                            "model.load_state_dict(torch.load('best.pt'))"), None),
    "given to another model": (best("kept = model.state_dict()", "teacher.load_state_dict(kept)"), None),
    "another head": ((PARA, PARA.replace("paraphrase", "similarity")), OTHER_HEAD),
    "log-probabilities as the target": (
        loss_then(KL.format("F.log_softmax(teacher, dim=-1)", 'reduction="batchmean"')), LOG_TARGET),
    "and log_target": (
        loss_then(KL.format("F.log_softmax(teacher, dim=-1)", "log_target=True")), None),
    "probabilities as the target": (
        loss_then(KL.format("F.softmax(teacher, dim=-1)", 'reduction="batchmean"')), None),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_step_is_read(case, tmp_path):
    texts, name = CASES[case]
    expected = [f"heads: {name}"] if name else []
    assert complaints(verdicts(tmp_path, changed(example("course"), swap(*texts)), ["heads"])) == expected


def test_the_first_sentences_words_under_the_second_ones_mask_are_said(tmp_path):
    old = "        v = self.forward(input_ids_2, attention_mask_2)\n        features"
    files = changed(example("course"), swap(old, old.replace("input_ids_2", "input_ids_1")))
    assert complaints(verdicts(tmp_path, files, ["heads"])) == ["heads: the second sentence is not read"]


LOOP = "def train_multitask(args):\n    for i, batch in enumerate(loader):\n"
STEP = "        loss.backward()\n        optimizer.step()\n"
KEEPS = f"{LOOP}{STEP}        state = model.state_dict()\n    {{}}\n    model.load_state_dict(state)\n"
TWO = "def train(args):\n    a = AdamW(model.bert.parameters(), lr=1e-5)\n    {}\n" \
      "    loss = model.predict_sentiment(batch)\n    loss.backward()\n    a.step()\n    {}\n"  # fmt: skip
CLIPS = LOOP + "        loss.backward()\n        clip_grad_norm_(theirs, 1.0)\n        optimizer.step()\n" \
        "        clip_grad_norm_(heads, 1.0)\n        {}\n"  # fmt: skip
DRIVEN = "def train(args):\n    for batch in sts_loader:\n        u = model.predict_paraphrase(*next(para))\n" \
         "        v = model(batch)\n        loss = F.mse_loss({}, y)\n" + STEP  # fmt: skip
RARE = LOOP + "        optimizer.zero_grad()\n        loss.backward()\n        {}\n        if (i + 1) % 4 == 0:\n" \
       "            optimizer.step()\n"  # fmt: skip
KL_DIV = "{}\n\ndef smart(a, b):\n    return kl_div(F.log_softmax(a, -1), F.log_softmax(b, -1))\n"
PAIRS = {  # the function → a file that is right, and one that is wrong
    kept_by_reference: (KEEPS.format("state = torch.load('best.pt')"), KEEPS.format("pass")),
    only_bert: (TWO.format("b = AdamW(params=heads, lr=1e-3)", "b.step()"), TWO.format("pass", "pass")),
    clipped_in_vain: (CLIPS.format("other_optimizer.step()"), CLIPS.format("pass")),
    other_head: (DRIVEN.format("5 * F.cosine_similarity(v, w)"), DRIVEN.format("u")),
    zeroed_before: (RARE.format("grads.append([p.grad.clone() for p in params])"), RARE.format("pass")),
    log_target: (
        KL_DIV.format("kl_div = nn.KLDivLoss(log_target=True)"),
        KL_DIV.format("from torch.nn.functional import kl_div"),
    ),
}


@pytest.mark.parametrize("function", PAIRS, ids=lambda function: function.__name__)
def test_a_right_loop_that_looks_like_a_wrong_one_is_not_named(function, tmp_path):
    project = SimpleNamespace(root=tmp_path, imports=SimpleNamespace(reached=[]))
    for text, named in zip(PAIRS[function], (False, True), strict=True):
        file = tmp_path / f"train_{named}.py"  # trees are cached by the file's name
        project.imports.reached = [file]
        file.write_text(text)
        assert (function(project) is not None) == named, text
