"""How mistakes in BERT and AdamW look in files: replaced text in three right projects, written in three styles.

The example projects "course" and "einsum", and our own package ("ours"). The table is independent of the one by which
the check diagnoses. It is used by test_sanity_bert.py.
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from tests.sanity.making import PROJECTS, ROOT, Swaps, bare, swap

STYLES = ("course", "einsum", "ours")


@cache
def sources(style: str) -> dict[str, str]:
    """The files of a right project that BERT and the optimizer are in: path from its root → text."""
    root, folder = (ROOT, "minbert/") if style == "ours" else (PROJECTS / style, "")
    modules = ("__init__", "bert", "base_bert", "config", "errors", "files", "optimizer", "utils")
    names = (f"{folder}{name}.py" for name in modules)
    texts = {name: (root / name).read_text(encoding="utf-8") for name in names if (root / name).exists()}
    return {name: bare(text) for name, text in texts.items()} if style == "ours" else texts


class Injection(NamedTuple):
    """How a mistake is made. says: how, in a word. mistake: the name that it must be given.

    The others: the swaps that make it in each style, or nothing where it cannot be made.
    """

    says: str
    mistake: str
    course: Swaps = ()
    einsum: Swaps = ()
    ours: Swaps = ()


# A LayerNorm of one's own, put in front of a file's first class.
OWN_NORM = """class OwnNorm(nn.Module):
    def __init__(self, size, eps=1e-12):
        super().__init__()
        self.weight, self.bias, self.eps = nn.Parameter(torch.ones(size)), nn.Parameter(torch.zeros(size)), eps

    def forward(self, x):
        centred = x - x.mean(-1, keepdim=True)
        return {formula} * self.weight + self.bias


class BertSelfAttention(nn.Module):"""
UNBIASED = OWN_NORM.format(formula="centred / (x.var(-1, keepdim=True) + self.eps).sqrt()")
BIASED = OWN_NORM.format(formula="centred / (x.var(-1, keepdim=True, unbiased=False) + self.eps).sqrt()")
RMS = OWN_NORM.format(formula="x / (x.pow(2).mean(-1, keepdim=True) + self.eps).sqrt() + 0 * centred")


def own_norm(source: str, *norms: str) -> Swaps:
    """Swaps that put OwnNorm in the place of the LayerNorms that `norms` assign."""
    swaps = [("class BertSelfAttention(nn.Module):", source)]
    return (*swaps, *((norm, norm.replace("nn.LayerNorm", "OwnNorm")) for norm in norms))


COURSE_NORMS = (
    "self.attention_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)",
    "self.out_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)",
)
COURSE_EMBED_NORM = "self.embed_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)"
EINSUM_NORMS = "self.attention_layer_norm, self.out_layer_norm = nn.LayerNorm(C, eps), nn.LayerNorm(C, eps)"
EINSUM_EMBED_NORM = "self.embed_layer_norm = nn.LayerNorm(C, config.layer_norm_eps)"
OUR_NORMS = (
    "self.attention_layer_norm = nn.LayerNorm(C, eps=config.layer_norm_eps)",
    "self.out_layer_norm = nn.LayerNorm(C, eps=config.layer_norm_eps)",
)
OUR_EMBED_NORM = "self.embed_layer_norm = nn.LayerNorm(C, eps=config.layer_norm_eps)"


def eps_1e5(*norms: str) -> Swaps:
    """The same LayerNorms with PyTorch's eps."""
    return tuple((norm, re.sub(r", (eps=)?config\.layer_norm_eps", "", norm)) for norm in norms)


EPS = "LayerNorm eps is 1e-5, not 1e-12"
FIRST, SECOND = " (after the attention only)", " (after the feed-forward only)"

# Right outputs, and nothing learns.
CUT_OFF = "the gradient is cut off in the attention (detach, .data or no_grad)"
NO_GRAD = "the forward pass runs without gradients (no_grad)"
# A sub-layer that closes with a LayerNorm that has no weight and bias.
BARE = "F.layer_norm({x} + self.{which}_dropout(self.{which}_dense({f})), {x}.shape[-1:], eps=1e-12)"

# Lines that more than one row replaces.
C_ATTEND = "    def forward(self, hidden_states, attention_mask):\n        key_layer"
E_ATTEND = "    def forward(self, hidden_states: Tensor, attention_mask: Tensor) -> Tensor:\n        q, k, v ="
C_SCALE = "S = S / math.sqrt(self.attention_head_size)"
C_MASK = "S = S + attention_mask"
C_SOFTMAX = "probs = nn.functional.softmax(S, dim=-1)"
C_DROP = "        probs = self.dropout(probs)\n"
C_SPLIT = "proj = proj.view(bs, seq_len, self.num_attention_heads, self.attention_head_size)"
C_MERGE = "        V_prime = V_prime.permute(0, 2, 1, 3).contiguous()\n"
C_CLOSE = "return ln_layer(input + transformed)"
C_DROPOUT = "        transformed = dropout(transformed)\n"
C_GELU = "self.interm_af = F.gelu"
C_FIRST_CALL = """self.add_norm(
            hidden_states, attn, self.attention_dense, self.attention_dropout, self.attention_layer_norm
        )"""
C_SECOND_CALL = "self.add_norm(attn_out, interm, self.out_dense, self.out_dropout, self.out_layer_norm)"
C_RATES = tuple(
    (f"self.{name}_dropout = nn.Dropout(config.hidden", f"self.{name}_dropout = nn.Dropout(config.attention_probs")
    for name in ("attention", "out")
)
C_SECOND = "self.add_norm(attn_out, interm,"
C_SUM = "embeds = inputs_embeds + pos_embeds + tk_type_embeds"
C_PLACES = "self.position_ids[:, :seq_length]"
C_EXTENDED = "extended_attention_mask = get_extended"
C_LAYERS = "for layer_module in self.bert_layers:"
C_RUN = "hidden_states = layer_module(hidden_states, extended_attention_mask)"
C_CLS = "first_tk = sequence_output[:, 0]"
MASK_10000 = "(1.0 - extended_attention_mask) * -10000.0"
C_UPDATE = 'p.data = p.data - step_size * m / (torch.sqrt(v) + group["eps"])'
C_DECAY = 'p.data = p.data - alpha * group["weight_decay"] * p.data'
C_STEP = 'alpha * math.sqrt(1 - beta2 ** state["step"]) / (1 - beta1 ** state["step"])'
E_SCORES = 'scores = einsum("bqhd,bkhd->bhqk", q, k) * self.head_size**-0.5'
E_MASK = 'scores = scores.masked_fill(attention_mask < 0, float("-inf"))'
E_WEIGHTS = "weights = F.dropout(torch.softmax(scores, -1), self.p, self.training)"
E_OUT = 'return einsum("bhqk,bkhd->bqhd", weights, v).flatten(2)'
E_SPLIT = "return fused.unflatten(-1, (3, self.heads, self.head_size)).unbind(2)"
E_FIRST = "x = self.attention_layer_norm(x + self.drop(mixed))"
E_SECOND = "return self.out_layer_norm(x + self.drop(fed))"
E_GELU = "inner = inner * 0.5 * (1 + torch.erf(inner / 2**0.5))"
E_DECAY = 'p.mul_(1 - lr * group["weight_decay"])'
E_UPDATE = "p.sub_(lr * mean / (square.sqrt() + eps))"
E_SQUARE = 'square = square / (1 - b2 ** memory["t"])'
O_SCORES = "scores = q @ k.transpose(-2, -1) / math.sqrt(D) + mask"
O_SOFTMAX = "probabilities = scores.softmax(dim=-1)"
O_OUT = "return dropout(probabilities) @ v"
O_RATE = "p = dropout.p if dropout.training else 0.0"
O_SPLIT = "return linear_layer(x).view(B, T, H, D).transpose(1, 2)"
O_CLOSE = "return ln_layer(input + dropout(dense_layer(output)))"
O_ATTEND = "self.add_norm(hidden_states, self.self_attention(hidden_states, mask),"
O_SECOND = "self.add_norm(attended, ffn, self.out_dense"
O_GELU = "F.gelu(self.interm_dense(attended))"
O_DECAY = "p.add_(p, alpha=-alpha * decay)"
O_STEP = "math.sqrt(1 - beta2**t) / (1 - beta1**t)"
O_UPDATE = "p.addcdiv_(m, v.sqrt().add_(eps), value=-alpha_t)"

