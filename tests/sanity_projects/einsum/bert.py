"""BERT, each product an einsum.  b sentences, q and k tokens, h heads, d width of a head, c width of a token."""

import torch
import torch.nn.functional as F
from torch import Tensor, einsum, nn


class BertSelfAttention(nn.Module):
    def __init__(self, config, bias: bool = True):
        super().__init__()
        C = config.hidden_size
        self.heads, self.head_size = config.num_attention_heads, C // config.num_attention_heads
        self.query, self.key, self.value = (nn.Linear(C, C, bias=bias) for _ in range(3))
        self.p = config.attention_probs_dropout_prob

    def projections(self, x: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values at once, each (b, t, h, d)."""
        layers = (self.query, self.key, self.value)
        weight = torch.cat([layer.weight for layer in layers])
        bias = torch.cat([layer.bias for layer in layers])
        fused = F.linear(x, weight, bias)
        return fused.unflatten(-1, (3, self.heads, self.head_size)).unbind(2)

    def forward(self, hidden_states: Tensor, attention_mask: Tensor) -> Tensor:
        q, k, v = self.projections(hidden_states)
        scores = einsum("bqhd,bkhd->bhqk", q, k) * self.head_size**-0.5
        scores = scores.masked_fill(attention_mask < 0, float("-inf"))
        weights = F.dropout(torch.softmax(scores, -1), self.p, self.training)
        return einsum("bhqk,bkhd->bqhd", weights, v).flatten(2)


class BertLayer(nn.Module):
    def __init__(self, config):
        super().__init__()
        C, inner, eps = config.hidden_size, config.intermediate_size, config.layer_norm_eps
        self.self_attention = BertSelfAttention(config)
        self.attention_dense = nn.Linear(C, C)
        self.interm_dense, self.out_dense = nn.Linear(C, inner), nn.Linear(inner, C)
        self.attention_layer_norm, self.out_layer_norm = nn.LayerNorm(C, eps), nn.LayerNorm(C, eps)
        self.p = config.hidden_dropout_prob

    def drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.p, self.training)

    def forward(self, hidden_states: Tensor, attention_mask: Tensor) -> Tensor:
        x = hidden_states
        mixed = self.attention_dense(self.self_attention(x, attention_mask))
        x = self.attention_layer_norm(x + self.drop(mixed))
        inner = self.interm_dense(x)
        inner = inner * 0.5 * (1 + torch.erf(inner / 2**0.5))
        fed = self.out_dense(inner)
        return self.out_layer_norm(x + self.drop(fed))


class BertModel(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        C = config.hidden_size
        self.word_embedding = nn.Embedding(config.vocab_size, C, padding_idx=config.pad_token_id)
        self.pos_embedding = nn.Embedding(config.max_position_embeddings, C)
        self.tk_type_embedding = nn.Embedding(config.type_vocab_size, C)
        self.embed_layer_norm = nn.LayerNorm(C, config.layer_norm_eps)
        self.embed_dropout = nn.Dropout(config.hidden_dropout_prob)
        self.bert_layers = nn.ModuleList(BertLayer(config) for _ in range(config.num_hidden_layers))
        self.pooler_dense = nn.Linear(C, C)

    @classmethod
    def from_pretrained(cls, name):
        raise OSError(f"no weights of {name} here")

    def embed(self, input_ids: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        kinds = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        words = self.word_embedding(input_ids)
        places = self.pos_embedding.weight[: input_ids.shape[1]]
        summed = words + places + self.tk_type_embedding(kinds)
        return self.embed_dropout(self.embed_layer_norm(summed))

    def encode(self, hidden_states: Tensor, attention_mask: Tensor) -> Tensor:
        pads = attention_mask[:, None, None].eq(0)
        added = torch.zeros(pads.shape, device=pads.device).masked_fill(pads, -1e9).to(hidden_states)
        for layer in self.bert_layers:
            hidden_states = layer(hidden_states, added)
        return hidden_states

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None):
        last = self.encode(self.embed(input_ids, token_type_ids), attention_mask)
        first = last.select(1, 0)
        pooled = self.pooler_dense(first).tanh()
        return {"last_hidden_state": last, "pooler_output": pooled}
