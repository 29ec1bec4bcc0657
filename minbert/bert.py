"""BERT, top to bottom in the order in which a sentence passes through it (Devlin et al. 2019).

    token ids ─ embed ─▶ vectors ─ L × (attention, feed-forward) ─▶ vectors in context ─ pool ─▶ one vector

BERT is the encoder half of the Transformer (Vaswani et al. 2017), with LayerNorm after each sub-layer:

    x   = LN(word + position + token type)                   embeddings
    x'  = LN(x  + dense(attention(x)))                       every layer: each token looks at all tokens,
    x'' = LN(x' + dense(GELU(dense(x'))))                    then a feed-forward network on each token by itself
    u   = tanh(W·x''_[CLS] + b)                              pooler: the sentence, from its first token

Dimensions, here and in all other files:

    B  examples in a batch             R  rows in a batch: B, or 2B where each sentence of a pair is a row of its own
    T  tokens in a row, with pads      C  hidden size, the width of a token's vector
    H  attention heads                 D  width of a head, C / H
    L  layers                          M  width inside the feed-forward network, usually 4C
    K  outputs of a head for a task    V  word pieces in the vocabulary
    N  examples in a data set

To BERT itself every row is an example, so in this file B counts rows. A technique's file also uses its paper's symbols
and explains them.

BERT differs from the Transformer's encoder in three places: positions are learned vectors and not sines, GELU stands
in place of ReLU, and a token type says to which of two sentences a token belongs. This file differs from Google's code
in three as well: GELU is exact and not approximated by a tanh (as in `transformers` and in the course), a pad's score
is lowered by the largest float and not by 10,000, and fresh weights come from a normal distribution that is not cut off
at two standard deviations.

Classes, parameters and most methods have the names of the course's `bert.py`. Nothing in this file depends on tasks,
training or the techniques that other files add.
"""

import math
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minbert.config import BertConfig


def plain_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, dropout: nn.Dropout) -> Tensor:
    """Each token takes the mean of all tokens' values, weighted by how well their keys fit its query:

        Attention(Q, K, V) = softmax(QKᵀ/√D + mask)·V        (Vaswani et al. 2017, eq. 1)

    q, k, v: (B, H, T, D). mask: (B, 1, 1, T), 0 for a token and hugely negative for a pad. Returns (B, H, T, D).

    Why √D? The product of a query and a key sums D numbers; if each has variance 1, the sum has variance D. Scores that
    large would give nearly all of the weight to one token, and the softmax would pass hardly any gradient. Without the
    mask a sentence's vectors would depend on its pads, and thus on the longest sentence in its batch.

    Dropout is applied to the probabilities, so that in training a token misses some of the others. Without it
    fine-tuning overfits sooner, and no comparison in evaluation mode shows that it is missing.
    """
    D = q.shape[-1]
    scores = q @ k.transpose(-2, -1) / math.sqrt(D) + mask  # (B, H, T, T): rows are queries, columns are keys
    probabilities = scores.softmax(dim=-1)  # (B, H, T, T): how much of each column a row takes; a row sums to 1
    return dropout(probabilities) @ v  # (B, H, T, D): the weighted means of the values


def sdpa_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, dropout: nn.Dropout) -> Tensor:
    """The same by PyTorch's fused kernels, which need not hold the T×T scores of all heads (on a CPU, with dropout,
    they still do). Without dropout the numbers are the same; with it, other probabilities are dropped.

    On a CPU in bfloat16 they are slower for short rows: with dropout they convert all to float32 first, and without it
    their backward pass takes 3 to 7 times as long at up to 128 tokens (PyTorch 2.13). There, rows of less than 256
    tokens go to `plain_attention`.
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.shape[2] < 256:
        return plain_attention(q, k, v, mask, dropout)
    p = dropout.p if dropout.training else 0.0
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=p)  # (B, H, T, D)


ATTENTION: dict[str, Callable] = {"plain": plain_attention, "sdpa": sdpa_attention}


class BertSelfAttention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017, §3.2.2): H attentions of width D = C/H side by side.

        head_h = Attention(x·W_Q, x·W_K, x·W_V)        each head has D columns of the three matrices
        output = [head_1; …; head_H]

    A softmax gives one distribution over the tokens. With several heads a token can look at its verb for one reason and
    at a negation for another; H heads of width D cost as much as one of width C. The matrix W_O that ends the paper's
    equation is `BertLayer.attention_dense`, where the course's starter has it.
    """

    def __init__(self, config: BertConfig, attention: str = "plain"):
        super().__init__()
        C = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.query = nn.Linear(C, C)
        self.key = nn.Linear(C, C)
        self.value = nn.Linear(C, C)
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)
        self.attend = ATTENTION[attention]

    def transform(self, x: Tensor, linear_layer: nn.Linear) -> Tensor:
        """Project, then split the width into heads: (B, T, C) → (B, H, T, D).

        The width is split before the axes change places. `.view(B, H, T, D)` would have the same shape, but put numbers
        of different tokens into one head.
        """
        B, T, C = x.shape
        H, D = self.num_heads, C // self.num_heads
        return linear_layer(x).view(B, T, H, D).transpose(1, 2)

    def forward(self, hidden_states: Tensor, mask: Tensor) -> Tensor:
        """(B, T, C) and the additive mask (B, 1, 1, T) → (B, T, C)."""
        q = self.transform(hidden_states, self.query)  # (B, H, T, D): what each token looks for
        k = self.transform(hidden_states, self.key)  # (B, H, T, D): what each token is found by
        v = self.transform(hidden_states, self.value)  # (B, H, T, D): what each token gives
        heads = self.attend(q, k, v, mask, self.dropout)  # (B, H, T, D)
        return heads.transpose(1, 2).flatten(2)  # (B, T, H·D) = (B, T, C): the heads side by side


