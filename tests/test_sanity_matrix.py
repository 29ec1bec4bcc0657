"""The sanity check against mistakes that are really made in files: what is injected is named, and nothing else is.

Three right projects, tests/sanity_projects/{course,einsum} and our own package, are written in three styles. `INJECTED`
says how each mistake looks in each style, as replaced text, which is independent of the table by which the check
diagnoses. Beside it: right code in other words, two mistakes at once, mistakes that nobody listed, and projects that
are half finished.
"""

import ast
import importlib
import importlib.machinery
import io
import os
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from minbert.bert import BertModel
from minbert.config import BertConfig
from minbert.optimizer import AdamW
from minbert.sanity import parts
from minbert.sanity.child import examine
from minbert.sanity.judge import judge
from minbert.sanity.project import Layout, Project, definitions

ROOT = Path(__file__).resolve().parents[1]
PROJECTS = ROOT / "tests" / "sanity_projects"
STYLES = ("course", "einsum", "ours")

Swaps = tuple[tuple[str, str], ...]  # (old text, which stands exactly once in the project's files, new text)


@cache
def sources(style: str) -> dict[str, str]:
    """The files of a right project that BERT and the optimizer are in: path from its root → text."""
    root, folder = (ROOT, "minbert/") if style == "ours" else (PROJECTS / style, "")
    names = (
        f"{folder}{name}.py" for name in ("__init__", "bert", "base_bert", "config", "errors", "optimizer", "utils")
    )
    return {name: (root / name).read_text(encoding="utf-8") for name in names if (root / name).exists()}


def changed(files: dict[str, str], swaps: Swaps) -> dict[str, str]:
    """A copy of `files` with each old text replaced by the new one."""
    files = dict(files)
    for old, new in swaps:
        found = [path for path, text in files.items() for _ in range(text.count(old))]
        assert len(found) == 1, f"{old!r} stands {len(found)} times in {sorted(set(found))}"
        files[found[0]] = files[found[0]].replace(old, new)
    return files


