"""What is right in other words gets no complaint: BERT and AdamW, written otherwise, and right mistakes beside them."""

import pytest

from tests.mutants.sanity_bert import (
    BIASED,
    C_DECAY,
    C_DROP,
    C_FIRST_CALL,
    C_MASK,
    C_SCALE,
    C_SECOND_CALL,
    C_SOFTMAX,
    C_UPDATE,
    CLOSED,
    COURSE_EMBED_NORM,
    COURSE_NORMS,
    E_DECAY,
    E_SQUARE,
    E_UPDATE,
    MASK_10000,
    O_GELU,
    O_SCORES,
    O_SOFTMAX,
    own_norm,
    sources,
)  # fmt: skip
from tests.mutants.test_sanity_bert import touched
from tests.sanity.making import BERT, OPTIMIZER, Swaps, changed, complaints, swap, verdicts

C_TYPES = """        tk_type_ids = torch.zeros(input_shape, dtype=torch.long, device=input_ids.device)
        tk_type_embeds = self.tk_type_embedding(tk_type_ids)
"""
C_PROJECTIONS = """        key_layer = self.transform(hidden_states, self.key)
        value_layer = self.transform(hidden_states, self.value)
        query_layer = self.transform(hidden_states, self.query)
"""
C_EFFICIENT = """                step_size = alpha
                if group["correct_bias"]:
                    step_size = alpha * math.sqrt(1 - beta2 ** state["step"]) / (1 - beta1 ** state["step"])
"""
C_AFTER = f"""{C_UPDATE}

                # decay, apart from the gradient
                {C_DECAY}"""
TEXTBOOK = """                t = state["step"]
                m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
"""
O_PROJECTIONS = """        q = self.transform(hidden_states, self.query)
        k = self.transform(hidden_states, self.key)
        v = self.transform(hidden_states, self.value)
"""

LORA = """class LoRALinear(nn.Linear):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.lora_A = nn.Parameter(torch.randn(4, self.in_features))
        self.lora_B = nn.Parameter(torch.zeros(self.out_features, 4))
        self.weight.requires_grad = self.bias.requires_grad = False

    def forward(self, x):
        return super().forward(x) + 2 * (x @ self.lora_A.T @ self.lora_B.T)


"""

# fmt: off
JOINED = """        self.qkv = nn.Linear(config.hidden_size, 3 * self.all_head_size)
        self._register_load_state_dict_pre_hook(self.join)
"""
JOIN = """    def join(self, weights, prefix, *_):
        for kind in ("weight", "bias"):
            parts = [weights.pop(f"{prefix}{name}.{kind}", None) for name in ("query", "key", "value")]
            if parts[0] is not None:
                weights[f"{prefix}qkv.{kind}"] = torch.cat(parts)

    def transform(self, x, linear_layer):"""
SPLIT = """        q, k, v = self.qkv(hidden_states).chunk(3, dim=-1)
        same = nn.Identity()
        key_layer, value_layer, query_layer = (self.transform(x, same) for x in (k, v, q))
"""


def joined(order: str = "q, k, v") -> Swaps:
    """One layer for Q, K and V, which joins the published weights when they are loaded."""
    made = (
        "        self.query = nn.Linear(config.hidden_size, self.all_head_size)\n"
        "        self.key = nn.Linear(config.hidden_size, self.all_head_size)\n"
        "        self.value = nn.Linear(config.hidden_size, self.all_head_size)\n"
    )
    transform = "    def transform(self, x, linear_layer):"
    return swap(made, JOINED, transform, JOIN, C_PROJECTIONS, SPLIT.replace("q, k, v =", f"{order} ="))


