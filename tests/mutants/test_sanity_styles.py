"""Right projects in unusual styles get no complaint, and one mistake in each of them is named.

The styles are the example projects in tests/sanity_projects: a cross-encoder with its own batches, a package below
src/ with names and masks of its own, a Lightning module, an exported notebook, code for several GPUs, layers that are
told a task and return pairs, losses of one's own, and heads that are built and called by keyword.
"""

import pytest

from tests.sanity.making import BERT, OPTIMIZER, changed, complaints, example, swap, verdicts, why_not

ALL = (*BERT, *OPTIMIZER, "heads", "evaluation")
STYLES = {  # style → its mistakes: what is said of it, and the swaps that make it
    "cross_encoder": {
        "heads: sigmoid twice for paraphrase": swap(
            "return self.paraphrase_head(self(input_ids, attention_mask))",
            "return torch.sigmoid(self.paraphrase_head(self(input_ids, attention_mask)))"),
        "heads: softmax before the cross-entropy": swap(
            "return self.sentiment_head(self(input_ids, attention_mask))",
            "return self.sentiment_head(self(input_ids, attention_mask)).softmax(-1)"),
        "evaluation: dropout is on while evaluating": swap("    model.eval()\n    x, sst_ids", "    x, sst_ids"),
        "evaluation: labels of similarity are cut to integers when they are read": swap(
            '"similarity", float))', '"similarity", lambda text: int(float(text))))'),
    },
    "lightning": {
        "heads: the second sentence is not read": swap(
            "cosine_similarity(self(ids1, mask1), self(ids2, mask2))",
            "cosine_similarity(self(ids1, mask1), self(ids1, mask1))"),
        "heads: the first sentence's mask is used for the second": swap(
            "self.pair(self(ids1, mask1), self(ids2, mask2))", "self.pair(self(ids1, mask1), self(ids2, mask1))"),
        "heads: softmax inside the loss of sentiment": swap(
            'sst["attention_mask"]), sst["labels"])', 'sst["attention_mask"]).softmax(-1), sst["labels"])'),
        "heads: the loss is computed from rounded or detached outputs": swap(
            'self.predict_similarity(*self.two(sts)), sts', 'self.predict_similarity(*self.two(sts)).round(), sts'),
    },
    "keywords": {
        "heads: pads are part of the sentence's vector": swap(
            "real = ids.ne(self.pad).unsqueeze(-1) & mask.bool().unsqueeze(-1)",
            "real = torch.ones_like(mask).unsqueeze(-1)"),
        "heads: dropout is on in evaluation": swap(
            'return self.drop((out["last_hidden_state"] * real).sum(1) / real.sum(1))',
            'return F.dropout((out["last_hidden_state"] * real).sum(1) / real.sum(1), 0.2)'),
        "heads: gradients are never set to zero": swap(
            "            optimizer.zero_grad()\n            logits = model.predict_sentiment(\n",
            "            logits = model.predict_sentiment(\n"),
    },
    "own_losses": {
        "heads: nll_loss of raw logits": swap("return self.log_softmax(self.sst", "return (self.sst"),
        "heads: softmax before the cross-entropy": swap(
            "return self.para(self.features(a, b))", "return self.para(self.features(a, b)).softmax(-1)"),
        "heads: the model is never put into training mode": swap(
            "        model.train()\n        for sst, para", "        for sst, para"),
        "evaluation: wrong": swap(  # bent, and then rounded: placed, not named
            "sts = (5 * torch.sigmoid(raw)).flatten()", "sts = (5 * torch.sigmoid(raw)).round().flatten()"),
    },
    "on_a_gpu": {
        "heads: the gradient is computed twice: backward beside the scaled backward": swap(
            "            if args.amp:\n                scaler.scale(loss).backward()",
            "            loss.backward()\n            if args.amp:\n                scaler.scale(loss).backward()"),
        "heads: the examples of a batch are mixed": swap(
            "return self.out[2](u * v)", "return self.out[2](u * v / (u * v).norm(dim=0))"),
        "optimizer: the state is put on the GPU, wherever the parameter is": swap(
            'state["m"] = torch.zeros_like(p.data)', 'state["m"] = torch.zeros(p.shape, device="cuda")'),
    },
    "task_layers": {
        "attention: no dropout on the attention probabilities": swap(
            "context = self.dropout(probabilities) @ v\n        return context.permute",
            "context = probabilities @ v\n        return context.permute"),
        "heads: similarity is not on the labels' scale": swap(
            "return (F.cosine_similarity(u, v) + 1) * 2.5", "return F.cosine_similarity(u, v)"),
        "layer: the second residual is taken from the layer's input": swap(
            "return self.out_layer_norm(x + y), probabilities",
            "return self.out_layer_norm(hidden_states + y), probabilities"),
    },
    "own_names": {
        "model: no tanh in the pooler": swap("torch.tanh(self.pooler_dense(x[:, 0]))", "self.pooler_dense(x[:, 0])"),
        "attention: the mask has the wrong sign": swap(
            "scores.masked_fill(~keep[:, None, None, :]", "scores.masked_fill(keep[:, None, None, :]"),
        "layer: dropout before the dense layer (after the attention only)": swap(
            "x + self.dropout(self.attention_dense(attended))", "x + self.attention_dense(self.dropout(attended))"),
        "optimizer: coupled weight decay: λp is added to the gradient (L2)": swap(
            'p.mul_(1 - lr * group["weight_decay"])', "pass",
            'state["m"].lerp_(p.grad',
            'p.grad.add_(p, alpha=group["weight_decay"])\n                state["m"].lerp_(p.grad'),
        "heads: sigmoid twice for paraphrase": swap(
            "(torch.cat((u, v, u * v), -1)).flatten()", "(torch.cat((u, v, u * v), -1)).flatten().sigmoid()"),
    },
    "notebook": {
        "model: the last token is pooled instead of [CLS]": swap(
            "self.pooler_dense(h[:, 0]).tanh()", "self.pooler_dense(h[:, -1]).tanh()"),
        "heads: classifier.py: softmax before the cross-entropy": swap(
            'self.out(self.bert(ids, mask)["pooler_output"])',
            'self.out(self.bert(ids, mask)["pooler_output"]).softmax(-1)'),
        "attention: softmax over the wrong axis": swap(
            "/ math.sqrt(self.d) + mask, -1)", "/ math.sqrt(self.d) + mask, -2)"),
    },
}  # fmt: skip