def swap(*texts: str) -> Swaps:
    """swap(old, new, old, new, …)"""
    return tuple(zip(texts[::2], texts[1::2], strict=True))


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
O_OUT = "return dropout(scores.softmax(dim=-1)) @ v"
O_SPLIT = "return linear_layer(x).view(B, T, H, D).transpose(1, 2)"
O_CLOSE = "return ln_layer(input + dropout(dense_layer(output)))"
O_ATTEND = "self.add_norm(hidden_states, self.self_attention(hidden_states, mask),"
O_SECOND = "self.add_norm(attended, thought, self.out_dense"
O_GELU = "F.gelu(self.interm_dense(attended))"
O_DECAY = "p.mul_(1 - alpha * decay)"
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
             "return dropout(scores.softmax(dim=-1).masked_fill(mask < 0, 0.0)) @ v")),
    Injection("mask added after the softmax", "the mask comes after the softmax",
        swap(C_MASK, "S = S + 0", C_SOFTMAX, "probs = nn.functional.softmax(S, dim=-1) + attention_mask"),
        (),
        swap(O_SCORES, O_SCORES.replace(" + mask", ""), O_OUT, "return dropout(scores.softmax(dim=-1) + mask) @ v")),
    Injection("softmax over the queries", "softmax over the wrong axis",
        swap(C_SOFTMAX, "probs = nn.functional.softmax(S, dim=-2)"),
        swap(E_WEIGHTS, E_WEIGHTS.replace("(scores, -1)", "(scores, 2)")),
        swap(O_OUT, O_OUT.replace("dim=-1", "dim=-2"))),
    Injection("softmax over the heads", "softmax over the heads",
        swap(C_SOFTMAX, "probs = nn.functional.softmax(S, dim=1)"),
        swap(E_WEIGHTS, E_WEIGHTS.replace("(scores, -1)", "(scores, 1)")),
        swap(O_OUT, O_OUT.replace("dim=-1", "dim=1"))),
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
        swap(O_OUT, "return scores.softmax(dim=-1) @ v")),
    Injection("dropout on the scores", "dropout falls on the scores, before the softmax",
        swap(C_DROP, "", C_SOFTMAX, "probs = nn.functional.softmax(self.dropout(S), dim=-1)"),
        swap(E_WEIGHTS, "weights = torch.softmax(F.dropout(scores, self.p, self.training), -1)"),
        swap(O_OUT, "return dropout(scores).softmax(dim=-1) @ v")),
    Injection("dropout in evaluation", "attention dropout is active in evaluation",
        swap(C_DROP, "        probs = F.dropout(probs, self.dropout.p)\n"),
        swap(E_WEIGHTS, "weights = F.dropout(torch.softmax(scores, -1), self.p)"),
        swap(O_OUT, "return F.dropout(scores.softmax(dim=-1), dropout.p) @ v")),
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
        swap(O_OUT, "return dropout(scores.softmax(dim=-1) @ v)")),
    Injection("dropout twice", "attention dropout falls twice", swap(C_DROP, 2 * C_DROP)),
    Injection("dropout on the output too", "attention dropout falls twice",
        swap("torch.matmul(probs, value)", "self.dropout(torch.matmul(probs, value))")),
    Injection("dropout on the scores too", "attention dropout falls twice",
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
        swap(O_OUT, "return dropout(scores.softmax(dim=-1)).detach() @ v")),
    Injection("scores without gradients", CUT_OFF,
        swap("        S = torch.matmul(query, key.permute(0, 1, 3, 2))\n",
             "        with torch.no_grad():\n            S = torch.matmul(query, key.permute(0, 1, 3, 2))\n")),
    Injection("forward decorated", NO_GRAD,
        swap(C_ATTEND, "    @torch.no_grad()\n" + C_ATTEND), swap(E_ATTEND, "    @torch.no_grad()\n" + E_ATTEND)),
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
        Injection("dropout twice", "dropout falls twice",
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
        swap("g, state = p.grad, self.state[p]", "g, state = p.grad + decay * p, self.state[p]", O_DECAY, "pass")),
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
        swap("if not state:", "if True:")),
    Injection("moments reset", "the state is made new at every step",
        swap('state["m"], state["v"] = m, v', "pass"),
        (),
        ()),
        Injection("decay upwards", "weight decay has the wrong sign",
            swap(C_DECAY, C_DECAY.replace("- alpha", "+ alpha")), swap(E_DECAY, E_DECAY.replace("-", "+")),
            swap(O_DECAY, O_DECAY.replace("-", "+"))),
        Injection("decay twice", "weight decay falls twice", swap(C_DECAY, C_DECAY.replace("alpha *", "2 * alpha *"))),
        Injection("L2 and decay", "weight decay falls twice",
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
    "dropout falls twice": "{norm}({x} + {drop}({drop}({dense}({f}))))",
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

CONFIG = BertConfig(
    vocab_size=20, hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20,
    max_position_embeddings=9,
)  # fmt: skip


@pytest.fixture
def project(monkeypatch):
    """A function that imports a module of one of the right projects, for this test only."""

    def load(style: str, module: str):
        monkeypatch.syspath_prepend(str(PROJECTS / style))
        importlib.invalidate_caches()
        return importlib.import_module(module)

    before = dict(sys.modules)
    for name in ("requests", "filelock", "importlib_metadata", "sklearn", "sklearn.metrics"):
        monkeypatch.setitem(sys.modules, name, Inert(name))
    yield load
    for name in set(sys.modules) - set(before):
        if str(PROJECTS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


class Inert(type(sys)):
    """A module that has every attribute, each a function that answers with a word."""

    def __init__(self, name: str):
        super().__init__(name)
        self.__spec__ = importlib.machinery.ModuleSpec(name, None)

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **options: "nothing"


@pytest.mark.parametrize("style", ["course", "einsum"])
def test_the_right_projects_bert_is_ours(style, project):
    """The same weights by name give the same numbers as our BertModel, itself checked against `transformers`."""
    torch.manual_seed(0)
    ours, theirs = BertModel(CONFIG).eval(), project(style, "bert").BertModel(course_config(project, style)).eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.normal_()
        left = theirs.load_state_dict(ours.state_dict(), strict=False)
        ids = torch.randint(1, 20, (2, 7))
        mask = torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
        expected, found = ours(ids, mask), theirs(ids, mask)
    assert left.missing_keys in ([], ["position_ids"]) and not left.unexpected_keys
    for name in ("last_hidden_state", "pooler_output"):
        torch.testing.assert_close(found[name], expected[name], atol=1e-6, rtol=1e-5)


def course_config(project, style: str):
    """CONFIG as the project's own BertConfig."""
    config = project(style, "config").BertConfig
    return config(**{k: v for k, v in vars(CONFIG).items() if k != "initializer_range" or style == "course"})


@pytest.mark.parametrize("style", ["course", "einsum"])
def test_the_right_projects_adamw_is_ours(style, project):
    """Five steps with weight decay; the textbook's ε is ours over √(1 - β₂ᵗ), so there ε is 0."""
    theirs = project(style, "optimizer").AdamW
    results = []
    for optimizer_class in (AdamW, theirs):
        torch.manual_seed(0)
        p = torch.nn.Parameter(torch.randn(5, dtype=torch.float64))
        optimizer = optimizer_class([p], lr=1e-2, eps=1e-6 if style == "course" else 0.0, weight_decay=0.0)
        for _ in range(5):
            p.grad = torch.randn(5, dtype=torch.float64)
            optimizer.step()
        results.append(p.detach())
    torch.testing.assert_close(results[1], results[0], atol=1e-12, rtol=1e-9)


CORE = ("attention", "layer", "embeddings", "model", "optimizer")


BERT, OPTIMIZER = ("attention", "layer", "embeddings", "model"), ("optimizer",)
PARTS = {name: parts.load(name) for name in BERT + OPTIMIZER}


def record(folder: Path, names: Iterable[str]) -> dict[str, dict]:
    """What the check's child process records of these parts of a project: {part: outcome}, all in one fork."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.chdir(folder)
            theirs = Project(Layout.find(folder))
            theirs.enter()
            with open(write, "wb") as pipe:
                torch.save({name: examine(PARTS[name], theirs) for name in names}, pipe)
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        recorded = pipe.read()
    os.waitpid(pid, 0)
    return torch.load(io.BytesIO(recorded), weights_only=True)


def verdicts(folder: Path, files: dict[str, str], names: Iterable[str] = BERT + OPTIMIZER) -> dict[str, dict]:
    """The check of a project of these files: {part: result}."""
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    results = {}
    for name, outcome in record(folder, names).items():
        results[name] = judge(PARTS[name], outcome["probes"]) if outcome["status"] == "ran" else outcome
    return results


def named(results: dict[str, dict]) -> list[str]:
    """All that was said against a project: names of mistakes, and parts that are not right for another reason."""
    said = []
    for part, result in results.items():
        if result["status"] != "passed":
            mistakes = [mistake["name"] for mistake in result.get("mistakes", ())]
            said += [f"{part}: {what}" for what in mistakes or [result["status"]]]
    return said


def touched(style: str, files: dict[str, str]) -> tuple[str, ...]:
    """The parts whose files are not the right project's: `optimizer.py` imports nothing, and nothing imports it."""
    paths = {path for path, text in files.items() if text != sources(style).get(path)}
    optimizer = {path for path in paths if path.endswith("optimizer.py")}
    return (*(BERT if paths - optimizer else ()), *(OPTIMIZER if optimizer else ()))


def cell(style: str, injection: Injection):
    title = injection.mistake if injection.says in injection.mistake else f"{injection.mistake} ({injection.says})"
    return pytest.param(style, injection, id=f"{style}: {title}")


@pytest.mark.parametrize("style, row", [cell(s, row) for row in ROWS for s in STYLES if getattr(row, s)])
def test_a_mistake_is_named_and_nothing_else(style, row, tmp_path):
    """The diagonal of the matrix, and its zeros: over all parts, exactly the mistake that was made is named."""
    files = changed(sources(style), getattr(row, style))
    assert named(verdicts(tmp_path, files, touched(style, files))) == [row.mistake]


def test_every_known_mistake_is_injected():
    """No column of the matrix is empty: what the check can name has been made in a file and was found."""
    known = {f"{part.name}: {mistake.name}" for part in PARTS.values() for mistake in part.mistakes}
    assert known - {row.mistake for row in ROWS} == set()


@pytest.mark.parametrize("name", BERT)
def test_asking_what_gradients_reach_leaves_no_trace(name):
    """Weights, gradients and what is frozen are as they were; a frozen parameter is no mistake."""
    part = PARTS[name]
    subject = part.reference(part.right)
    module = subject if isinstance(subject, torch.nn.Module) else subject.model
    frozen, other = list(module.parameters())[:2]
    frozen.requires_grad_(False)
    other.grad = torch.ones_like(other)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    probe = next(probe for probe in part.probes if probe.name == "what gradients reach")
    found = probe.run(subject)
    assert found["last_hidden_state → word_embedding" if name == "model" else next(iter(found))]
    assert not frozen.requires_grad and not module.training
    assert [p for p in module.parameters() if p.grad is not None] == [other] and (other.grad == 1).all()
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


# ------------------------------------------------------------------------------------------ right in other words

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

# fmt: off
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
     O_OUT, "scores = scores.masked_fill(mask < 0, -1e9)\n    " + O_OUT)),
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
    ("positions by arange, [CLS] by narrow", "course",
     swap("self.position_ids[:, :seq_length]", "torch.arange(seq_length, device=input_ids.device).expand(input_shape)",
          "first_tk = sequence_output[:, 0]", "first_tk = sequence_output.narrow(1, 0, 1).squeeze(1)")),
)
# fmt: on