# fmt: off
INJECTED = {  # part → how its mistakes are made
    "attention": (
    Injection("no √D", "scores are not divided by √D",
        swap(C_SCALE, "S = S * 1.0"),
        swap(E_SCORES, 'scores = einsum("bqhd,bkhd->bhqk", q, k)'),
        swap(O_SCORES, "scores = q @ k.transpose(-2, -1) + mask")),
    Injection("√C", "scores are divided by √C, not √D",
        swap(C_SCALE, "S = S / math.sqrt(self.all_head_size)"),
        swap(E_SCORES, E_SCORES.replace("self.head_size**", "(self.heads * self.head_size) **")),
        swap(O_SCORES, "scores = q @ k.transpose(-2, -1) / math.sqrt(D * q.shape[1]) + mask")),
    Injection("mask subtracted", "the mask has the wrong sign",
        swap(C_MASK, "S = S - attention_mask"),
        swap(E_MASK, E_MASK.replace("< 0", "== 0")),
        swap(O_SCORES, O_SCORES.replace("+ mask", "- mask"))),
    Injection("mask not used", "the mask is not used",
        swap(C_MASK, "S = S + 0"),
        swap(E_MASK, "scores = scores + 0"),
        swap(O_SCORES, O_SCORES.replace(" + mask", ""))),
    Injection("mask multiplied after the softmax", "the mask comes after the softmax",
        swap(C_MASK, "S = S + 0", C_SOFTMAX, C_SOFTMAX + "\n        probs = probs * (attention_mask == 0)"),
        swap(E_MASK, "scores = scores + 0",
             E_WEIGHTS, E_WEIGHTS + "\n        weights = weights * (attention_mask == 0)"),
        swap(O_SCORES, O_SCORES.replace(" + mask", ""), O_OUT,
             "return dropout(probabilities.masked_fill(mask < 0, 0.0)) @ v")),
    Injection("mask added after the softmax", "the mask comes after the softmax",
        swap(C_MASK, "S = S + 0", C_SOFTMAX, "probs = nn.functional.softmax(S, dim=-1) + attention_mask"),
        (),
        swap(O_SCORES, O_SCORES.replace(" + mask", ""), O_OUT, "return dropout(probabilities + mask) @ v")),
    Injection("softmax over the queries", "softmax over the wrong axis",
        swap(C_SOFTMAX, "probs = nn.functional.softmax(S, dim=-2)"),
        swap(E_WEIGHTS, E_WEIGHTS.replace("(scores, -1)", "(scores, 2)")),
        swap(O_SOFTMAX, O_SOFTMAX.replace("dim=-1", "dim=-2"))),
    Injection("softmax over the heads", "softmax over the heads",
        swap(C_SOFTMAX, "probs = nn.functional.softmax(S, dim=1)"),
        swap(E_WEIGHTS, E_WEIGHTS.replace("(scores, -1)", "(scores, 1)")),
        swap(O_SOFTMAX, O_SOFTMAX.replace("dim=-1", "dim=1"))),
    Injection("merged without the transpose", "heads are merged without the transpose",
        swap("bs, _, seq_len, _ = V_prime.shape", "bs, _, seq_len, _ = V_prime.shape", C_MERGE, ""),
        swap(E_OUT, 'return einsum("bhqk,bkhd->bhqd", weights, v).reshape(hidden_states.shape)'),
        swap("return heads.transpose(1, 2).flatten(2)", "return heads.reshape(hidden_states.shape)")),
    Injection("split as (D, H)", "heads are split as (D, H), not (H, D)",
        swap(C_SPLIT, "proj = proj.view(bs, seq_len, self.attention_head_size, self.num_attention_heads)",
             "proj = proj.permute(0, 2, 1, 3)", "proj = proj.permute(0, 3, 1, 2)"),
        swap(E_SPLIT, "q, k, v = fused.unflatten(-1, (3, self.head_size, self.heads)).unbind(2)\n"
                      "        return q.mT, k.mT, v.mT"),
        swap(O_SPLIT, "return linear_layer(x).view(B, T, D, H).permute(0, 3, 1, 2)")),
    Injection("split straight to (H, T, D)", "heads are split without the transpose",
        swap(C_SPLIT, "proj = proj.view(bs, self.num_attention_heads, seq_len, self.attention_head_size)",
             "proj = proj.permute(0, 2, 1, 3)", "proj = proj.contiguous()"),
        (),
        swap(O_SPLIT, "return linear_layer(x).view(B, H, T, D)")),
    Injection("no dropout", "no dropout on the attention probabilities",
        swap(C_DROP, ""),
        swap(E_WEIGHTS, "weights = torch.softmax(scores, -1)"),
        swap(O_OUT, "return probabilities @ v")),
    Injection("dropout on the scores", "dropout falls on the scores, before the softmax",
        swap(C_DROP, "", C_SOFTMAX, "probs = nn.functional.softmax(self.dropout(S), dim=-1)"),
        swap(E_WEIGHTS, "weights = torch.softmax(F.dropout(scores, self.p, self.training), -1)"),
        swap(O_OUT, "return dropout(scores).softmax(dim=-1) @ v")),
    Injection("dropout in evaluation", "attention dropout is active in evaluation",
        swap(C_DROP, "        probs = F.dropout(probs, self.dropout.p)\n"),
        swap(E_WEIGHTS, "weights = F.dropout(torch.softmax(scores, -1), self.p)"),
        swap(O_OUT, "return F.dropout(probabilities, dropout.p) @ v")),
    Injection("divided by D", "scores are divided by D, without the root",
        swap(C_SCALE, "S = S / self.attention_head_size")),
    Injection("multiplied", "scores are multiplied by √D", swap(C_SCALE, C_SCALE.replace("/", "*"))),
    Injection("√H", "scores are divided by √H", swap(C_SCALE, "S = S / math.sqrt(self.num_attention_heads)")),
    Injection("√T", "scores are divided by √T", swap(C_SCALE, "S = S / math.sqrt(S.shape[-1])")),
    Injection("mask multiplied", "the mask is multiplied, not added", swap(C_MASK, "S = S * attention_mask")),
    Injection("mask as 1 and 0", "the mask has the wrong sign",
        swap(C_MASK, "S = S.masked_fill(attention_mask == 0, -1e9)")),
    Injection("pads scored 0", "pads are set to zero before the softmax",
        swap(C_MASK, "S = S.masked_fill(attention_mask != 0, 0)")),
    Injection("softmax over the batch", "softmax over the batch", swap(C_SOFTMAX, C_SOFTMAX.replace("-1", "0"))),
    Injection("no softmax", "no softmax", swap(C_SOFTMAX, "probs = S")),
    Injection("KQᵀ", "query and key are swapped",
        swap("torch.matmul(query, key.permute(0, 1, 3, 2))", "torch.matmul(key, query.permute(0, 1, 3, 2))"),
        swap('"bqhd,bkhd->bhqk"', '"bkhd,bqhd->bhqk"')),
    Injection("q and v in each other's place", "query and value are swapped",
        swap("key_layer, query_layer, value_layer, att", "key_layer, value_layer, query_layer, att")),
    Injection("k and v in each other's place", "key and value are swapped",
        swap("key_layer, query_layer, value_layer, att", "value_layer, query_layer, key_layer, att")),
    Injection("q, k and v moved on by one", "Q, K and V are taken in another order than the weights have",
        swap("key_layer, query_layer, value_layer, att", "value_layer, key_layer, query_layer, att")),
    Injection("keys twice", "the key layer is used for the queries",
        swap("(hidden_states, self.query)", "(hidden_states, self.key)")),
    Injection("queries twice", "the query layer is used for the keys",
        swap("(hidden_states, self.key)", "(hidden_states, self.query)")),
    Injection("queries of the value layer", "the value layer is used for the queries",
        swap("(hidden_states, self.query)", "(hidden_states, self.value)"),
        (),
        swap("(hidden_states, self.query)", "(hidden_states, self.value)")),
    Injection("keys of the value layer", "the value layer is used for the keys",
        swap("(hidden_states, self.key)", "(hidden_states, self.value)"),
        (),
        swap("(hidden_states, self.key)", "(hidden_states, self.value)")),
    Injection("values of the query layer", "the query layer is used for the values",
        swap("(hidden_states, self.value)", "(hidden_states, self.query)"),
        (),
        swap("(hidden_states, self.value)", "(hidden_states, self.query)")),
    Injection("values of the key layer", "the key layer is used for the values",
        swap("(hidden_states, self.value)", "(hidden_states, self.key)"),
        swap("return fused.unflatten", "q, k, _ = fused.unflatten", ".unbind(2)", ".unbind(2)\n        return q, k, k"),
        swap("(hidden_states, self.value)", "(hidden_states, self.key)")),
    Injection("Pᵀ·V", "the probabilities are transposed before they weigh the values",
        swap("torch.matmul(probs, value)", "torch.matmul(probs.transpose(2, 3), value)"),
        swap('"bhqk,bkhd->bqhd"', '"bhkq,bkhd->bqhd"')),
    Injection("merged as (D, H)", "heads are merged as (D, H), not (H, D)",
        swap(C_MERGE, C_MERGE.replace("(0, 2, 1, 3)", "(0, 2, 3, 1)")),
        swap('"bhqk,bkhd->bqhd"', '"bhqk,bkhd->bqdh"')),
    Injection("split and merged as (D, H)", "heads are split as (D, H), not (H, D)",
        swap(C_SPLIT, "proj = proj.view(bs, seq_len, self.attention_head_size, self.num_attention_heads)",
             "proj = proj.permute(0, 2, 1, 3)", "proj = proj.permute(0, 3, 1, 2)",
             C_MERGE, C_MERGE.replace("(0, 2, 1, 3)", "(0, 2, 3, 1)"))),
    Injection("one head", "there is only one head",
        swap("self.num_attention_heads = config.num_attention_heads", "self.num_attention_heads = 1",
             "config.hidden_size / config.num_attention_heads", "config.hidden_size / 1")),
    Injection("one head, with √D", "there is only one head",
        swap("self.num_attention_heads = config.num_attention_heads", "self.num_attention_heads = 1",
             "config.hidden_size / config.num_attention_heads", "config.hidden_size / 1",
             C_SCALE, "S = S / 2")),  # the check's heads are 4 wide
    Injection("dropout but in training", "attention dropout is active in evaluation only",
        swap(C_DROP, "        probs = F.dropout(probs, self.dropout.p, not self.training)\n"),
        swap(E_WEIGHTS, E_WEIGHTS.replace("self.training", "not self.training"))),
    Injection("dropout on the output", "dropout falls on the attention's output, not on the probabilities",
        swap(C_DROP, "", "torch.matmul(probs, value)", "self.dropout(torch.matmul(probs, value))"),
        swap(E_WEIGHTS, "weights = torch.softmax(scores, -1)",
             E_OUT, E_OUT.replace("einsum", "F.dropout(einsum").replace(".f", ", self.p, self.training).f")),
        swap(O_OUT, "return dropout(probabilities @ v)")),
    Injection("dropout twice", "attention dropout is applied twice", swap(C_DROP, 2 * C_DROP)),
    Injection("dropout on the output too", "attention dropout is applied twice",
        swap("torch.matmul(probs, value)", "self.dropout(torch.matmul(probs, value))")),
    Injection("dropout on the scores too", "attention dropout is applied twice",
        swap(C_SOFTMAX, C_SOFTMAX.replace("(S,", "(self.dropout(S),"))),
    Injection("the other rate", "attention dropout uses the hidden layers' rate",
        swap("config.attention_probs_dropout_prob)", "config.hidden_dropout_prob)"),
        swap("config.attention_probs_dropout_prob", "config.hidden_dropout_prob"),
        swap("config.attention_probs_dropout_prob)", "config.hidden_dropout_prob)")),
    Injection("a residual of its own", "the residual is added inside the attention",
        swap("return attn_value", "return attn_value + hidden_states")),
    Injection("detached", CUT_OFF,
        swap(C_DROP, "        probs = self.dropout(probs.detach())\n"),
        swap(E_WEIGHTS, E_WEIGHTS.replace("(scores, -1)", "(scores, -1).data")),
        swap(O_OUT, "return dropout(probabilities).detach() @ v")),
    Injection("scores without gradients", CUT_OFF,
        swap("        S = torch.matmul(query, key.permute(0, 1, 3, 2))\n",
             "        with torch.no_grad():\n            S = torch.matmul(query, key.permute(0, 1, 3, 2))\n")),
    Injection("forward decorated", NO_GRAD,
        swap(C_ATTEND, "    @torch.no_grad()\n" + C_ATTEND), swap(E_ATTEND, "    @torch.no_grad()\n" + E_ATTEND)),
    Injection("fused, dropout in evaluation", "sdpa_attention drops out in evaluation", (), (),
        swap(O_RATE, "p = dropout.p")),
    Injection("fused, no dropout", "sdpa_attention never drops out", (), (), swap(O_RATE, "p = 0.0")),
    Injection("fused, no mask", "sdpa_attention does not use the mask", (), (),
        swap("attn_mask=mask", "attn_mask=None")),
    ),
    "layer": (
    Injection("LayerNorm before the sub-layer", "LayerNorm before the sub-layer, not after the residual",
        swap(C_CLOSE, "return input + transformed",
             "attn = self.self_attention(hidden_states, attention_mask)",
             "attn = self.self_attention(self.attention_layer_norm(hidden_states), attention_mask)",
             "self.interm_dense(attn_out)", "self.interm_dense(self.out_layer_norm(attn_out))"),
        swap("self.self_attention(x, attention_mask)",
             "self.self_attention(self.attention_layer_norm(x), attention_mask)",
             E_FIRST, "x = x + self.drop(mixed)",
             "inner = self.interm_dense(x)", "inner = self.interm_dense(self.out_layer_norm(x))",
             E_SECOND, "return x + self.drop(fed)"),
        swap(O_CLOSE, "return input + dropout(dense_layer(output))",
             "self.self_attention(hidden_states, mask)",
             "self.self_attention(self.attention_layer_norm(hidden_states), mask)",
             O_GELU, "F.gelu(self.interm_dense(self.out_layer_norm(attended)))")),
    Injection("eps 1e-5 in both", EPS,
        eps_1e5(*COURSE_NORMS),
        swap(EINSUM_NORMS, EINSUM_NORMS.replace("(C, eps)", "(C)")),
        eps_1e5(*OUR_NORMS)),
    Injection("eps 1e-5 in the first", EPS + FIRST,
        eps_1e5(COURSE_NORMS[0]),
        swap(EINSUM_NORMS, EINSUM_NORMS.replace("(C, eps)", "(C)", 1)),
        eps_1e5(OUR_NORMS[0])),
    Injection("eps 1e-5 in the second", EPS + SECOND,
        eps_1e5(COURSE_NORMS[1]),
        (),
        eps_1e5(OUR_NORMS[1])),
    Injection("unbiased variance", "LayerNorm divides by the unbiased variance",
        own_norm(UNBIASED, *COURSE_NORMS), own_norm(UNBIASED, EINSUM_NORMS), own_norm(UNBIASED, *OUR_NORMS)),
    Injection("norm by F", "LayerNorm without its weight and bias",
        swap(C_CLOSE, "return F.layer_norm(input + transformed, ln_layer.normalized_shape, eps=ln_layer.eps)"),
        (),
        swap(O_CLOSE, "x = input + dropout(dense_layer(output))\n"
                      "        return F.layer_norm(x, x.shape[-1:], eps=ln_layer.eps)")),
    Injection("norm by F in the first", "LayerNorm without its weight and bias" + FIRST,
        swap(C_FIRST_CALL, BARE.format(x="hidden_states", f="attn", which="attention"))),
    Injection("norm by F in the second", "LayerNorm without its weight and bias" + SECOND,
        swap(C_SECOND_CALL, BARE.format(x="attn_out", f="interm", which="out"))),
    Injection("forward decorated", NO_GRAD,
        swap("    def forward(self, hidden_states, attention_mask):\n        attn =",
             "    @torch.no_grad()\n    def forward(self, hidden_states, attention_mask):\n        attn =")),
    Injection("tanh GELU", "GELU by its tanh approximation",
        swap("self.interm_af = F.gelu", 'self.interm_af = nn.GELU(approximate="tanh")'),
        swap(E_GELU, "inner = 0.5 * inner * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (inner + 0.044715 * inner**3)))"),
        swap(O_GELU, 'F.gelu(self.interm_dense(attended), approximate="tanh")')),
    Injection("ReLU", "ReLU instead of GELU",
        swap("self.interm_af = F.gelu", "self.interm_af = F.relu"),
        swap(E_GELU, "inner = inner.clamp_min(0)"),
        swap(O_GELU, "F.relu(self.interm_dense(attended))")),
    Injection("no activation", "no activation in the feed-forward",
        swap("interm = self.interm_af(self.interm_dense(attn_out))", "interm = self.interm_dense(attn_out)"),
        swap(E_GELU, "inner = inner * 1"),
        swap(O_GELU, "self.interm_dense(attended)")),
    Injection("second residual from the input", "the second residual is taken from the layer's input",
        swap(C_SECOND, "self.add_norm(hidden_states, interm,"),
        swap(E_SECOND, E_SECOND.replace("(x +", "(hidden_states +")),
        swap(O_SECOND, O_SECOND.replace("(attended", "(hidden_states"))),
    Injection("LayerNorm before the attention", "LayerNorm before the sub-layer, not after the residual" + FIRST,
        swap(C_FIRST_CALL, "hidden_states + self.attention_dropout(self.attention_dense(attn))",
             "attn = self.self_attention(hidden_states, attention_mask)",
             "attn = self.self_attention(self.attention_layer_norm(hidden_states), attention_mask)")),
    Injection("LayerNorm before the feed-forward", "LayerNorm before the sub-layer, not after the residual" + SECOND,
        swap(C_SECOND_CALL, "attn_out + self.out_dropout(self.out_dense(interm))",
             "self.interm_dense(attn_out)", "self.interm_dense(self.out_layer_norm(attn_out))")),
    Injection("unbiased variance in the first", "LayerNorm divides by the unbiased variance" + FIRST,
        own_norm(UNBIASED, COURSE_NORMS[0])),
    Injection("unbiased variance in the second", "LayerNorm divides by the unbiased variance" + SECOND,
        own_norm(UNBIASED, COURSE_NORMS[1])),
    Injection("the other rate", "dropout has the attention's rate",
        swap(*C_RATES[0], *C_RATES[1]), swap("self.p = config.hidden", "self.p = config.attention_probs"),
        swap(*C_RATES[0], *C_RATES[1])),
    Injection("the other rate in the first", "dropout has the attention's rate" + FIRST, swap(*C_RATES[0])),
    Injection("the other rate in the second", "dropout has the attention's rate" + SECOND, swap(*C_RATES[1])),
    Injection("no dense layer", "the attention's dense layer is not used",
        swap(C_FIRST_CALL, "self.attention_layer_norm(hidden_states + self.attention_dropout(attn))")),
    Injection("dense of the input", "the dense layer is applied to the input, not to the sub-layer's output",
        swap("hidden_states, attn, self.attention_dense", "attn, hidden_states, self.attention_dense")),
    Injection("own residual", "the attention's residual is its own output",
        swap("hidden_states, attn, self.attention_dense", "attn, attn, self.attention_dense")),
    Injection("feed-forward of the input", "the feed-forward reads the layer's input",
        swap("self.interm_dense(attn_out)", "self.interm_dense(hidden_states)")),
    Injection("attention thrown away", "the feed-forward and its residual read the layer's input",
        swap("self.interm_dense(attn_out)", "self.interm_dense(hidden_states)",
             C_SECOND, "self.add_norm(hidden_states, interm,")),
    Injection("norms swapped", "the two LayerNorms are swapped",
        swap("self.attention_dropout, self.attention_layer_norm", "self.attention_dropout, self.out_layer_norm",
             "self.out_dropout, self.out_layer_norm", "self.out_dropout, self.attention_layer_norm")),
    Injection("first norm twice", "attention_layer_norm is used twice",
        swap("self.out_dropout, self.out_layer_norm", "self.out_dropout, self.attention_layer_norm")),
    Injection("second norm twice", "out_layer_norm is used twice",
        swap("self.attention_dropout, self.attention_layer_norm", "self.attention_dropout, self.out_layer_norm")),
    Injection("sigmoid GELU", "x·σ(1.702x) instead of GELU",
        swap(C_GELU, "self.interm_af = lambda x: x * torch.sigmoid(1.702 * x)")),
    Injection("SiLU", "SiLU instead of GELU", swap(C_GELU, "self.interm_af = F.silu")),
    Injection("tanh", "tanh instead of GELU", swap(C_GELU, "self.interm_af = torch.tanh")),
    Injection("GELU twice", "GELU is applied twice", swap(C_GELU, "self.interm_af = lambda x: F.gelu(F.gelu(x))")),
    Injection("GELU at the end", "GELU after the second dense layer",
        swap(C_GELU, "self.interm_af = nn.Identity()",
             C_SECOND_CALL, C_SECOND_CALL.replace("self.out_dense", "lambda x: F.gelu(self.out_dense(x))"))),
    Injection("GELU at the end too", "GELU after the second dense layer",
        swap(C_SECOND_CALL, C_SECOND_CALL.replace("self.out_dense", "lambda x: F.gelu(self.out_dense(x))"))),
    ),
    "embeddings": (
    Injection("no positions", "positions are left out",
        swap("embeds = inputs_embeds + pos_embeds + tk_type_embeds", "embeds = inputs_embeds + tk_type_embeds"),
        swap("summed = words + places +", "summed = words + 0 * places +"),
        swap("            + self.pos_embedding(positions)  # (T, C): the same for every sentence\n", "")),
    Injection("no token types", "token types are left out",
        swap("embeds = inputs_embeds + pos_embeds + tk_type_embeds", "embeds = inputs_embeds + pos_embeds"),
        swap("summed = words + places + self.tk_type_embedding(kinds)", "summed = words + places"),
        swap("            + self.tk_type_embedding(token_type_ids)\n", "")),
    Injection("no LayerNorm", "no LayerNorm",
        swap("        embeds = self.embed_layer_norm(embeds)\n", ""),
        swap("self.embed_dropout(self.embed_layer_norm(summed))", "self.embed_dropout(summed)"),
        swap("self.embed_dropout(self.embed_layer_norm(embedded))", "self.embed_dropout(embedded)")),
    Injection("positions from 1", "positions begin at 1",
        swap("self.position_ids[:, :seq_length]", "self.position_ids[:, 1 : seq_length + 1]"),
        swap("weight[: input_ids.shape[1]]", "weight[1 : input_ids.shape[1] + 1]"),
        swap("positions = torch.arange(T, device", "positions = torch.arange(1, T + 1, device")),
    Injection("no dropout", "no dropout on the embeddings",
        swap("        embeds = self.embed_dropout(embeds)\n", ""),
        swap("self.embed_dropout(self.embed_layer_norm(summed))", "self.embed_layer_norm(summed)"),
        swap("self.embed_dropout(self.embed_layer_norm(embedded))", "self.embed_layer_norm(embedded)")),
    Injection("eps 1e-5", "LayerNorm eps is 1e-5, not 1e-12",
        eps_1e5(COURSE_EMBED_NORM), eps_1e5(EINSUM_EMBED_NORM), eps_1e5(OUR_EMBED_NORM)),
    Injection("unbiased variance", "LayerNorm divides by the unbiased variance",
        *(own_norm(UNBIASED, norm) for norm in (COURSE_EMBED_NORM, EINSUM_EMBED_NORM, OUR_EMBED_NORM))),
        Injection("norm by F", "LayerNorm without its weight and bias",
            swap("self.embed_layer_norm(embeds)", "F.layer_norm(embeds, embeds.shape[-1:], eps=1e-12)"),
            swap("self.embed_layer_norm(summed)", "F.layer_norm(summed, summed.shape[-1:], eps=1e-12)")),
        Injection("a table of parts of speech", "another table is added that BERT's weights do not have",
            swap("self.embed_dropout = nn.Dropout(config.hidden_dropout_prob)",
                 "self.embed_dropout = nn.Dropout(config.hidden_dropout_prob)\n"
                 "        self.tag_embedding = nn.Embedding(20, config.hidden_size)",
                 C_SUM, C_SUM + " + self.tag_embedding(torch.zeros_like(input_ids))")),
        Injection("embed decorated", NO_GRAD,
            swap("    def embed(self, input_ids):", "    @torch.no_grad()\n    def embed(self, input_ids):"),
            swap("    def embed(self, input_ids:", "    @torch.no_grad()\n    def embed(self, input_ids:")),
        Injection("no words", "words are left out", swap(C_SUM, "embeds = pos_embeds + tk_type_embeds")),
        Injection("words alone", "only words are embedded", swap(C_SUM, "embeds = inputs_embeds")),
        Injection("positions from 2", "positions begin at 2, after the padding's",
            swap(C_PLACES, "self.position_ids[:, 2 : seq_length + 2]")),
        Injection("position 0", "every token has position 0", swap(C_PLACES, "torch.zeros_like(input_ids)")),
        Injection("positions backwards", "positions run backwards", swap(C_PLACES, C_PLACES + ".flip(1)")),
        Injection("positions of ids", "positions are looked up by token id", swap(C_PLACES, "input_ids")),
        Injection("type 1", "token types are 1 where none are given",
            swap("tk_type_ids = torch.zeros(", "tk_type_ids = torch.ones("),
            swap("kinds = torch.zeros_like", "kinds = torch.ones_like"),
            swap("token_type_ids = torch.zeros_like", "token_type_ids = torch.ones_like")),
        Injection("types ignored", "token types are taken, and ignored", (),
            swap("torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids",
                "torch.zeros_like(input_ids)"),
            swap("        if token_type_ids is None:\n            token_type_ids", "        token_type_ids")),
        Injection("norm of the words", "LayerNorm of the words alone",
            swap("= self.word_embedding(input_ids)", "= self.embed_layer_norm(self.word_embedding(input_ids))",
                 "        embeds = self.embed_layer_norm(embeds)\n", "")),
        Injection("√C for a norm", "the sum is multiplied by √C, and not normalised",
            swap("self.embed_layer_norm(embeds)", "embeds * self.config.hidden_size**0.5")),
        Injection("words times √C", "words are multiplied by √C",
            swap("= self.word_embedding(input_ids)", "= self.word_embedding(input_ids) * self.config.hidden_size**0.5"),
            swap("words = self.word_embedding(input_ids)",
                "words = self.config.hidden_size**0.5 * self.word_embedding(input_ids)")),
        Injection("dropout first", "dropout before the LayerNorm",
            swap("embeds = self.embed_layer_norm(embeds)", "embeds = self.embed_dropout(embeds)",
                 "embeds = self.embed_dropout(embeds)\n        return",
                     "embeds = self.embed_layer_norm(embeds)\n        return")),
        Injection("dropout twice", "dropout is applied twice",
            swap("self.embed_dropout(embeds)", "self.embed_dropout(self.embed_dropout(embeds))")),
        Injection("dropout always", "dropout is active in evaluation",
            swap("self.embed_dropout(embeds)", "F.dropout(embeds, self.embed_dropout.p)")),
        Injection("the other rate", "dropout has the attention's rate",
            swap("self.embed_dropout = nn.Dropout(config.hidden",
                "self.embed_dropout = nn.Dropout(config.attention_probs")),
    ),
    "model": (
    Injection("no tanh", "no tanh in the pooler",
        swap("        first_tk = self.pooler_af(first_tk)\n", ""),
        swap("self.pooler_dense(first).tanh()", "self.pooler_dense(first)"),
        swap("torch.tanh(self.pooler_dense(hidden_states[:, 0]))", "self.pooler_dense(hidden_states[:, 0])")),
    Injection("last token", "the last token is pooled instead of [CLS]",
        swap("first_tk = sequence_output[:, 0]", "first_tk = sequence_output[:, -1]"),
        swap("first = last.select(1, 0)", "first = last.select(1, -1)"),
        swap("hidden_states[:, 0]))", "hidden_states[:, -1]))")),
    Injection("mask upside down", "the mask is upside down",
        swap("(1.0 - extended_attention_mask) * -10000.0", "extended_attention_mask * -10000.0"),
        swap("pads = attention_mask[:, None, None].eq(0)", "pads = attention_mask[:, None, None].ne(0)"),
        swap("mask = (1 - attention_mask[:, None, None, :].to(hidden_states.dtype)) * lowest",
             "mask = attention_mask[:, None, None, :].to(hidden_states.dtype) * lowest")),
        Injection("forward decorated", NO_GRAD,
            swap("    def forward(self, input_ids", "    @torch.no_grad()\n    def forward(self, input_ids"),
            swap("    def forward(self, input_ids", "    @torch.no_grad()\n    def forward(self, input_ids")),
        Injection("encode decorated", NO_GRAD,
            swap("    def encode(self, ", "    @torch.no_grad()\n    def encode(self, "),
            swap("    def encode(self, ", "    @torch.no_grad()\n    def encode(self, ")),
        Injection("one layer", "every layer has the same weights",
            swap("nn.ModuleList([BertLayer(config) for _ in range(config.num_hidden_layers)])",
                 "nn.ModuleList([BertLayer(config)] * config.num_hidden_layers)")),
        Injection("first layer alone", "only the first layer is run", swap(C_LAYERS, C_LAYERS.replace(":", "[:1]:"))),
        Injection("not the first layer", "the first layer is left out", swap(C_LAYERS, C_LAYERS.replace(":", "[1:]:"))),
        Injection("first layer again", "the first layer is run over and over",
            swap("= layer_module(hidden_states,", "= self.bert_layers[0](hidden_states,")),
        Injection("layers backwards", "the layers are run backwards", swap(C_LAYERS, C_LAYERS.replace(":", "[::-1]:")),
            swap("for layer in self.bert_layers:", "for layer in reversed(self.bert_layers):")),
        Injection("embeddings again", "every layer reads the embeddings",
            swap(C_LAYERS, "embeds = hidden_states\n        " + C_LAYERS,
                 "= layer_module(hidden_states,", "= layer_module(embeds,")),
        Injection("embeddings added", "the embeddings are added to every layer's input",
            swap(C_LAYERS, "embeds = 0\n        " + C_LAYERS,
                 C_RUN, C_RUN.replace("(hidden_states,", "(hidden_states + embeds,"),
                 C_EXTENDED, "first = hidden_states\n        " + C_EXTENDED,
                 "        return hidden_states\n\n    def forward(self, input_ids",
                     "            embeds = first\n        return hidden_states\n\n    def forward(self, input_ids")),
        Injection("last but one", "the hidden state is that of the last but one layer",
            swap(C_RUN, "before, hidden_states = hidden_states, layer_module(hidden_states, extended_attention_mask)",
                 "        return hidden_states\n\n", "        self.before = before\n        return hidden_states\n\n",
                 '"last_hidden_state": sequence_output', '"last_hidden_state": self.before')),
        Injection("embeddings out", "the hidden state is the embeddings",
            swap('"last_hidden_state": sequence_output', '"last_hidden_state": embedding_output')),
        Injection("no mask", "the layers get no mask",
            swap(C_RUN, C_RUN.replace("extended_attention_mask", "0 * extended_attention_mask")),
            swap(".masked_fill(pads, -1e9)", ""),
            swap("layer(hidden_states, mask)", "layer(hidden_states, 0 * mask)")),
        Injection("mask of 1 and 0", "the mask stays 1 and 0",
            swap(MASK_10000, "extended_attention_mask"),
            (),
            swap("(1 - attention_mask[:, None, None, :].to(hidden_states.dtype)) * lowest",
                 "attention_mask[:, None, None, :].to(hidden_states.dtype)")),
        Injection("+10000", "the mask has the wrong sign", swap("* -10000.0", "* 10000.0"),
            (),
            swap("* lowest", "* -lowest")),
        Injection("ReLU after", "ReLU in the pooler", swap("nn.Tanh()", "nn.ReLU()")),
        Injection("GELU after", "GELU in the pooler", swap("nn.Tanh()", "nn.GELU()")),
        Injection("sigmoid after", "sigmoid in the pooler", swap("nn.Tanh()", "nn.Sigmoid()")),
        Injection("tanh twice", "tanh is applied twice in the pooler",
            swap("nn.Tanh()", "nn.Sequential(nn.Tanh(), nn.Tanh())")),
        Injection("no dense layer", "no dense layer in the pooler",
            swap("        first_tk = self.pooler_dense(first_tk)\n", "")),
        Injection("tanh first", "tanh before the pooler's dense layer",
            swap("first_tk = self.pooler_dense(first_tk)", "first_tk = self.pooler_dense(self.pooler_af(first_tk))",
                 "        first_tk = self.pooler_af(first_tk)\n", "")),
        Injection("[CLS] as it is", "neither dense layer nor tanh in the pooler",
            swap('"pooler_output": first_tk', '"pooler_output": sequence_output[:, 0]'),
            swap('"pooler_output": pooled', '"pooler_output": first')),
        Injection("last real token", "the last token before the pads is pooled instead of [CLS]",
            swap(C_CLS, "first_tk = sequence_output[torch.arange(len(input_ids)), attention_mask.sum(1) - 1]")),
        Injection("second token", "the second token is pooled instead of [CLS]", swap(C_CLS, C_CLS.replace("0", "1"))),
        Injection("mean", "the mean of all tokens is pooled, pads and all",
            swap(C_CLS, "first_tk = sequence_output.mean(dim=1)"), swap("last.select(1, 0)", "last.mean(1)")),
        Injection("mean of the real", "the mean of the real tokens is pooled instead of [CLS]",
            swap(C_CLS, "real = attention_mask.unsqueeze(-1).float()\n"
                        "        first_tk = (sequence_output * real).sum(1) / real.sum(1)")),
        Injection("maximum", "the maximum over the tokens is pooled instead of [CLS]",
            swap(C_CLS, "first_tk = sequence_output.max(dim=1).values")),
        Injection("embeddings pooled", "the embeddings are pooled, not the last layer's output",
            swap(C_CLS, "first_tk = embedding_output[:, 0]")),
        Injection("dropout after", "dropout on the pooled vector",
            swap("first_tk = self.pooler_af(first_tk)", "first_tk = self.embed_dropout(self.pooler_af(first_tk))")),
        Injection("dropout after, always", "dropout on the pooled vector, active in evaluation",
            swap("first_tk = self.pooler_af(first_tk)",
                "first_tk = F.dropout(self.pooler_af(first_tk), self.embed_dropout.p)")),
    ),
    "optimizer": (
    Injection("L2 in the gradient", "coupled weight decay: λp is added to the gradient (L2)",
        swap('grad = p.grad.data\n', 'grad = p.grad.data + group["weight_decay"] * p.data\n', C_DECAY, "pass"),
        swap(E_DECAY, "grad = p.grad + group[\"weight_decay\"] * p",
             ".add_(p.grad, alpha=1 - b1)", ".add_(grad, alpha=1 - b1)",
             ".addcmul_(p.grad, p.grad, value=1 - b2)", ".addcmul_(grad, grad, value=1 - b2)"),
        swap("g, state = p.grad, self._state", "g, state = p.grad + decay * p, self._state", O_DECAY, "pass")),
    Injection("decay without the learning rate", "weight decay without the learning rate",
        swap(C_DECAY, C_DECAY.replace("alpha * ", "")),
        swap(E_DECAY, E_DECAY.replace("lr * ", "")),
        swap(O_DECAY, "p.mul_(1 - decay)")),
    Injection("no decay", "no weight decay",
        swap(C_DECAY, "pass"), swap(E_DECAY, "pass"), swap(O_DECAY, "pass")),
    Injection("decay with the corrected rate", "weight decay with the bias-corrected step size",
        swap(C_DECAY, C_DECAY.replace("alpha", "step_size")),
        (),
        swap(O_DECAY, "p.mul_(1 - alpha_t * decay)")),
    Injection("no bias correction", "no bias correction",
        swap(C_STEP, "alpha"),
        swap('if group["correct_bias"]:', "if False:"),
        swap('if group["correct_bias"]:', "if False:")),
    Injection("no √ on β₂", "the root is missing on 1−β₂ᵗ",
        swap(C_STEP, C_STEP.replace("math.sqrt(1 - beta2 ** state[\"step\"])", "(1 - beta2 ** state[\"step\"])")),
        (),
        swap(O_STEP, "(1 - beta2**t) / (1 - beta1**t)")),
    Injection("eps inside the root", "eps is inside the root",
        swap(C_UPDATE, C_UPDATE.replace('torch.sqrt(v) + group["eps"]', 'torch.sqrt(v + group["eps"])')),
        swap(E_UPDATE, "p.sub_(lr * mean / (square + eps).sqrt())"),
        swap(O_UPDATE, "p.addcdiv_(m, v.add(eps).sqrt_(), value=-alpha_t)")),
    Injection("no root", "no root over v",
        swap(C_UPDATE, C_UPDATE.replace("torch.sqrt(v)", "v")),
        swap(E_UPDATE, E_UPDATE.replace("square.sqrt()", "square")),
        swap(O_UPDATE, O_UPDATE.replace("v.sqrt().add_(eps)", "v.add(eps)"))),
    Injection("t counted after the update", "t begins at 0",
        swap('                state["step"] += 1\n', "", C_DECAY, C_DECAY + '\n                state["step"] += 1'),
        swap('                memory["t"] += 1\n', "", E_UPDATE, E_UPDATE + '\n                memory["t"] += 1'),
        swap('                state["step"] += 1\n', "", O_UPDATE, O_UPDATE + '\n                state["step"] += 1')),
    Injection("t shared", "t is shared between the parameters",
        swap("        loss = None\n", '        loss = None\n        self.t = getattr(self, "t", 0)\n',
             'state["step"] += 1', 'self.t = state["step"] = self.t + 1'),
        swap('memory["t"] += 1', 'self.t = memory["t"] = getattr(self, "t", 0) + 1'),
        swap('state["step"] += 1', 'self.t = state["step"] = getattr(self, "t", 0) + 1')),
    Injection("state reset", "the state is made new at every step",
        swap("if len(state) == 0:", "if True:"),
        swap("memory = self.state[p]", "memory = {}"),
        swap("if not self.state[p]:", "if True:")),
    Injection("moments reset", "the state is made new at every step",
        swap('state["m"], state["v"] = m, v', "pass"),
        (),
        ()),
        Injection("a count that a new state sets back", "t starts anew whenever another parameter's state is made",
            swap("if len(state) == 0:", "if len(state) == 0:\n                    self.t = 0",
                 'state["step"] += 1', 'self.t += 1\n                state["step"] = self.t')),
        Injection("a group's count that a new state sets back",
            "t starts anew whenever another parameter's state is made",
            swap('for p in group["params"]:',
                 'group["t"] = group.get("t", 0) + 1\n            for p in group["params"]:',
                 "if len(state) == 0:", 'if len(state) == 0:\n                    group["t"] = 1',
                 'state["step"] += 1', 'state["step"] = group["t"]')),
        Injection("no step without the correction", "correct_bias=False is not handled: no step is taken",
            swap("step_size = alpha\n", "step_size = 0\n")),
        Injection("no size without the correction", "correct_bias=False is not handled: no step is taken",
            swap("                step_size = alpha\n", "")),
        Injection("corrected where it is not asked for", "correct_bias is read the wrong way round",
            swap('if group["correct_bias"]:', 'if not group["correct_bias"]:'),
            swap('if group["correct_bias"]:', 'if not group["correct_bias"]:'),
            swap('if group["correct_bias"]:', 'if not group["correct_bias"]:')),
        Injection("state by .cuda()", "the state is put on the GPU, wherever the parameter is",
            swap('state["m"] = torch.zeros_like(p.data)', 'state["m"] = torch.zeros_like(p.data).cuda()')),
        Injection("state on a device of its own", "the state is put on the GPU, wherever the parameter is",
            swap('state["m"] = torch.zeros_like(p.data)', 'state["m"] = torch.zeros(p.shape, device="cuda")')),
        Injection("decay upwards", "weight decay has the wrong sign",
            swap(C_DECAY, C_DECAY.replace("- alpha", "+ alpha")), swap(E_DECAY, E_DECAY.replace("-", "+")),
            swap(O_DECAY, O_DECAY.replace("-", "+"))),
        Injection("decay twice", "weight decay is applied twice",
            swap(C_DECAY, C_DECAY.replace("alpha *", "2 * alpha *"))),
        Injection("L2 and decay", "weight decay is applied twice",
            swap("grad = p.grad.data\n", 'grad = p.grad.data + group["weight_decay"] * p.data\n')),
        Injection("L1", "weight decay by λ·sign(p), as L1", swap(C_DECAY, C_DECAY + ".sign()")),
        Injection("a constant", "weight decay by lr·λ, whatever p", swap(C_DECAY, C_DECAY.replace(" * p.data", ""))),
        Injection("all decay", "parameters without a gradient decay too",
            swap("if p.grad is None:",
                f"if p.grad is None:\n                    alpha = group['lr']\n                    {C_DECAY}")),
        Injection("m alone", "only m is corrected for its bias",
            swap(C_STEP, 'alpha / (1 - beta1 ** state["step"])'), swap(E_SQUARE, "pass")),
        Injection("v alone", "only v is corrected for its bias",
            swap(C_STEP, 'alpha * math.sqrt(1 - beta2 ** state["step"])'),
            swap('mean = mean / (1 - b1 ** memory["t"])', "pass")),
        Injection("√ twice", "there is a root on 1−β₁ᵗ", swap(C_STEP, C_STEP.replace("/ (", "/ math.sqrt("))),
        Injection("upside down", "the bias correction is upside down",
            swap(C_STEP, 'alpha * (1 - beta1 ** state["step"]) / math.sqrt(1 - beta2 ** state["step"])'),
            swap('mean / (1', 'mean * (1', "square / (1", "square * (1")),
        Injection("β₂²", "the bias correction has β₂², not β₂ᵗ",
            swap(C_STEP, C_STEP.replace('beta2 ** state["step"]', "beta2 ** 2")),
            swap(E_SQUARE, "square = square / (1 - b2**2)")),
        Injection("β·t", "the bias correction uses β·t, not βᵗ",
            swap('if group["correct_bias"]:', 'if group["correct_bias"]:\n                    t = state["step"]',
                 C_STEP, "alpha * math.sqrt(1 - beta2 * t) / (1 - beta1 * t)")),
        Injection("β swapped", "β₁ and β₂ are swapped", swap("beta1, beta2 = group", "beta2, beta1 = group"),
            swap("b1, b2 = group", "b2, b1 = group")),
        Injection("β₁ twice", "β₁ is used for both means",
            swap("beta1, beta2 = group[\"betas\"]", "beta1 = beta2 = group[\"betas\"][0]")),
        Injection("no eps", "no eps", swap(' + group["eps"])', ")"), swap(" + eps)", ")")),
        Injection("t ahead", "t is one ahead", swap('state["step"] = 0', 'state["step"] = 1'),
            swap('setdefault("t", 0)', 'setdefault("t", 1)')),
        Injection("t stays", "t stays 1", swap('state["step"] += 1', 'state["step"] = 1')),
        Injection("t of the steps", "t is shared between the parameters",
            swap("        loss = None\n", '        loss = None\n        self.t = getattr(self, "t", 0) + 1\n',
                 'state["step"] += 1', 'state["step"] = self.t')),
        Injection("m + g", "m lacks the factor 1−β₁", swap("+ (1 - beta1) * grad", "+ grad"),
            swap(", alpha=1 - b1)", ")")),
        Injection("m by the other", "m has its weights swapped",
            swap('beta1 * state["m"] + (1 - beta1) * grad', '(1 - beta1) * state["m"] + beta1 * grad')),
        Injection("m is g", "no momentum: m is the gradient", swap('beta1 * state["m"] + (1 - beta1) * grad', "grad")),
        Injection("v + g²", "v lacks the factor 1−β₂", swap("(1 - beta2) * grad * grad", "grad * grad"),
            swap(", value=1 - b2)", ")")),
        Injection("v by the other", "v has its weights swapped",
            swap('beta2 * state["v"] + (1 - beta2) * grad', '(1 - beta2) * state["v"] + beta2 * grad')),
        Injection("v is g²", "v does not keep its old value", swap('beta2 * state["v"] + (1 - beta2) * grad', "grad")),
        Injection("v of g", "the gradient is not squared in v",
            swap("(1 - beta2) * grad * grad", "(1 - beta2) * grad")),
        Injection("v of |g|", "the gradient is not squared in v",
            swap("(1 - beta2) * grad * grad", "(1 - beta2) * grad.abs()")),
        Injection("uphill", "the gradient's step has the wrong sign",
            swap(C_UPDATE, C_UPDATE.replace("- step", "+ step")),
            swap(E_UPDATE, E_UPDATE.replace("sub", "add"))),
        Injection("no rate", "the learning rate is not used",
            swap("step_size = alpha\n", "step_size = 1\n", C_STEP, C_STEP.replace("alpha * ", ""))),
        Injection("first group", "every group uses the first group's options",
            swap('for p in group["params"]:',
                'for p in group["params"]:\n                group = self.param_groups[0]'),
            swap('lr, eps = group["lr"], group["eps"]', 'params, group = group["params"], self.param_groups[0]\n'
                 '            lr, eps = group["lr"], group["eps"]', 'p.grad is not None, group["params"])',
                     'p.grad is not None, params)')),
        Injection("one group", "only the first group's parameters are updated",
            swap("for group in self.param_groups:", "for group in self.param_groups[:1]:")),
        Injection("closure without gradients", "the closure runs without gradients (no_grad)", (), (),
            swap("with torch.enable_grad():", "if True:")),
        Injection("state by m and v", "the state has other names than that of torch.optim.AdamW", (), (),
            swap('state["exp_avg"], state["exp_avg_sq"]\n', 'state["m"], state["v"]\n',
                 "exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p)",
                 "m=torch.zeros_like(p), v=torch.zeros_like(p)")),
    ),
}
# fmt: on

