"""BERT as a package's module, with a boolean mask that both sides of the interface agree on."""

import math

import torch
from torch import nn

from .settings import BertConfig


class BertSelfAttention(nn.Module):
    def __init__(self, config: BertConfig):
        super().__init__()
        self.heads, self.width = config.n_heads, config.d_model // config.n_heads
        for name in ("query", "key", "value"):
            setattr(self, name, nn.Linear(config.d_model, config.d_model))
        self.p = config.dropout

    def forward(self, *, x, keep):
        """x: (B, T, C). keep: (B, T), true at tokens."""
        B, T, C = x.shape
        q, k, v = (
            f(x).reshape(B, T, self.heads, self.width).swapaxes(1, 2) for f in (self.query, self.key, self.value)
        )
        scores = torch.einsum("bhid,bhjd->bhij", q, k) / math.sqrt(self.width)
        scores = scores.masked_fill(~keep[:, None, None, :], float("-inf"))
        weights = nn.functional.dropout(scores.softmax(-1), self.p, self.training)
        return torch.einsum("bhij,bhjd->bihd", weights, v).reshape(B, T, C), weights


class BertLayer(nn.Module):
    def __init__(self, config: BertConfig):
        super().__init__()
        C = config.d_model
        self.self_attention = BertSelfAttention(config)
        self.attention_dense = nn.Linear(C, C)
        self.attention_layer_norm = nn.LayerNorm(C, config.ln_eps)
        self.interm_dense, self.out_dense = nn.Linear(C, config.d_ff), nn.Linear(config.d_ff, C)
        self.out_layer_norm = nn.LayerNorm(C, config.ln_eps)
        self.dropout, self.act = nn.Dropout(config.dropout), nn.GELU()

    def forward(self, x, keep):
        attended, _ = self.self_attention(x=x, keep=keep)
        x = self.attention_layer_norm(x + self.dropout(self.attention_dense(attended)))
        inner = self.act(self.interm_dense(x))
        return self.out_layer_norm(x + self.dropout(self.out_dense(inner)))


class BertModel(nn.Module):
    def __init__(self, config: BertConfig):
        super().__init__()
        self.config = config
        C = config.d_model
        self.word_embedding = nn.Embedding(config.vocab, C, padding_idx=config.pad_id)
        self.pos_embedding = nn.Embedding(config.max_len, C)
        self.tk_type_embedding = nn.Embedding(config.n_segments, C)
        self.embed_layer_norm, self.embed_dropout = nn.LayerNorm(C, config.ln_eps), nn.Dropout(config.dropout)
        self.bert_layers = nn.ModuleList(BertLayer(config) for _ in range(config.n_layers))
        self.pooler_dense = nn.Linear(C, C)

    @classmethod
    def from_pretrained(cls, name):
        model = cls(BertConfig())
        model.load_state_dict(torch.load(f"weights/{name}.pt", weights_only=True))
        return model.eval()

    def embed(self, ids):
        places = torch.arange(ids.size(1), device=ids.device)
        kinds = torch.zeros_like(ids)
        total = self.word_embedding(ids) + self.pos_embedding(places) + self.tk_type_embedding(kinds)
        return self.embed_dropout(self.embed_layer_norm(total))

    def forward(self, ids, mask):
        keep, x = mask.bool(), self.embed(ids)
        for layer in self.bert_layers:
            x = layer(x, keep=keep)
        return {"last_hidden_state": x, "pooler_output": torch.tanh(self.pooler_dense(x[:, 0]))}