def files(style: str, complaint: str) -> dict[str, str]:
    old = {path: text for path, text in example(style).items() if path.startswith("old/")}  # a file that nobody uses
    used = {path: text for path, text in example(style).items() if path not in old}
    return changed(used, STYLES[style][complaint] if complaint else ()) | old


@pytest.mark.parametrize("style", STYLES)
def test_a_right_project_in_an_unusual_style_gets_no_complaint(style, tmp_path):
    results = verdicts(tmp_path, files(style, ""), ALL)
    assert complaints(results) == [] and why_not(results) == []


@pytest.mark.slow
@pytest.mark.parametrize("style, complaint", [(style, complaint) for style in STYLES for complaint in STYLES[style]])
def test_a_mistake_in_an_unusual_style_is_named(style, complaint, tmp_path):
    assert complaints(verdicts(tmp_path, files(style, complaint), [complaint.partition(":")[0]])) == [complaint]


def test_of_several_classes_and_files_the_one_in_use_is_judged(tmp_path):
    """BertSelfAttention is an earlier attempt in task_layers, and old/bert.py a copy with a mistake."""
    assert "class BertSelfAttention" in example("task_layers")["bert.py"]
    project = files("task_layers", "attention: no dropout on the attention probabilities")
    mistake = verdicts(tmp_path, project, ["attention"])["attention"]["mistakes"][0]
    assert (mistake["where"], mistake["file"]) == ("Attention.forward", "bert.py")