# How a sub-layer may close: x the residual, f what the sub-layer gives, p the dropout's rate.
CLOSINGS = {
    "LayerNorm before the residual is added": "{x} + {norm}({drop}({dense}({f})))",
    "no LayerNorm": "{x} + {drop}({dense}({f}))",
    "no residual": "{norm}({drop}({dense}({f})))",
    "no dropout in the sub-layer": "{norm}({x} + {dense}({f}))",
    "dropout after the residual is added": "{norm}({drop}({x} + {dense}({f})))",
    "dropout after the LayerNorm": "{drop}({norm}({x} + {dense}({f})))",
    "dropout before the dense layer": "{norm}({x} + {dense}({drop}({f})))",
    "dropout is active in evaluation": "{norm}({x} + F.dropout({dense}({f}), {p}))",
    "dropout is applied twice": "{norm}({x} + {drop}({drop}({dense}({f}))))",
}


def close(how: str, text: str, x: str, f: str, which: str = "") -> Swaps:
    """Swaps of `text`, where a sub-layer closes, for that way of closing. which: "attention", "out"; "" is add_norm."""
    names = dict(x=x, f=f, dense="dense_layer", drop="dropout", p="dropout.p", norm="ln_layer")
    if which:
        names |= {key: f"self.{which}_{key}" for key in ("dense",)} | {"norm": f"self.{which}_layer_norm"}
        names |= {"drop": f"self.{which}_dropout", "p": f"self.{which}_dropout.p"}
    if text in E_CLOSES:
        names |= {"drop": "self.drop", "p": "self.p"}
    before = "return " if "return " in text else "x = " if text in E_CLOSES else ""
    return swap(text, before + how.format(**names))


