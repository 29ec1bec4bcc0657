"""One BERT, a head for every task.

    batch ─ embed ─▶ vectors ─ encode ─▶ in context ─ pool ─▶ u (and v) ─ the task's head ─▶ logits

`embed` and `logits` stay apart because some techniques enter between them: they nudge the vectors that go in and
watch the logits that come out.
"""

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from minbert.bert import BertModel
from minbert.data import Batch
from minbert.heads import Encoded, build_heads, choose_head, mean_pool
from minbert.tasks import TASKS


class MultitaskBert(nn.Module):
    """BERT with one head a task.

    tasks: names from `TASKS`. pairs: how the data feeds sentence pairs, "separate" (two rows) or "joint" (one).
    pooling: "cls" (BERT's pooler) or "mean". heads: the names of the heads of some tasks, for others the default.
    dropout: of the heads alone, as in the course's starter; BERT has its own rate. The attribute `precision` is the
    number format of the matrix products, "fp32" or "bf16"; weights and outputs are float32 in either.
    """

    precision = "fp32"

    def __init__(
        self,
        bert: BertModel,
        tasks: Iterable[str],
        pairs: str = "separate",
        pooling: str = "cls",
        heads: Mapping[str, str] | None = None,
        dropout: float = 0.3,
    ):
        super().__init__()
        names = {task: choose_head(TASKS[task], pairs, (heads or {}).get(task)) for task in tasks}
        # All that it takes, beside BERT's config, to build this model again around other weights:
        self.build = {"tasks": list(names), "pairs": pairs, "pooling": pooling, "heads": names, "dropout": dropout}
        self.bert = bert
        self.heads = build_heads(names, TASKS, bert.config.hidden_size, dropout)

    def embed(self, batch: Batch) -> Tensor:
        """A batch's rows as vectors, not yet in context: (R, T, C), R = B or, for separate pairs, 2B."""
        with self.autocast():
            return self.bert.embed(batch.input_ids, batch.token_type_ids).to(self.dtype)

    def logits(self, batch: Batch, embedded: Tensor) -> Tensor:
        """The batch's task's raw outputs (B, outputs), from its embedded rows (R, T, C)."""
        with self.autocast():
            tokens = self.bert.encode(embedded, batch.attention_mask).to(self.dtype)  # (R, T, C)
            mask = batch.attention_mask
            vectors = self.bert.pool(tokens) if self.build["pooling"] == "cls" else mean_pool(tokens, mask)  # (R, C)
            B = len(batch)
            rows = [vectors, tokens, mask]
            second = [x[B:] if len(x) > B else None for x in rows]  # the second sentences of separate pairs
            (u, tokens_u, mask_u), (v, tokens_v, mask_v) = [x[:B] for x in rows], second
            return self.heads[batch.task](Encoded(u, v, tokens_u, tokens_v, mask_u, mask_v)).to(self.dtype)

    def autocast(self) -> torch.autocast:
        """What runs inside has its matrix products in `precision`."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def forward(self, batch: Batch) -> Tensor:
        """Raw outputs (B, outputs) for a batch of any of the tasks."""
        return self.logits(batch, self.embed(batch))

    def parameters_of(self, task: str) -> Iterator[nn.Parameter]:
        """The parameters that a task's outputs depend on: BERT's and its head's."""
        yield from self.bert.parameters()
        yield from self.heads[task].parameters()

    def freeze_bert(self):
        """Train the heads alone (the course's "pretrain" and "last-linear-layer")."""
        for parameter in self.bert.parameters():
            parameter.requires_grad = False

    @property
    def dtype(self) -> torch.dtype:
        return self.bert.word_embedding.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.bert.word_embedding.weight.device
