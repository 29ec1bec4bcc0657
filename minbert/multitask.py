"""One BERT, a head for every task.

    batch ─ embed ─▶ vectors ─ encode ─▶ in context ─ pool ─▶ u (and v) ─ the task's head ─▶ logits

`embed` and `logits` are two methods because some techniques change the vectors between them and compare the logits.
Other techniques, the additions (`additions.py`), change BERT itself, after its weights are loaded.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from minbert import additions as surgery
from minbert.additions import part_of
from minbert.bert import BertModel
from minbert.data import Batch
from minbert.errors import UserError
from minbert.heads import CrossAttentionHead, Encoded, build_heads, choose_head, inner, mean_pool
from minbert.tasks import Task, of_task, task_row

FORMATS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}  # None: that of the weights


class MultitaskBert(nn.Module):
    """BERT with one head a task.

    tasks: names of rows of `TASKS`, or rows of your own. pairs: how sentence pairs are given, "separate" (two rows)
    or "joint" (one). pooling: "cls" (BERT's pooler) or "mean". Both may be a mapping, task → one of them. heads:
    task → name of its head; other tasks have the default. dropout: of the heads alone, as in the course's
    starter; BERT has its own rate. additions: changes of BERT, {"lora": {"rank": 8}} (`additions.py`). The attribute
    `precision`, "fp32", "bf16" or "fp16", is the number format of the matrix products inside `with model.autocast():`;
    weights and outputs are float32 in all three.
    """

    precision = "fp32"

    def __init__(
        self,
        bert: BertModel,
        tasks: Iterable[str | Task],
        pairs: str | Mapping[str, str] = "separate",
        pooling: str | Mapping[str, str] = "cls",
        heads: Mapping[str, str] | None = None,
        dropout: float = 0.3,
        additions: Mapping[str, Mapping[str, Any]] | None = None,
    ):
        super().__init__()
        self.tasks = {task.name: task for task in map(task_row, tasks)}
        taken = {part for name, _ in bert.named_parameters() for part in name.split(".")} | set(dir(nn.ModuleDict))
        for name in self.tasks:
            if name in taken or not name.isidentifier():
                raise ValueError(
                    f"a task cannot be called {name!r}: use one word that is not the name of a part of the model"
                )
        self.pairs = {name: of_task(pairs, name) for name in self.tasks}
        self.pooling = {name: of_task(pooling, name) for name in self.tasks}
        if not {*self.pairs.values()} <= {"separate", "joint"} or not {*self.pooling.values()} <= {"cls", "mean"}:
            raise ValueError(f"pairs are separate or joint, and the pooling is cls or mean, not {pairs} and {pooling}")
        names = {n: choose_head(task, self.pairs[n], (heads or {}).get(n)) for n, task in self.tasks.items()}
        joint = any(task.is_pair and self.pairs[name] == "joint" for name, task in self.tasks.items())
        if joint and bert.config.type_vocab_size < 2:
            raise UserError("this BERT has one token type (type_vocab_size 1), --pairs joint needs two; use separate")
        # With BERT's config, this is enough to build the model again, around other weights:
        self.build = {"tasks": [task.plain() for task in self.tasks.values()], "pairs": pairs, "pooling": pooling}
        self.build |= {
            "heads": names,
            "dropout": dropout,
            "additions": {k: dict(v) for k, v in (additions or {}).items()},
        }
        self.bert = bert
        self.additions = surgery.add(bert, list(self.tasks), self.build["additions"])
        self.heads = build_heads(names, self.tasks, bert.config.hidden_size, dropout)

    def embed(self, batch: Batch) -> Tensor:
        """A batch's rows before BERT's layers; returns (R, T, C), R = B, or 2B for separate pairs."""
        return self.bert.embed(batch.input_ids, batch.token_type_ids).to(self.dtype)

    def logits(self, batch: Batch, embedded: Tensor) -> Tensor:
        """The raw outputs of the batch's task. embedded: (R, T, C), its rows before BERT's layers. Returns (B, K)."""
        tokens, vectors = self.encode(batch, embedded)
        B = len(batch)
        rows = [vectors, tokens, batch.attention_mask]
        second = [x[B:] if len(x) > B else None for x in rows]  # the second sentences of separate pairs
        (u, tokens_u, mask_u), (v, tokens_v, mask_v) = [x[:B] for x in rows], second
        return self.heads[batch.task](Encoded(u, v, tokens_u, tokens_v, mask_u, mask_v)).to(self.dtype)

    def encode(self, batch: Batch, embedded: Tensor) -> tuple[Tensor, Tensor]:
        """BERT's vectors of a batch's tokens, and one vector for each of its rows. embedded: (R, T, C)."""
        self._check_pairs(batch)
        self.use(batch.task)
        tokens = self.bert.encode(embedded, batch.attention_mask).to(self.dtype)  # (R, T, C)
        mean = self.pooling[batch.task] == "mean"
        rows = mean_pool(tokens, batch.attention_mask) if mean else self.bert.pool(tokens)  # (R, C)
        return tokens, rows

    def _check_pairs(self, batch: Batch):
        """ValueError where the pairs are not given as this model reads them: of two rows, one would be ignored."""
        mine, theirs = self.pairs[batch.task], "separate" if len(batch.input_ids) > len(batch) else "joint"
        if self.tasks[batch.task].is_pair and mine != theirs:
            raise ValueError(
                f"task {batch.task}: the model has pairs={mine!r}, and the data has pairs={theirs!r}; make the Dataset "
                f"with pairs={mine!r}"
            )

    def autocast(self) -> torch.autocast:
        """Inside this context the matrix products are in `precision`; `smart.exact` suspends it."""
        if self.precision not in FORMATS:
            raise ValueError(f"the precision is one of {', '.join(FORMATS)}, not {self.precision!r}")
        number_format = FORMATS[self.precision]
        return torch.autocast(self.device.type, number_format or torch.bfloat16, enabled=number_format is not None)

    def forward(self, batch: Batch) -> Tensor:
        """The raw outputs for a batch of any of the tasks; returns (B, K)."""
        if batch.vectors is not None:  # BERT is frozen and its vectors are known: only the head runs
            self._check_pairs(batch)
            u, v = batch.vectors[: len(batch)], batch.vectors[len(batch) :]
            return self.heads[batch.task](Encoded(u, v if len(v) else None)).to(self.dtype)
        return self.logits(batch, self.embed(batch))

    def use(self, task: str):
        """Select this task's own parts of BERT, if the additions give each task its own."""
        for addition in self.additions.values():
            addition.use(self.bert, task)

    def parameters_of(self, task: str) -> Iterator[nn.Parameter]:
        """The parameters that a task's outputs depend on: its head's, and BERT's without the other tasks' own."""
        others = set(self.heads) - {task}
        yield from (p for name, p in self.bert.named_parameters() if others.isdisjoint(name.split(".")))
        yield from self.heads[task].parameters()

    def learns(self, task: str) -> bool:
        """Whether anything trains that a task's outputs depend on; a cosine on a frozen BERT has nothing."""
        return any(p.requires_grad for p in self.parameters_of(task))

    def freeze_bert(self):
        """Freeze BERT's pretrained weights; the heads and the additions train."""
        for name, parameter in self.bert.named_parameters():
            if part_of(f"bert.{name}") == "BERT":
                parameter.requires_grad = False

    def still_bert(self):
        """Switch dropout inside BERT off, in training too; its config keeps the rates for another run."""
        for module in self.bert.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0

    def bert_trains(self) -> bool:
        """Whether any of BERT's own weights train; the additions do not count."""
        return any(p.requires_grad for name, p in self.bert.named_parameters() if part_of(f"bert.{name}") == "BERT")

    def is_fixed(self, task: str) -> bool:
        """Whether BERT gives a row the same vector each time, and the task's head needs only these vectors."""
        random = any(module.p for module in self.bert.modules() if isinstance(module, nn.Dropout))
        trains = any(p.requires_grad for p in self.bert.parameters())
        return not trains and not random and not isinstance(inner(self.heads[task]), CrossAttentionHead)

    @property
    def dtype(self) -> torch.dtype:
        return self.bert.word_embedding.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.bert.word_embedding.weight.device