RIGHT = (  # (what is written otherwise, style, swaps)
    ("nothing", "course", ()),
    ("nothing", "einsum", ()),
    ("nothing", "ours", ()),
    ("AdamW by the textbook", "course",
     swap(C_EFFICIENT, TEXTBOOK, C_UPDATE, 'p.data = p.data - alpha * m_hat / (torch.sqrt(v_hat) + group["eps"])')),
    ("AdamW by the efficient form", "einsum",
     swap('                    mean = mean / (1 - b1 ** memory["t"])\n',
         '                    lr = lr / (1 - b1 ** memory["t"])\n',
          E_SQUARE, 'lr = lr * (1 - b2 ** memory["t"]) ** 0.5',
          'lr, eps = group["lr"], group["eps"]', 'eps = group["eps"]',
          'memory = self.state[p]', 'memory, lr = self.state[p], group["lr"]')),
    ("decay before the update", "course",
     swap(C_AFTER, f"{C_DECAY}\n                {C_UPDATE}")),
    ("decay before the update, by the textbook", "course",
     swap(C_EFFICIENT, TEXTBOOK,
          C_AFTER, f'{C_DECAY}\n                p.data.addcdiv_(m_hat, v_hat.sqrt() + group["eps"], value=-alpha)')),
    ("decay after the update, by the textbook", "einsum",
     swap(f"                {E_DECAY}\n", "", E_UPDATE, f"{E_UPDATE}\n                {E_DECAY}")),
    ("decay from the old value", "course",
     swap(C_UPDATE, f"old = p.data\n                {C_UPDATE}", C_DECAY, C_DECAY.replace("* p.data", "* old"))),
    ("decay from the old value, by the textbook", "einsum",
     swap(f"                {E_DECAY}\n", "",
          E_UPDATE, 'p.sub_(lr * (mean / (square.sqrt() + eps) + group["weight_decay"] * p))')),
    ("always corrected", "course", swap('if group["correct_bias"]:', "if True:")),
    ("decay only where there is some", "einsum", swap(E_DECAY,
        f'if group["weight_decay"] > 0:\n                    {E_DECAY}')),
    ("mask before the scaling", "course",
     swap(f"        {C_SCALE}\n", "", C_MASK, f"{C_MASK}\n        {C_SCALE}")),
    ("−1e9 in the mask", "course", swap(MASK_10000, MASK_10000.replace("-10000.0", "-1e9"))),
    ("−1e10 in the mask", "course", swap(MASK_10000, MASK_10000.replace("-10000.0", "-1e10"))),
    ("the dtype's minimum in the mask", "course",
     swap(MASK_10000, MASK_10000.replace("-10000.0", "torch.finfo(dtype).min"))),
    ("−∞ in the mask", "course",
     swap(MASK_10000,
         'torch.zeros_like(extended_attention_mask).masked_fill(extended_attention_mask == 0, float("-inf"))')),
    ("a boolean mask", "course",
     swap(C_MASK, "S = S.masked_fill(~attention_mask, -math.inf)", MASK_10000, "extended_attention_mask.bool()")),
    ("a boolean mask, true at pads", "course",
     swap(C_MASK, "S = S.masked_fill(attention_mask, -math.inf)", MASK_10000, "extended_attention_mask == 0")),
    ("state by torch.zeros", "course",
     swap('state["m"] = torch.zeros_like(p.data)', 'state["m"] = torch.zeros(grad.size())',
          'state["v"] = torch.zeros_like(p.data)', 'state["v"] = torch.zeros(grad.size())',
          'beta1 * state["m"] + (1 - beta1) * grad', 'state["m"].lerp(grad, 1 - beta1)')),
    ("gradients only in training", "course",
     swap("    def forward(self, input_ids, attention_mask):\n",
          "    def forward(self, input_ids, attention_mask):\n"
          "        with torch.set_grad_enabled(self.training):\n"
          "            return self._forward(input_ids, attention_mask)\n\n"
          "    def _forward(self, input_ids, attention_mask):\n")),
    ("masked_fill with −∞", "course", swap(C_MASK, "S = S.masked_fill(attention_mask < 0, -math.inf)")),
    ("masked_fill with −1e9", "ours", swap(O_SCORES, O_SCORES.replace(" + mask", ""),
     O_SOFTMAX, "scores = scores.masked_fill(mask < 0, -1e9)\n    " + O_SOFTMAX)),
    ("torch.where", "course",
     swap(C_MASK, "S = torch.where(attention_mask < 0, torch.finfo(S.dtype).min, S)")),
    ("q and k each by D^¼", "course",
     swap(f"        {C_SCALE}\n", "", "S = torch.matmul(query, key.permute(0, 1, 3, 2))",
          "D = self.attention_head_size\n"
          "        S = torch.matmul(query / D**0.25, key.permute(0, 1, 3, 2) / D**0.25)")),
    ("q scaled first", "ours",
     swap(O_SCORES, "scores = (q / math.sqrt(D)) @ k.transpose(-2, -1) + mask")),
    ("bmm", "course",
     swap("S = torch.matmul(query, key.permute(0, 1, 3, 2))",
          "b, h, t, d = query.shape\n"
          "        S = torch.bmm(query.reshape(-1, t, d), key.reshape(-1, t, d).transpose(1, 2)).view(b, h, t, t)")),
    ("einsum", "ours", swap(O_SCORES, 'scores = torch.einsum("bhqd,bhkd->bhqk", q, k) / D**0.5 + mask')),
    ("scaled_dot_product_attention", "course",
     swap(C_SCALE, "p = self.dropout.p if self.training else 0.0", C_MASK, "S = None",
         f"        {C_SOFTMAX}\n{C_DROP}", "",
          "torch.matmul(probs, value)",
          "F.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask, dropout_p=p)")),
    ("scaled_dot_product_attention", "ours", swap('ATTENTION[attention]', 'ATTENTION["sdpa"]')),
    ("fused projections", "course",
     swap(C_PROJECTIONS,
          "        weight = torch.cat([self.query.weight, self.key.weight, self.value.weight])\n"
          "        bias = torch.cat([self.query.bias, self.key.bias, self.value.bias])\n"
          "        fused = F.linear(hidden_states, weight, bias).chunk(3, dim=-1)\n"
          "        query_layer, key_layer, value_layer = (self.transform(x, nn.Identity()) for x in fused)\n")),
    ("projections one by one", "einsum",
     swap("fused = F.linear(x, weight, bias)", "fused = torch.cat([layer(x) for layer in layers], dim=-1)")),
    ("more arguments, with defaults", "course",
     swap("class BertSelfAttention(nn.Module):\n    def __init__(self, config):",
          "class BertSelfAttention(nn.Module):\n    def __init__(self, config, scale=True, adapter=None):",
          "class BertLayer(nn.Module):\n    def __init__(self, config):",
          "class BertLayer(nn.Module):\n    def __init__(self, config, layer_id=0, *, use_pal=False):",
          "        super().__init__(config)\n        self.config = config",
              "        super().__init__(config)\n        self.pal = pal",
          "    def __init__(self, config):\n        super().__init__(config)",
              "    def __init__(self, config, pal=None):\n        super().__init__(config)",
          "correct_bias: bool = True,\n", "correct_bias: bool = True,\n        max_grad_norm: float | None = None,\n")),
    ("token types always zero", "ours",
     swap("def embed(self, input_ids: Tensor, token_type_ids: Tensor | None = None) -> Tensor:",
         "def embed(self, input_ids: Tensor) -> Tensor:",
          "        if token_type_ids is None:\n            token_type_ids", "        token_type_ids",
          "        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None\n",
          "        self, input_ids: Tensor, attention_mask: Tensor\n",
          "self.embed(input_ids, token_type_ids)", "self.embed(input_ids)")),
    ("token types always zero", "einsum",
     swap("embed(self, input_ids: Tensor, token_type_ids: Tensor | None = None)", "embed(self, input_ids: Tensor)",
          "torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids", "torch.zeros_like(input_ids)",
          "attention_mask: Tensor, token_type_ids: Tensor | None = None)", "attention_mask: Tensor)",
          "self.embed(input_ids, token_type_ids)", "self.embed(input_ids)")),
    ("a softmax by hand", "course",
     swap(C_SOFTMAX,
         "probs = torch.exp(S - S.amax(-1, keepdim=True))\n        probs = probs / probs.sum(-1, keepdim=True)")),
    ("a LayerNorm by hand", "course", own_norm(BIASED, *COURSE_NORMS, COURSE_EMBED_NORM)),
    ("GELU by hand", "ours", swap(O_GELU,
        "(lambda x: x * (1 + torch.erf(x / math.sqrt(2))) / 2)(self.interm_dense(attended))")),
    ("no add_norm", "course",
     swap(C_FIRST_CALL, CLOSED.format(x="hidden_states", f="attn", which="attention"),
          C_SECOND_CALL, CLOSED.format(x="attn_out", f="interm", which="out"))),
    ("LoRA in the projections", "course",
     swap("class BertSelfAttention(nn.Module):", LORA + "class BertSelfAttention(nn.Module):",
          "self.query = nn.Linear(", "self.query = LoRALinear(",
          "self.value = nn.Linear(", "self.value = LoRALinear(")),
    ("one layer for Q, K and V", "course", joined()),
    ("positions by arange, [CLS] by narrow", "course",
     swap("self.position_ids[:, :seq_length]", "torch.arange(seq_length, device=input_ids.device).expand(input_shape)",
          "first_tk = sequence_output[:, 0]", "first_tk = sequence_output.narrow(1, 0, 1).squeeze(1)")),
)
# fmt: on