@pytest.mark.parametrize("says, style, swaps", [pytest.param(*row, id=f"{row[1]}: {row[0]}") for row in RIGHT])
def test_right_in_other_words_gets_no_complaint(says, style, swaps, tmp_path):
    files = changed(sources(style), swaps)
    assert named(verdicts(tmp_path, files, touched(style, files) or tuple(PARTS))) == []


# ------------------------------------------------------------------------------------------ two at once

PAIRS = (  # (style, two rows by what they say)
    ("course", "no √D", "no dropout"),
    ("course", "√C", "mask not used"),
    ("einsum", "split as (D, H)", "dropout in evaluation"),
    ("course", "merged without the transpose", "mask subtracted"),
    ("course", "tanh GELU", "eps 1e-5 in both"),
    ("einsum", "ReLU", "second residual from the input"),
    ("ours", "no positions", "no LayerNorm"),
    ("einsum", "no tanh", "last token"),
    ("course", "L2 in the gradient", "no bias correction"),
    ("ours", "eps inside the root", "decay without the learning rate"),
    ("course", "no √D", "no decay"),
    ("einsum", "ReLU", "last token"),
    ("ours", "no dropout", "positions from 1"),
)


def row(says: str) -> Injection:
    return next(row for row in ROWS if row.says == says)


