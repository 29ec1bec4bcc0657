"""One BERT, a head for every task.

    batch ─ embed ─▶ vectors ─ encode ─▶ in context ─ pool ─▶ u (and v) ─ the task's head ─▶ logits

`embed` and `logits` stay apart because some techniques enter between them: they nudge the vectors that go in and
watch the logits that come out. Others change BERT itself, here, after its pretrained weights are in: LoRA (`lora.py`),
and layers of a task's own (`pals.py`).
"""

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from minbert.bert import BertModel
from minbert.data import Batch
from minbert.heads import Encoded, build_heads, choose_head, mean_pool
from minbert.lora import add_lora, use_lora
from minbert.pals import ADAPTERS, use_task
from minbert.tasks import TASKS


def part_of(name: str) -> str:
    """Where one of the model's parameters belongs, by its name: "BERT", "LoRA", "adapters" or "heads"."""
    if not name.startswith("bert."):
        return "heads"
    return "LoRA" if ".lora_" in name else "adapters" if ".adapter." in name else "BERT"


class MultitaskBert(nn.Module):
    """BERT with one head a task.

    tasks: names from `TASKS`. pairs: how the data feeds sentence pairs, "separate" (two rows) or "joint" (one).
    pooling: "cls" (BERT's pooler) or "mean". heads: the names of the heads of some tasks, for others the default.
    dropout: of the heads alone, as in the course's starter; BERT has its own rate. lora: the arguments of `add_lora`,
    whose `names` are the tasks where each has additions of its own. adapter: {"kind": "pal" or "low_rank"} and the
    arguments of that function in `pals.py`. The attribute `precision`, "fp32" or "bf16", is the number format of the
    matrix products inside `with model.autocast():`; weights and outputs are float32 in either.
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
        lora: Mapping | None = None,
        adapter: Mapping | None = None,
    ):
        super().__init__()
        names = {task: choose_head(TASKS[task], pairs, (heads or {}).get(task)) for task in tasks}
        # All that it takes, beside BERT's config, to build this model again around other weights:
        self.build = {"tasks": list(names), "pairs": pairs, "pooling": pooling, "heads": names, "dropout": dropout}
        self.build |= {"lora": lora and dict(lora), "adapter": adapter and dict(adapter)}
        self.bert = bert
        if lora:
            if (own := set(lora.get("names", ()))) & set(names) not in (set(), set(names)):
                raise ValueError(f"LoRA's names must be all of the tasks or none, not {', '.join(sorted(own))}")
            add_lora(bert, **lora)
        if adapter:
            options = dict(adapter)
            ADAPTERS[options.pop("kind")](bert, names, **options)
        self.heads = build_heads(names, TASKS, bert.config.hidden_size, dropout)

    def embed(self, batch: Batch) -> Tensor:
        """A batch's rows as vectors, not yet in context: (R, T, C), R = B or, for separate pairs, 2B."""
        return self.bert.embed(batch.input_ids, batch.token_type_ids).to(self.dtype)

    def logits(self, batch: Batch, embedded: Tensor) -> Tensor:
        """The batch's task's raw outputs (B, outputs), from its embedded rows (R, T, C)."""
        self.use(batch.task)
        tokens = self.bert.encode(embedded, batch.attention_mask).to(self.dtype)  # (R, T, C)
        mask = batch.attention_mask
        vectors = self.bert.pool(tokens) if self.build["pooling"] == "cls" else mean_pool(tokens, mask)  # (R, C)
        B = len(batch)
        rows = [vectors, tokens, mask]
        second = [x[B:] if len(x) > B else None for x in rows]  # the second sentences of separate pairs
        (u, tokens_u, mask_u), (v, tokens_v, mask_v) = [x[:B] for x in rows], second
        return self.heads[batch.task](Encoded(u, v, tokens_u, tokens_v, mask_u, mask_v)).to(self.dtype)

    def autocast(self) -> torch.autocast:
        """What runs inside has its matrix products in `precision`; `smart.exact` knows how to leave it."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def forward(self, batch: Batch) -> Tensor:
        """Raw outputs (B, outputs) for a batch of any of the tasks."""
        return self.logits(batch, self.embed(batch))

    def use(self, task: str):
        """Let what each task has its own of inside BERT, if anything, be this task's."""
        use_task(self.bert, task)
        if task in (self.build["lora"] or {}).get("names", ()):
            use_lora(self.bert, task)

    def parameters_of(self, task: str) -> Iterator[nn.Parameter]:
        """The parameters that a task's outputs depend on: its head's, and BERT's less what other tasks have there."""
        others = set(self.heads) - {task}
        yield from (p for name, p in self.bert.named_parameters() if others.isdisjoint(name.split(".")))
        yield from self.heads[task].parameters()

    def freeze_bert(self):
        """Hold BERT's pretrained weights fixed: the heads train, and what was added to BERT."""
        for name, parameter in self.bert.named_parameters():
            if part_of(f"bert.{name}") == "BERT":
                parameter.requires_grad = False

    @property
    def dtype(self) -> torch.dtype:
        return self.bert.word_embedding.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.bert.word_embedding.weight.device
