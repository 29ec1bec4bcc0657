"""From examples to batches.

`examples.py` reads a file. Here every text is tokenised once; then there are two ways to batch:

    Batches       for training: endless, every example once a pass, similar lengths together, still random
    eval_batches  for evaluation: every example once, longest first, as many as fit a budget of tokens

Why similar lengths? A batch is padded to its longest row, and the longest of 32 random sentences is about twice the
mean: half of the work would be done on pads.
"""

import hashlib
import json
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from minbert.examples import SPLITS, Example, Examples, read_examples, read_label, read_split, read_texts
from minbert.tasks import Task
from minbert.tokenizer import CHUNK, BertTokenizer, Row

__all__ = [
    "SPLITS", "Batch", "Batches", "Dataset", "Example", "Examples", "eval_batches", "read_examples", "read_split",
    "read_texts",
]  # fmt: skip

CPU_TOKENS, GPU_TOKENS = 1024, 8192  # a batch of evaluation, with pads
POOL = 50  # batches that are sorted by length together


# ---------------------------------------------------------------------------------------------- encoding


class Ragged:
    """Lists of whole numbers of any lengths, end to end: 4 bytes a number, where Python's lists take 8 and more."""

    def __init__(self):
        self.numbers, self.ends = array("i"), array("q", [0])

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, i: int) -> list[int]:
        return self.numbers[self.ends[i] : self.ends[i + 1]].tolist()

    def append(self, numbers: list[int]):
        self.numbers.fromlist(numbers)
        self.ends.append(len(self.numbers))


class Dataset:
    """A tokenised file: each example is one or two rows of BERT's input.

    pairs: "separate" makes a row of each sentence, "joint" one row of both; single sentences are single rows.
    """

    def __init__(self, task: Task, examples: Sequence[Example], tokenizer: BertTokenizer, pairs: str = "separate"):
        if pairs not in ("separate", "joint"):
            raise ValueError(f"pairs are separate or joint, not {pairs!r}")
        self.task, self.tokenizer = task, tokenizer
        self.examples = Examples(examples, getattr(examples, "form", None))
        number = {text: None for example in examples for text in example.texts}
        number = dict(zip(number, range(len(number)), strict=True))  # text → number, in the order of first use
        texts, pieces = list(number), Ragged()
        for start in range(0, len(texts), CHUNK):
            for ids in tokenizer.encode(texts[start : start + CHUNK]):
                pieces.append(ids)
        join = pairs == "joint" and task.is_pair
        self.parts = 1 if join else len(task.texts)  # rows an example
        self._ids, self._firsts = Ragged(), array("i")
        for example in examples:
            parts = [pieces[number[text]] for text in example.texts]
            for row in [tokenizer.pair(*parts)] if join else map(tokenizer.single, parts):
                self._ids.append(row.ids)
                self._firsts.append(row.first)
        self.vectors: Tensor | None = None  # BERT's, of all rows, while it is frozen: `evaluation.remembered`
        sizes = [end - start for start, end in pairwise(self._ids.ends)]
        self.lengths = [max(sizes[i : i + self.parts]) for i in range(0, len(sizes), self.parts)]

    @classmethod
    def of(
        cls,
        task: Task,
        tokenizer: BertTokenizer,
        texts: Sequence[str | Sequence[str]],
        labels: Sequence[str | float] | None = None,
        pairs: str = "separate",
    ) -> "Dataset":
        """A data set from lists: texts or pairs, and labels as words or numbers. UserError for a label out of range."""
        both = [(text,) if isinstance(text, str) else tuple(text) for text in texts]
        wrong = next((text for text in both if len(text) != len(task.texts)), None)
        if wrong is not None:
            raise ValueError(f"task {task.name} has {len(task.texts)} texts an example, not {len(wrong)}: {wrong}")
        numbers = [None] * len(both) if labels is None else [read_label(str(label), task) for label in labels]
        examples = [Example(None, text, label) for text, label in zip(both, numbers, strict=True)]
        return cls(task, examples, tokenizer, pairs)

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def labels(self) -> list[float | None]:
        return [example.label for example in self.examples]

    def sha256(self) -> str:
        """The sha256 of the texts and labels, in their order."""
        digest = hashlib.sha256()
        for example in self.examples:
            digest.update(json.dumps([example.texts, example.label], default=float).encode())
        return digest.hexdigest()

    @property
    def rows(self) -> list[tuple[Row, ...]]:
        """The rows of every example. They are made anew from a compact store each time, so use it outside of loops."""
        return [tuple(self._row(i, part) for part in range(self.parts)) for i in range(len(self))]

    def _row(self, index: int, part: int) -> Row:
        place = index * self.parts + part
        return Row(self._ids[place], self._firsts[place])

    def batch(self, indices: Sequence[int]) -> "Batch":
        """The examples with these indices, padded to their longest row."""
        rows = [self._row(i, part) for part in range(self.parts) for i in indices]
        places = [i * self.parts + part for part in range(self.parts) for i in indices]
        labels = [self.examples[i].label for i in indices]
        return Batch(
            task=self.task.name,
            indices=list(indices),
            **self.tokenizer.pad(rows),
            labels=None if None in labels else torch.tensor(labels, dtype=torch.float32),
            vectors=None if self.vectors is None else self.vectors[places],
        )


