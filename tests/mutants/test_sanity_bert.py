"""The sanity check against mistakes that are really made in BERT and AdamW: what is injected is named, nothing else is.

`sanity_bert.INJECTED` says how each mistake looks in files. Beside it two mistakes at once, and mistakes that nobody
listed. Every twentieth mistake of a part is made, in one style; `--slow` makes all, in every style.
"""

import pytest

from minbert.sanity import parts
from tests.mutants.sanity_bert import (
    C_SCALE,
    E_UPDATE,
    OUR_NORMS,
    RMS,
    ROWS,
    STYLES,
    Injection,
    own_norm,
    sources,
)  # fmt: skip
from tests.sanity.making import BERT, OPTIMIZER, changed, complaints, swap, verdicts

PARTS = {name: parts.load(name) for name in BERT + OPTIMIZER}


def touched(style: str, files: dict[str, str]) -> tuple[str, ...]:
    """The parts whose files are not the right project's: `optimizer.py` imports nothing, and nothing imports it."""
    paths = {path for path, text in files.items() if text != sources(style).get(path)}
    optimizer = {path for path in paths if path.endswith("optimizer.py")}
    return (*(BERT if paths - optimizer else ()), *(OPTIMIZER if optimizer else ()))


def cell(style: str, row: Injection):
    title = row.mistake if row.says in row.mistake else f"{row.mistake} ({row.says})"
    of_its_part = [other for other in ROWS if other.mistake.partition(":")[0] == row.mistake.partition(":")[0]]
    first = style == next(s for s in STYLES if getattr(row, s)) and of_its_part.index(row) % 20 == 0
    return pytest.param(style, row, id=f"{style}: {title}", marks=() if first else pytest.mark.slow)


@pytest.mark.parametrize("style, row", [cell(s, row) for row in ROWS for s in STYLES if getattr(row, s)])
def test_a_mistake_is_named_and_nothing_else(style, row, tmp_path):
    """The diagonal of the matrix, and its zeros: over all parts, exactly the mistake that was made is named."""
    files = changed(sources(style), getattr(row, style))
    assert complaints(verdicts(tmp_path, files, touched(style, files))) == [row.mistake]


def test_every_known_mistake_is_injected():
    """No column of the matrix is empty: what the check can name has been made in a file and was found."""
    known = {f"{part.name}: {mistake.name}" for part in PARTS.values() for mistake in part.mistakes}
    assert known - {row.mistake for row in ROWS} == set()


PAIRS = (  # (style, two rows by what they say); every fifth is made without --slow
    ("course", "no √D", "no dropout"),
    ("course", "√C", "mask not used"),
    ("einsum", "split as (D, H)", "dropout in evaluation"),
    ("course", "merged without the transpose", "mask subtracted"),
    ("course", "tanh GELU", "eps 1e-5 in both"),
    ("einsum", "ReLU", "second residual from the input"),
    ("ours", "no positions", "no LayerNorm"),
    ("einsum", "no tanh", "last token"),
    ("course", "L2 in the gradient", "no bias correction"),
    ("ours", "eps inside the root", "decay without the learning rate"),
    ("course", "no √D", "no decay"),
    ("einsum", "ReLU", "last token"),
    ("ours", "no dropout", "positions from 1"),
)


def row(says: str) -> Injection:
    return next(row for row in ROWS if row.says == says)


@pytest.mark.parametrize(
    "style, first, second",
    [pytest.param(*pair, marks=pytest.mark.slow if i % 5 else ()) for i, pair in enumerate(PAIRS)],
)
def test_two_mistakes_are_both_named(style, first, second, tmp_path, monkeypatch):
    monkeypatch.setattr("minbert.sanity.judge.PATIENCE", 30.0)  # a busy machine computes more slowly
    files = changed(changed(sources(style), getattr(row(first), style)), getattr(row(second), style))
    assert sorted(complaints(verdicts(tmp_path, files, touched(style, files)))) == sorted(
        [row(first).mistake, row(second).mistake]
    )


UNKNOWN = (  # (part, style, swaps)
    ("attention", "course", swap(C_SCALE, "S = 1.1 * S / math.sqrt(self.attention_head_size)")),
    (
        "layer",
        "course",
        swap("        return ln_layer(input + transformed)", "        return ln_layer(0.5 * input + transformed)"),
    ),
    pytest.param("layer", "ours", own_norm(RMS, *OUR_NORMS), marks=pytest.mark.slow),
    ("optimizer", "einsum", swap(E_UPDATE, "p.sub_(lr * mean.sign())")),
)


@pytest.mark.parametrize("part, style, swaps", UNKNOWN, ids=["q·1.1", "x/2", "RMS norm", "sign"])
def test_an_unknown_mistake_is_shown_by_the_first_probe_that_differs(part, style, swaps, tmp_path, monkeypatch):
    monkeypatch.setattr("minbert.sanity.judge.PATIENCE", 0.3)  # there is nothing to be found
    files = changed(sources(style), swaps)
    results = verdicts(tmp_path, files, touched(style, files))
    assert {name for name, result in results.items() if result["status"] != "passed"} == {part}
    result = results[part]
    assert result["status"] == "wrong" and result["mistakes"] == []
    assert result["probe"]["name"] in [probe.name for probe in PARTS[part].probes]
    assert result["probe"]["expected"] != result["probe"]["found"]
