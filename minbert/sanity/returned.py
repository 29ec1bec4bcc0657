"""What their evaluation and their data return, in whatever form: tuples, lists, dictionaries, within one another."""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import is_dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from torch import Tensor

from minbert.sanity.rows import ROWS

NAMED = {"sst": r"sst|sentiment", "para": r"para|quora|qqp", "sts": r"sts|simil"}  # in the keys of a dictionary


def cells(row: Any) -> list:
    """What a row of data holds, whichever form it has: a tuple, a list, a dictionary."""
    return list(row.values() if isinstance(row, dict) else row) if isinstance(row, tuple | list | dict) else []


def as_numbers(value: Any) -> list[float]:
    """A list of one number for each example; empty for all else."""
    with suppress(TypeError, ValueError):
        if isinstance(value, list | tuple | np.ndarray | Tensor) and np.ndim(value) and len(value) == ROWS:
            return [] if any(isinstance(v, str) for v in value) else [float(v) for v in value]
    return []


def returned(results: Any, task: str) -> list:
    """What was returned about a task, scores before predictions before ids, out of tuples or dictionaries in any order.

    Without keys all of it is given in its order; with keys only the scores whose names are those of the course's.
    """
    flat = list(flattened(results))
    if not any(key for key, _ in flat):
        return [value for _, value in flat]
    scores, lists, texts = [], [], []
    for key, value in flat:
        if not re.search(NAMED[task], key):
            continue
        if as_numbers(value):
            lists.append((bool(re.search("pred|logit|output", key)), value))
        elif np.ndim(value):
            texts.append(value)
        elif re.search("acc|corr|pearson|score", key):
            scores.append(value)
    return [*scores, *(value for _, value in sorted(lists, key=lambda pair: pair[0])), *texts]


def holds_several(value: Any) -> bool:
    return isinstance(value, tuple | list | dict) or (bool(getattr(value, "ndim", 0)) and len(value) > 1)


def flattened(results: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """(keys, value) of everything in tuples, lists and dictionaries within one another; "" where there are no keys."""
    if isinstance(results, SimpleNamespace) or is_dataclass(results):
        results = vars(results)
    if hasattr(results, "_asdict"):
        results = dict(results._asdict())
    if isinstance(results, dict):
        for name, value in results.items():
            yield from flattened(value, f"{key} {name}".strip().lower())
    elif isinstance(results, tuple | list) and any(map(holds_several, results)):
        for value in results:
            yield from flattened(value, key)
    else:
        yield key, results
