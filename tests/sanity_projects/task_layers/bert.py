"""A BERT whose layers know the task, return their probabilities as well, and take keywords."""

import torch
import torch.nn.functional as F
from base_bert import BertPreTrainedModel
from torch import nn
from utils import *


class Attention(nn.Module):
    """The attention in use; `BertSelfAttention` below is an earlier attempt."""

    def __init__(self, config, layer_number=0):
        super().__init__()
        self.h = config.num_attention_heads
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)

    def heads(self, x):
        return x.unflatten(-1, (self.h, x.shape[-1] // self.h)).permute(0, 2, 1, 3)

    def forward(self, hidden_states, attention_mask=None, task=None):
        q, k, v = (
            self.heads(self.query(hidden_states)),
            self.heads(self.key(hidden_states)),
            self.heads(self.value(hidden_states)),
        )
        scores = q @ k.mT / q.shape[-1] ** 0.5
        if attention_mask is not None:
            scores = scores + attention_mask
        probabilities = scores.softmax(dim=-1)
        context = self.dropout(probabilities) @ v
        return context.permute(0, 2, 1, 3).flatten(-2), probabilities


class BertSelfAttention(nn.Module):
    """Not used any more."""

    def __init__(self, config):
        super().__init__()
        self.query = self.key = self.value = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden_states, attention_mask):
        return self.value(hidden_states)


class BertLayer(nn.Module):
    def __init__(self, config, layer_number=0):
        super().__init__()
        self.self_attention = Attention(config, layer_number)
        self.attention_dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.attention_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention_dropout = nn.Dropout(config.hidden_dropout_prob)
        self.interm_dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.out_dense = nn.Linear(config.intermediate_size, config.hidden_size)
        self.out_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.out_dropout = nn.Dropout(config.hidden_dropout_prob)
        self.adapters = nn.ModuleDict()

    def add_task(self, name, width):
        size = self.out_dense.out_features
        up = nn.Linear(width, size)
        nn.init.zeros_(up.weight)
        nn.init.zeros_(up.bias)
        self.adapters[name] = nn.Sequential(nn.Linear(size, width), nn.ReLU(), up)

    def forward(self, hidden_states, attention_mask=None, task=None):
        context, probabilities = self.self_attention(
            hidden_states=hidden_states, attention_mask=attention_mask, task=task
        )
        context = self.attention_dropout(self.attention_dense(context))
        x = self.attention_layer_norm(hidden_states + context)
        y = self.out_dropout(self.out_dense(F.gelu(self.interm_dense(x))))
        if task in self.adapters:
            y = y + self.adapters[task](x)
        return self.out_layer_norm(x + y), probabilities


class BertModel(BertPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.word_embedding = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.pos_embedding = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.tk_type_embedding = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.embed_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.embed_dropout = nn.Dropout(config.hidden_dropout_prob)
        self.register_buffer("positions", torch.arange(config.max_position_embeddings)[None])
        self.bert_layers = nn.ModuleList(BertLayer(config, layer_number=i) for i in range(config.num_hidden_layers))
        self.pooler_dense, self.pooler_af = nn.Linear(config.hidden_size, config.hidden_size), nn.Tanh()
        self.init_weights()

    def embed(self, input_ids, token_type_ids):
        x = self.word_embedding(input_ids) + self.pos_embedding(self.positions[:, : input_ids.size(1)])
        return self.embed_dropout(self.embed_layer_norm(x + self.tk_type_embedding(token_type_ids)))

    def encode(self, hidden_states, attention_mask, task=None):
        mask, everything = get_extended_attention_mask(attention_mask, self.dtype), []
        for layer in self.bert_layers:
            hidden_states, probabilities = layer(hidden_states, attention_mask=mask, task=task)
            everything.append(hidden_states)
        return hidden_states, everything

    def forward(self, input_ids, attention_mask, token_type_ids=None, task=None):
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(input_ids)
        hidden, everything = self.encode(self.embed(input_ids, token_type_ids), attention_mask, task)
        pooled = self.pooler_af(self.pooler_dense(hidden[:, 0]))
        return {"last_hidden_state": hidden, "pooler_output": pooled, "last_four": torch.stack(everything[-4:]).mean(0)}
