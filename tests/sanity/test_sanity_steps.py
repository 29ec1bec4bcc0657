"""What is read of the step: which weights it moves, where gradients are cut and set to zero, and what is kept."""

import pytest

from minbert.sanity.losses import CLIPPED, KEPT, LOG_TARGET, ONLY_BERT, OTHER_HEAD, ZERO_BEFORE
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