@dataclass
class Batch:
    """B examples as tensors. Two rows an example (separate pairs) stand as B first sentences, then B second ones, and
    go through BERT in one pass."""

    task: str
    indices: list[int]  # of the examples in their data set
    input_ids: Tensor  # (R, T), R = B or 2B
    attention_mask: Tensor  # (R, T), 1 for a token, 0 for a pad
    token_type_ids: Tensor  # (R, T)
    labels: Tensor | None  # (B,) float, None in a test set
    vectors: Tensor | None = None  # (R, C), BERT's vectors of the rows, if they are known already

    def __len__(self) -> int:
        return len(self.indices)

    def part(self, mine: slice) -> "Batch":
        """The examples in a slice."""
        rows = {name: value for name, value in vars(self).items() if isinstance(value, Tensor) and name != "labels"}
        parts = {name: value.view(-1, len(self), *value.shape[1:])[:, mine] for name, value in rows.items()}
        return replace(
            self,
            indices=self.indices[mine],
            labels=None if self.labels is None else self.labels[mine],
            **{name: value.flatten(0, 1) for name, value in parts.items()},
        )

    def split(self, size: int) -> Iterator["Batch"]:
        """The same examples, at most `size` at a time."""
        for start in range(0, len(self), size):
            yield self.part(slice(start, start + size))

    def to(self, device: torch.device) -> "Batch":
        """The same batch on `device`. A copy to CUDA is asynchronous, from pinned memory.

        Others are synchronous: an asynchronous one to MPS may read memory that is already free (PyTorch issue 189690).
        """
        if device.type == "cpu":
            return self
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        if device.type != "cuda":
            return replace(self, **{name: value.to(device) for name, value in tensors.items()})
        moved = {name: value.pin_memory().to(device, non_blocking=True) for name, value in tensors.items()}
        return replace(self, **moved)


# ---------------------------------------------------------------------------------------------- batching


class Batches:
    """An endless stream of training batches: pass after pass over the data, every example once in each.

    The order of a pass depends on (seed, pass) alone, so the stream's whole state is two numbers. even: batches have
    the same number of "examples", or about the same number of "tokens"; a pass has ⌈N/batch_size⌉ batches either way.
    """

    def __init__(self, data: Dataset, batch_size: int, seed: int, even: str = "examples"):
        if even not in ("examples", "tokens"):
            raise ValueError(f"batches are even in examples or tokens, not {even!r}")
        self.data, self.batch_size, self.seed, self.even = data, batch_size, seed, even
        self.passes, self.position = 0, 0
        self._order = self.order(0)

    def __len__(self) -> int:
        """Batches in a pass."""
        return len(self._order)

    def order(self, passes: int) -> list[list[int]]:
        """The batches of one pass: shuffle; sort by length within pools of 50 batches; cut; shuffle the batches."""
        random = torch.Generator().manual_seed(self.seed * 1_000_003 + passes)
        shuffled = torch.randperm(len(self.data), generator=random).tolist()
        size, batches = self.batch_size, []
        for start in range(0, len(shuffled), POOL * size):
            pool = sorted(shuffled[start : start + POOL * size], key=self.data.lengths.__getitem__)
            ends = range(size, len(pool) + size, size)
            if self.even == "tokens":
                ends = even_ends([self.data.lengths[i] for i in pool], size)
            batches += [pool[i:j] for i, j in pairwise([0, *ends])]
        return [batches[i] for i in torch.randperm(len(batches), generator=random).tolist()]

    def next(self) -> Batch:
        """The next batch; after the last of a pass, the first of the next pass."""
        if self.position == len(self._order):
            self.passes, self.position = self.passes + 1, 0
            self._order = self.order(self.passes)
        indices = self._order[self.position]
        self.position += 1
        return self.data.batch(indices)

    def state_dict(self) -> dict[str, int]:
        return {"passes": self.passes, "position": self.position}

    def load_state_dict(self, state: dict[str, int]):
        self.passes, self.position = state["passes"], state["position"]
        self._order = self.order(self.passes)


def even_ends(lengths: Sequence[int], size: int) -> list[int]:
    """The ends of ⌈N/size⌉ batches of N rows, such that the largest batch has as few tokens as possible.

    lengths: of the rows, the shortest first. Pads count: the tokens of a batch are its rows times its longest length.
    For lengths of 1, 1, 1, 1, 2, 2, 4, 4 and size 4 the ends are [6, 8], for batches of 12 and 8 tokens.
    """
    N, count = len(lengths), -(-len(lengths) // size)

    def ends(most: int) -> list[int]:
        """The ends of batches of at most `most` tokens each: `count` of them, or more if these cannot hold all rows."""
        result, start = [], 0
        for i, length in enumerate(lengths):
            few_are_left = N - i < count - len(result)  # each row left becomes a batch of its own
            if i > start and ((i + 1 - start) * length > most or few_are_left):
                result.append(i)
                start = i
        return [*result, N]

    largest = lengths[-1]
    return ends(bisect_left(range(N * largest), True, lo=largest, key=lambda most: len(ends(most)) <= count))


def eval_batches(data: Dataset, tokens: int = CPU_TOKENS) -> Iterator[Batch]:
    """Every example once, longest first (so that too little memory shows at once), ≤ `tokens` a batch with pads.

    On a CPU the numbers of about 1,000 tokens stay in its caches: batches of 8,192 took 1.4 to 1.7 times as long
    (tests/benchmarks/RESULTS.md). A GPU is faster with larger batches, as long as they fit its memory.
    """
    order = sorted(range(len(data)), key=data.lengths.__getitem__, reverse=True)
    start = 0
    while start < len(order):
        size = max(1, tokens // (data.lengths[order[start]] * data.parts))
        yield data.batch(order[start : start + size])
        start += size
