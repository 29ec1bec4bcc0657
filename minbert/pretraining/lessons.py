"""The MLM head, one BERT with what both lessons need, and how masked words are scored."""

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minbert import processes
from minbert.bert import BertModel
from minbert.config import BertConfig
from minbert.data import Batch, Dataset, Example, eval_batches
from minbert.errors import UserError
from minbert.hub import find
from minbert.multitask import MultitaskBert
from minbert.pretrained import load_bert, load_strictly, mlm_weights
from minbert.pretraining.masking import Masker, generator_for
from minbert.tasks import TASKS
from minbert.tokenizer import BertTokenizer

BATCH = 8192  # tokens; with another number the held-out sentences would get other masks, which are drawn by batch
SENTENCES = replace(TASKS["sst"], name="mlm", title="masked words")  # the task of a data set of texts without labels


class MlmHead(nn.Module):
    """The head of BERT's pre-training, which most checkpoints hold: a token's vector → a logit for every word piece.

        logits = W·LN(GELU(A·x + a)) + b        W is the word embedding, not a second copy

    Since W is also BERT's input, a token's vector must come near the embedding of the word that belongs there.
    """

    def __init__(self, config: BertConfig):
        super().__init__()
        C = config.hidden_size
        self.dense = nn.Linear(C, C)
        self.layer_norm = nn.LayerNorm(C, eps=config.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        nn.init.normal_(self.dense.weight, std=config.initializer_range)
        nn.init.zeros_(self.dense.bias)

    def forward(self, x: Tensor, word_embedding: Tensor) -> Tensor:
        """Vectors (N, C) and the word embedding (V, C) → logits (N, V)."""
        return F.linear(self.layer_norm(F.gelu(self.dense(x))), word_embedding, self.bias)


class Learner(nn.Module):
    """One BERT with what both lessons need: the MLM head, and `nli`, a MultitaskBert of that one task (or of none).

    nli: the arguments of `MultitaskBert` besides BERT and tasks; None leaves the lesson out. keeps_mlm: whether the MLM
    head is worth writing, because it was loaded or will be trained.
    """

    keeps_mlm = True

    def __init__(self, bert: BertModel, nli: Mapping | None = None):
        super().__init__()
        self.bert = bert
        self.mlm = MlmHead(bert.config)
        self.nli = MultitaskBert(bert, ["nli"] if nli is not None else [], **(nli or {}))

    def mlm_logits(self, batch: Batch, seen: Tensor, chosen: Tensor) -> Tensor:
        """The logits at the N chosen places alone, since at all places they would be 7 times the work.

        batch: it gives the attention mask and the token types. seen: (B, T), its ids as masked. chosen: (B, T), bool.
        Returns (N, V).
        """
        x = self.bert.encode(self.bert.embed(seen, batch.token_type_ids), batch.attention_mask)  # (B, T, C)
        return self.mlm(x[chosen], self.bert.word_embedding.weight)  # (N, V)

    def mlm_loss(self, batch: Batch, seen: Tensor, chosen: Tensor) -> Tensor:
        """Mean cross-entropy over the chosen places; 0 where chance chose none."""
        logits = self.mlm_logits(batch, seen, chosen)
        return F.cross_entropy(logits, batch.input_ids[chosen], reduction="sum") / max(1, len(logits))


@torch.no_grad()
def score_masked(learner: Learner, data: Dataset, masker: Masker) -> dict[str, float]:
    """MLM's mean loss in nats over the chosen tokens of `data`, and the share predicted right; always the same masks.

    A "word" is a word piece. There is no dropout; BERT's mode is restored. UserError where the loss is not finite.
    """
    was_training = learner.training
    learner.eval()
    device = learner.nli.device
    loss, correct, count = 0.0, 0, 0
    for number, batch in islice(enumerate(eval_batches(data, BATCH)), processes.rank(), None, processes.size()):
        seen, chosen = (x.to(device) for x in masker(batch.input_ids, generator_for(2, number)))
        batch = batch.to(device)
        with learner.nli.autocast():
            logits = learner.mlm_logits(batch, seen, chosen).float()
        targets = batch.input_ids[chosen]
        loss += F.cross_entropy(logits, targets, reduction="sum").item()
        correct += (logits.argmax(dim=-1) == targets).sum().item()
        count += len(targets)
    learner.train(was_training)
    loss, correct, count = processes.summed([torch.tensor([loss, correct, count], dtype=torch.float64)])[0].tolist()
    if not math.isfinite(loss):
        raise UserError("the loss of mlm on the held-out sentences is not a finite number any more; lower --lr")
    return {"mlm_loss": loss / max(1, count), "masked_word_accuracy": correct / max(1, count)}


def fill_mask(learner: Learner, tokenizer: BertTokenizer, text: str, k: int = 5) -> list[list[tuple[str, float]]]:
    """The k likeliest word pieces and their probabilities, for every [MASK] in a text.

    learner: `load_learner(name)` of weights that come with an MLM head, as `--out` of the pre-training does.
    """
    data = Dataset(SENTENCES, [Example(None, (text,), None)], tokenizer)
    batch = data.batch([0]).to(learner.nli.device)
    with torch.no_grad():
        logits = learner.eval().mlm_logits(batch, batch.input_ids, batch.input_ids == tokenizer.mask_id)
    best = logits.softmax(dim=-1).topk(k)
    return [
        [(tokenizer.vocab[i], p) for i, p in zip(ids, probabilities, strict=True)]
        for ids, probabilities in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def load_learner(
    name: str | Path,
    attention: str = "plain",
    dropout: float | None = None,
    nli: Mapping | None = None,
    local_files_only: bool = False,
) -> tuple[Learner, bool]:
    """The BERT of `name` with both heads, and whether its weights have an MLM head; otherwise that head is fresh."""
    learner = Learner(load_bert(name, attention, dropout, local_files_only=local_files_only), nli)
    head = mlm_weights(find(name, local_files_only))
    if head:
        load_strictly(learner.mlm, head, f"{name}: the MLM head")
    return learner, bool(head)