def closings() -> Iterator[Injection]:
    """A row for every closing, in both sub-layers and in either."""
    for name, how in CLOSINGS.items():
        first = close(how, E_CLOSES[0], "x", "self.self_attention(x, attention_mask)", "attention")
        second = close(how, E_CLOSES[1], "x", "inner", "out")
        yield Injection(
            "add_norm", name,
            close(how, C_CLOSES, "input", "output"), (*first, *second), close(how, O_CLOSE, "input", "output"),
        )  # fmt: skip
        yield Injection(
            "the first sub-layer", name + FIRST,
            close(how, C_FIRST_CALL, "hidden_states", "attn", "attention"), first,
        )  # fmt: skip
        yield Injection(
            "the second sub-layer", name + SECOND,
            close(how, C_SECOND_CALL, "attn_out", "interm", "out"), second,
        )  # fmt: skip


E_CLOSES = (
    f"mixed = self.attention_dense(self.self_attention(x, attention_mask))\n        {E_FIRST}",
    f"fed = self.out_dense(inner)\n        {E_SECOND}",
)
CLOSED = "self.{which}_layer_norm({x} + F.dropout(self.{which}_dense({f}), self.{which}_dropout.p, self.training))"
C_CLOSES = f"transformed = dense_layer(output)\n{C_DROPOUT}        {C_CLOSE}"
INJECTED["layer"] += tuple(closings())
ROWS = [row._replace(mistake=f"{part}: {row.mistake}") for part, rows in INJECTED.items() for row in rows]