class BertLayer(nn.Module):
    """One encoder layer: self-attention, then a feed-forward network, each with residual and LayerNorm.

        x'  = LN(x  + dropout(dense(attention(x))))
        x'' = LN(x' + dropout(dense(GELU(dense(x')))))
        LN(x) = γ⊙(x - mean(x))/√(var(x) + ε) + β

    Attention moves information between tokens; the feed-forward network works on each token by itself, M wide inside.
    The residual (x +) lets a layer change little, and gives the gradient a way past it; without it twelve layers hardly
    train. LayerNorm brings each token's vector back to one size, whatever the sub-layer added. It comes after the sum,
    as in the paper of 2017 (later models have it before the sub-layer); its ε is 1e-12 in BERT's config, not 1e-5.
    """

    def __init__(self, config: BertConfig, attention: str = "plain"):
        super().__init__()
        C, M = config.hidden_size, config.intermediate_size
        self.self_attention = BertSelfAttention(config, attention)
        self.attention_dense = nn.Linear(C, C)
        self.attention_layer_norm = nn.LayerNorm(C, eps=config.layer_norm_eps)
        self.attention_dropout = nn.Dropout(config.hidden_dropout_prob)
        self.interm_dense = nn.Linear(C, M)
        self.out_dense = nn.Linear(M, C)
        self.out_layer_norm = nn.LayerNorm(C, eps=config.layer_norm_eps)
        self.out_dropout = nn.Dropout(config.hidden_dropout_prob)

    def add_norm(self, input: Tensor, output: Tensor, dense_layer: nn.Linear, dropout: nn.Dropout,
                 ln_layer: nn.LayerNorm) -> Tensor:  # fmt: skip
        """Close a sub-layer: LN(input + dropout(dense(output))).

        input: (B, T, C), the sub-layer's input. output: (B, T, ·), its output. Returns (B, T, C).
        Dropout is applied to what the sub-layer adds, never to the residual.
        """
        return ln_layer(input + dropout(dense_layer(output)))  # (B, T, C): input and output together

    def attend(self, hidden_states: Tensor, mask: Tensor) -> Tensor:
        """The first sub-layer, LN(x + dropout(dense(attention(x)))): (B, T, C) → (B, T, C)."""
        attention = self.self_attention(hidden_states, mask)  # (B, T, C)
        return self.add_norm(
            hidden_states, attention, self.attention_dense, self.attention_dropout, self.attention_layer_norm
        )

    def forward(self, hidden_states: Tensor, mask: Tensor) -> Tensor:
        """(B, T, C) and the additive mask (B, 1, 1, T) → (B, T, C)."""
        attended = self.attend(hidden_states, mask)  # (B, T, C): each token in context
        ffn = F.gelu(self.interm_dense(attended))  # (B, T, M): GELU(x) = x·Φ(x), Φ exact
        return self.add_norm(attended, ffn, self.out_dense, self.out_dropout, self.out_layer_norm)


