"""A right BERT made of PyTorch's own layers, in place of the parts below the one of theirs that is checked.

`F.multi_head_attention_forward`, `nn.TransformerEncoderLayer`, `F.embedding_bag` and `torch.rnn_tanh_cell` (whose tanh
is the pooler's) do the work; the parameters have the course's names. Nothing here is how a student would write it, so
that an exercise may hold this file and no solution.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def attention(module: nn.Module, x: Tensor, mask: Tensor, heads: int, p: float = 0.0) -> Tensor:
    """Multi-head attention by a module's `query`, `key` and `value`, each (C, C). p: the rate of a dropout that is on.

    x: (B, T, C). mask: (B, 1, 1, T), added to the scores. Returns (B, T, C).
    """
    names = ("query", "key", "value")
    weights = {f"{name[0]}_proj_weight": getattr(module, name).weight for name in names}
    bias = torch.cat([getattr(module, name).bias for name in names])
    (rows, length, width), tokens = x.shape, x.transpose(0, 1)  # (T, B, C), the library's order
    output, _ = F.multi_head_attention_forward(
        tokens, tokens, tokens, width, heads, None, bias, None, None, False, p, torch.eye(width, dtype=x.dtype), None,
        training=p > 0, need_weights=False, use_separate_proj_weight=True, **weights,
        attn_mask=mask.to(x.dtype).expand(rows, heads, length, length).flatten(0, 1),
    )  # fmt: skip
    return output.transpose(0, 1)


class Attention(nn.Module):
    """As the starter's BertSelfAttention."""

    batch_first = False  # what the library asks of an attention of its own

    def __init__(self, config: Any):
        super().__init__()
        C = config.hidden_size
        self.query, self.key, self.value = nn.Linear(C, C), nn.Linear(C, C), nn.Linear(C, C)
        self.heads, self.p = config.num_attention_heads, config.attention_probs_dropout_prob

    def forward(self, hidden_states: Tensor, attention_mask: Tensor) -> Tensor:
        return attention(self, hidden_states, attention_mask, self.heads, self.p if self.training else 0.0)


class Layer(nn.Module):
    """As the starter's BertLayer: its parameters, lent to the library's encoder layer."""

    def __init__(self, config: Any):
        super().__init__()
        C, M, eps = config.hidden_size, config.intermediate_size, config.layer_norm_eps
        self.self_attention = Attention(config)
        self.attention_dense, self.attention_layer_norm = nn.Linear(C, C), nn.LayerNorm(C, eps)
        self.interm_dense, self.out_dense = nn.Linear(C, M), nn.Linear(M, C)
        self.out_layer_norm = nn.LayerNorm(C, eps)
        self.p = config.hidden_dropout_prob

    def forward(self, hidden_states: Tensor, attention_mask: Tensor) -> Tensor:
        with torch.device("meta"):
            encoder = nn.TransformerEncoderLayer(1, 1, 1, self.p, F.gelu)
        encoder.dropout = nn.Identity()  # inside the feed-forward network, where BERT has none
        encoder.self_attn = _Projected(self.self_attention, self.attention_dense)
        encoder.linear1, encoder.linear2 = self.interm_dense, self.out_dense
        encoder.norm1, encoder.norm2 = self.attention_layer_norm, self.out_layer_norm
        encoder.train(self.training)
        B, T, _ = hidden_states.shape
        mask = attention_mask.to(hidden_states.dtype).expand(B, 1, T, T)[:, 0]
        return encoder(hidden_states.transpose(0, 1), src_mask=mask).transpose(0, 1)


class _Projected(nn.Module):
    """Attention and its dense layer, called as the library's encoder layer calls its own."""

    batch_first = False

    def __init__(self, attention: nn.Module, dense: nn.Linear):
        super().__init__()
        self.attention, self.dense = attention, dense

    def forward(self, x: Tensor, *others: Tensor, attn_mask: Tensor, **options: Any) -> tuple[Tensor, None]:
        return self.dense(self.attention(x.transpose(0, 1), attn_mask[:, None])).transpose(0, 1), None


def embed(model: nn.Module, ids: Tensor, types: Tensor | None, p: float, eps: float) -> Tensor:
    """Token ids (B, T) → (B, T, C) by the three tables and the LayerNorm of a module. p: the rate of a dropout."""
    tables = [getattr(model, f"{name}_embedding").weight for name in ("word", "pos", "tk_type")]
    place, kind = torch.arange(ids.shape[1]) + len(tables[0]), len(tables[0]) + len(tables[1])
    kinds = torch.zeros_like(ids) if types is None else types
    bags = torch.stack(torch.broadcast_tensors(ids, place, kinds + kind), dim=-1)  # (B, T, 3): rows of one long table
    summed = F.embedding_bag(bags.flatten(0, 1), torch.cat(tables), mode="sum").unflatten(0, ids.shape)
    norm = model.embed_layer_norm
    return F.dropout(F.layer_norm(summed, summed.shape[-1:], norm.weight, norm.bias, eps), p, model.training)


class Embeddings(nn.Module):
    """The part of the starter's BertModel that embeds."""

    def __init__(self, config: Any):
        super().__init__()
        self.config, C = config, config.hidden_size
        self.word_embedding = nn.Embedding(config.vocab_size, C)
        self.pos_embedding = nn.Embedding(config.max_position_embeddings, C)
        self.tk_type_embedding = nn.Embedding(config.type_vocab_size, C)
        self.embed_layer_norm = nn.LayerNorm(C, config.layer_norm_eps)

    def embed(self, input_ids: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        return embed(self, input_ids, token_type_ids, self.config.hidden_dropout_prob, self.config.layer_norm_eps)


class BertModel(Embeddings):
    """As the starter's BertModel."""

    def __init__(self, config: Any):
        super().__init__(config)
        C = config.hidden_size
        self.bert_layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.pooler_dense = nn.Linear(C, C)

    def encode(self, hidden_states: Tensor, attention_mask: Tensor) -> Tensor:
        mask = torch.zeros(attention_mask.shape, dtype=hidden_states.dtype)
        mask = mask.masked_fill(attention_mask == 0, torch.finfo(mask.dtype).min)[:, None, None]
        for one in self.bert_layers:
            hidden_states = one(hidden_states, mask)
        return hidden_states

    def pool(self, hidden_states: Tensor) -> Tensor:
        first, weight = hidden_states.unbind(1)[0], self.pooler_dense.weight
        state, no_bias = torch.zeros_like(first), torch.zeros_like(self.pooler_dense.bias)
        return torch.rnn_tanh_cell(first, state, weight, torch.zeros_like(weight), self.pooler_dense.bias, no_bias)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        hidden = self.encode(self.embed(input_ids, token_type_ids), attention_mask)
        return {"last_hidden_state": hidden, "pooler_output": self.pool(hidden)}
