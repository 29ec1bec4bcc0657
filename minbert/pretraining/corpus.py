"""The texts of both lessons: sentences and pairs of the training files, without those of any dev or test file."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from minbert.data import Dataset, Example, read_examples, read_texts
from minbert.errors import UserError
from minbert.flags import LESSONS
from minbert.pretraining.lessons import SENTENCES
from minbert.pretraining.masking import generator_for
from minbert.settings import find_file
from minbert.tasks import TASKS
from minbert.tokenizer import BertTokenizer

Key = tuple[int, ...]  # a text's word pieces: two texts with the same are the same


@dataclass
class Corpus:
    """The data sets that both lessons train on and are scored on; None for those that there are not."""

    mlm: Dataset | None  # sentences of the training files
    held_out: Dataset | None  # more of them, never trained on
    nli: Dataset | None  # pairs
    nli_dev: Dataset | None
    notes: list[str]  # what was read and what was left out, to be printed

    @property
    def train(self) -> dict[str, Dataset]:
        return {name: data for name, data in (("mlm", self.mlm), ("nli", self.nli)) if data}


def forbidden_sentences(folder: Path, tokenizer: BertTokenizer) -> tuple[set[Key], list[str]]:
    """The texts that no lesson may hold: those of all dev and test files in `folder`; and the names of these files."""
    every = {find_file(folder, task, split): task for task in TASKS.values() for split in ("dev", "test")}
    files = {path: task for path, task in every.items() if path.exists()}
    texts = [text for path, task in files.items() for text in read_texts(path, task)]
    return set(map(tuple, tokenizer.encode(texts))), [path.name for path in files]


def read_corpus(
    folder: Path,
    tokenizer: BertTokenizer,
    lessons: Iterable[str] = LESSONS,
    files: Iterable[str] = ("sst", "para", "sts", "nli"),
    limit: Mapping[str, int] | None = None,
    held_out: int = 1000,
    pairs: str = "joint",
) -> Corpus:
    """Read the training files of the tasks in `files`, each sentence once, without those of any dev or test file.

    limit: how many examples of a task's training file, else all. held_out: sentences to keep for scoring, at most a
    tenth of all; pairs that hold one of them are left out. pairs: "joint" or "separate", of NLI. Raises UserError where
    NLI has no pair left, or one without a label.
    """
    forbidden, compared = forbidden_sentences(folder, tokenizer)
    notes = [f"compared with {', '.join(compared) or 'nothing: no dev or test file is there'}"]
    sentences: dict[Key, str] = {}
    nli_pairs: list[tuple[list[Key], Example]] = []
    for name in to_read(lessons, files):
        task = TASKS[name]
        examples = read_examples(find_file(folder, task, "train"), task, (limit or {}).get(name))
        pieces = iter(tokenizer.encode([text for example in examples for text in example.texts]))
        before = len(sentences)
        for example in examples:
            keys = [tuple(next(pieces)) for _ in example.texts]
            if name in files and "mlm" in lessons:
                sentences.update(zip(keys, example.texts, strict=True))
            if name == "nli" and "nli" in lessons:
                nli_pairs.append((keys, example))
        if len(sentences) > before:
            notes.append(f"{task.title}: {len(sentences) - before:,} sentences")
    kept = [key for key in sentences if key not in forbidden]
    order = torch.randperm(len(kept), generator=generator_for(0)).tolist()
    reserve = {kept[i] for i in order[: min(held_out, len(kept) // 10)]}
    if kept:
        notes.append(
            f"left out {len(sentences) - len(kept):,} sentences that a dev or test file has; held out {len(reserve):,}"
        )

    def dataset(keys: Iterable[Key]) -> Dataset | None:
        examples = [Example(None, (sentences[key],), None) for key in keys]
        return Dataset(SENTENCES, examples, tokenizer) if examples else None

    nli = nli_dev = None
    if "nli" in lessons:
        clean = [(keys, example) for keys, example in nli_pairs if forbidden.isdisjoint(keys)]
        mine = [example for keys, example in clean if reserve.isdisjoint(keys)]
        notes.append(
            f"left out {len(nli_pairs) - len(clean):,} pairs with a dev or test file's sentence, "
            f"{len(clean) - len(mine):,} with a held-out one"
        )
        train_file, dev_file = (find_file(folder, TASKS["nli"], split) for split in ("train", "dev"))
        dev = read_examples(dev_file, TASKS["nli"])
        if not mine:
            raise UserError(f"{train_file}: each pair has a sentence of a dev or test file or a held-out one, so none "
                            "is left to train on; --tasks nli needs other pairs")  # fmt: skip
        for path, examples in ((train_file, mine), (dev_file, dev)):
            if None in [example.label for example in examples]:
                raise UserError(f"{path}: not every row has a label; --tasks nli needs labelled pairs")
        nli, nli_dev = (Dataset(TASKS["nli"], examples, tokenizer, pairs) for examples in (mine, dev))
    return Corpus(dataset(key for key in kept if key not in reserve), dataset(key for key in kept if key in reserve),
                  nli, nli_dev, notes)  # fmt: skip


def to_read(lessons: Iterable[str], files: Iterable[str]) -> list[str]:
    """The tasks whose training files are needed: those that are masked, and nli for its own lesson."""
    return list(dict.fromkeys([*files, *(["nli"] if "nli" in lessons else [])]))