class BertModel(nn.Module):
    """The whole of BERT: `embed`, `encode`, and `forward`, which does both and pools.

    config: the sizes. attention: "plain" or "sdpa", two ways to the same numbers.
    The weights start random; `BertModel.from_pretrained(name)` loads real ones.
    """

    def __init__(self, config: BertConfig, attention: str = "plain"):
        super().__init__()
        self.config = config
        C = config.hidden_size
        self.word_embedding = nn.Embedding(config.vocab_size, C, padding_idx=config.pad_token_id)
        self.pos_embedding = nn.Embedding(config.max_position_embeddings, C)
        self.tk_type_embedding = nn.Embedding(config.type_vocab_size, C)
        self.embed_layer_norm = nn.LayerNorm(C, eps=config.layer_norm_eps)
        self.embed_dropout = nn.Dropout(config.hidden_dropout_prob)
        self.bert_layers = nn.ModuleList(BertLayer(config, attention) for _ in range(config.num_hidden_layers))
        self.pooler_dense = nn.Linear(C, C)
        self.apply(self._init_weights)

    def _init_weights(self, module: nn.Module):
        """Fresh weights as in BERT: N(0, 0.02²), zero biases, and a zero vector for [PAD]."""
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            nn.init.zeros_(module.weight[module.padding_idx])

    def embed(self, input_ids: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Token ids (B, T) → vectors (B, T, C), by three tables whose rows are learned:

            x = dropout(LN(word[id] + position[place] + type[sentence]))        (Devlin et al. 2019, fig. 2)

        token_type_ids: (B, T), 0 in a first and 1 in a second sentence; None is all zeros.

        Attention by itself does not know the order of the tokens: without the positions "dog bites man" and "man bites
        dog" would have the same vectors. Without the types a pair's second sentence would look like more of the first
        one (the course's starter sets them all to 0).
        """
        T = input_ids.shape[1]
        if T > self.config.max_position_embeddings:
            raise ValueError(f"{T} tokens, but this BERT has {self.config.max_position_embeddings} positions")
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(input_ids)
        positions = torch.arange(T, device=input_ids.device)
        embedded = (
            self.word_embedding(input_ids)  # (B, T, C): what each piece means by itself
            + self.pos_embedding(positions)  # (T, C): where it stands, the same for every sentence
            + self.tk_type_embedding(token_type_ids)  # (B, T, C): first or second sentence
        )
        return self.embed_dropout(self.embed_layer_norm(embedded))  # (B, T, C): the sum, after LayerNorm

    def encode(self, hidden_states: Tensor, attention_mask: Tensor) -> Tensor:
        """Vectors (B, T, C) → vectors in context (B, T, C), through all L layers.

        attention_mask: (B, T), 1 for a token, 0 for a pad. It becomes a number that is added to the scores: 0 for a
        token, and for a pad the lowest float, whose e^x is 0. (-∞ would make NaN of a row that has no token.)
        """
        lowest = torch.finfo(hidden_states.dtype).min
        mask = (1 - attention_mask[:, None, None, :].to(hidden_states.dtype)) * lowest  # (B, 1, 1, T): 0 for a token
        for layer in self.bert_layers:
            hidden_states = layer(hidden_states, mask)  # (B, T, C): after this layer
        return hidden_states  # (B, T, C): after the last one, each token in the context of all the others

    def pool(self, hidden_states: Tensor) -> Tensor:
        """The sentence's vector, from its first token: (B, T, C) → (B, C).

            u = tanh(W·h_[CLS] + b)

        [CLS] has no meaning of its own, so its vector can stand for the whole sentence. BERT learned W by telling
        whether one sentence follows another (Devlin et al. 2019, §3.1). A model without this training has a poor
        pooler, and the mean over the tokens, `heads.mean_pool`, is better: with minilm it raised STS from .698 to .811
        (minbert/recipes/RESULTS.md, heads and pooling).
        """
        return torch.tanh(self.pooler_dense(hidden_states[:, 0]))  # (B, C): the sentence

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Ids and mask (B, T) → {"last_hidden_state": (B, T, C), "pooler_output": (B, C)}."""
        hidden_states = self.encode(self.embed(input_ids, token_type_ids), attention_mask)
        return {"last_hidden_state": hidden_states, "pooler_output": self.pool(hidden_states)}

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *rest):
        """Leave out the positions 0, 1, 2, … that the course's BERT saves with its weights; `embed` computes them."""
        state_dict.pop(f"{prefix}position_ids", None)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    @classmethod
    def from_pretrained(cls, name: str | Path, attention: str = "plain", *, local_files_only: bool = False,
                        num_attention_heads: int | None = None) -> "BertModel":  # fmt: skip
        """The pretrained BERT `name`, in eval mode: a hub name, a path or "minilm" (see `pretrained.load_bert`).

        A subclass returns a model of its own class; what it adds to BERT starts as its `__init__(config)` makes it.
        """
        from minbert.pretrained import load_bert  # imported here, since loading is a later chapter

        bert = load_bert(name, attention, num_attention_heads=num_attention_heads, local_files_only=local_files_only)
        if cls is BertModel:
            return bert
        model = cls(bert.config) if attention == "plain" else cls(bert.config, attention)
        misfits = model.load_state_dict(bert.state_dict(), strict=False).unexpected_keys
        if misfits:
            raise TypeError(f"{cls.__name__} has no {misfits[0]}: it is not a BertModel with something added")
        return model.eval()


def attention_maps(bert: BertModel, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None):
    """The attention probabilities of all layers: each row is the token that looks, each column the one looked at.

    input_ids, attention_mask, token_type_ids: (B, T). Returns (L, B, H, T, T).
    bert: in evaluation mode, with "plain" attention, whose probabilities pass through `dropout`; else ValueError.
    """
    maps: list[Tensor] = []
    attentions = [layer.self_attention for layer in bert.bert_layers]
    hooks = [a.dropout.register_forward_hook(lambda module, inputs, output: maps.append(output)) for a in attentions]
    try:
        with torch.no_grad():
            bert(input_ids, attention_mask, token_type_ids)
    finally:
        for hook in hooks:
            hook.remove()
    if bert.training or len(maps) != len(attentions):
        raise ValueError('attention maps need a BERT in evaluation mode, made with attention="plain"')
    return torch.stack(maps)