REPEATS = {  # right in the way of another row, which is in the default run
    "course: −1e9 in the mask", "course: −1e10 in the mask", "course: a boolean mask", "ours: masked_fill with −1e9",
    "course: torch.where", "ours: q scaled first", "course: bmm", "einsum: projections one by one",
    "einsum: token types always zero", "einsum: decay after the update, by the textbook",
}  # fmt: skip
assert {f"{style}: {says}" for says, style, _ in RIGHT} >= REPEATS


def cell(says: str, style: str, swaps: Swaps):
    name = f"{style}: {says}"
    return pytest.param(style, swaps, id=name, marks=pytest.mark.slow if name in REPEATS else ())


@pytest.mark.parametrize("style, swaps", [cell(*row) for row in RIGHT])
def test_right_in_other_words_gets_no_complaint(style, swaps, tmp_path):
    files = changed(sources(style), swaps)
    assert complaints(verdicts(tmp_path, files, touched(style, files) or BERT + OPTIMIZER)) == []


@pytest.mark.parametrize(
    "order, name",
    [
        ("k, q, v", "query and key are swapped"),
        ("k, v, q", "Q, K and V are taken in another order than the weights have"),
    ],
)
def test_one_layer_for_q_k_and_v_is_judged(order, name, tmp_path):
    files = changed(sources("course"), joined(order))
    assert complaints(verdicts(tmp_path, files, ["attention"])) == [f"attention: {name}"]