@pytest.mark.parametrize("style, first, second", PAIRS)
def test_two_mistakes_are_both_named(style, first, second, tmp_path):
    files = changed(changed(sources(style), getattr(row(first), style)), getattr(row(second), style))
    assert sorted(named(verdicts(tmp_path, files, touched(style, files)))) == sorted(
        [row(first).mistake, row(second).mistake]
    )


# ------------------------------------------------------------------------------------------ what nobody listed

UNKNOWN = (  # (part, style, swaps)
    ("attention", "course", swap(C_SCALE, "S = 1.1 * S / math.sqrt(self.attention_head_size)")),
    (
        "layer",
        "course",
        swap("        return ln_layer(input + transformed)", "        return ln_layer(0.5 * input + transformed)"),
    ),
    ("layer", "ours", own_norm(RMS, *OUR_NORMS)),
    ("optimizer", "einsum", swap(E_UPDATE, "p.sub_(lr * mean.sign())")),
)


@pytest.mark.parametrize("part, style, swaps", UNKNOWN, ids=["q·1.1", "x/2", "RMS norm", "sign"])
def test_an_unknown_mistake_is_shown_by_the_first_probe_that_differs(part, style, swaps, tmp_path, monkeypatch):
    monkeypatch.setattr("minbert.sanity.judge.PATIENCE", 0.3)  # there is nothing to be found
    files = changed(sources(style), swaps)
    results = verdicts(tmp_path, files, touched(style, files))
    assert {name for name, result in results.items() if result["status"] != "passed"} == {part}
    result = results[part]
    assert result["status"] == "wrong" and result["mistakes"] == []
    assert result["probe"]["name"] in [probe.name for probe in PARTS[part].probes]
    assert result["probe"]["expected"] != result["probe"]["found"]


# ------------------------------------------------------------------------------------------ half finished


def unwritten(files: dict[str, str], *names: str) -> dict[str, str]:
    """The files with the bodies of these functions replaced as in the starter: "### TODO", and an error."""
    files = dict(files)
    for path, text in files.items():
        lines = text.splitlines(keepends=True)
        for name, node in reversed(list(definitions(ast.parse(text)))):
            if name in names:
                body = node.body[0]
                space = " " * body.col_offset
                lines[body.lineno - 1 : node.end_lineno] = [f"{space}### TODO\n", f"{space}raise NotImplementedError\n"]
        files[path] = "".join(lines)
    return files


ATTENTION_TODO = ("BertSelfAttention.attention",)
LAYER_TODO = ("BertLayer.add_norm", "BertLayer.forward")
MODEL_TODO = ("BertModel.embed",)
OPTIMIZER_TODO = ("AdamW.step",)
# What is still to be written, what is wrong already, and what the parts are said to be. The starter gives the forward
# of the model, so that it is right before anything is written.
STAGES = {
    "nothing": ((*ATTENTION_TODO, *LAYER_TODO, *MODEL_TODO, *OPTIMIZER_TODO), (), "---+-"),
    "attention": ((*LAYER_TODO, *MODEL_TODO, *OPTIMIZER_TODO), (), "+--+-"),
    "attention and layer": ((*MODEL_TODO, *OPTIMIZER_TODO), swap(C_SCALE, "S = S * 1.0"), "!+-+-"),
    "all but the optimizer": (OPTIMIZER_TODO, (), "++++-"),
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_half_finished_project_hears_what_is_not_written(stage, tmp_path):
    todo, swaps, expected = STAGES[stage]
    results = verdicts(tmp_path, unwritten(changed(sources("course"), swaps), *todo))
    said = {"passed": "+", "wrong": "!", "not written": "-"}
    assert {name: said.get(r["status"], r["status"]) for name, r in results.items()} == dict(
        zip(PARTS, expected, strict=True)
    )
    assert named({k: r for k, r in results.items() if r["status"] == "wrong"}) == (
        ["attention: scores are not divided by √D"] if swaps else []
    )
    for result in results.values():
        if result["status"] == "not written":
            assert result["note"] in todo and result["file"] in ("bert.py", "optimizer.py") and result["line"]
