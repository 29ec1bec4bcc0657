"""The sanity check of heads, evaluation and techniques against mistakes that are really made in files.

`sanity_techniques.INJECTED` says how each looks. The tests of a row together say that the matrix of injected against
diagnosed mistakes is the identity. Every twentieth mistake of a part is made, in one style; `--slow` makes all, in
every style.
"""

import pytest

from minbert.sanity import parts
from tests.mutants.sanity_techniques import COURSE, IN_STYLE, INJECTED, PAIRS, PARTS, RIGHT
from tests.sanity.making import changed, swap, verdicts

ROWS = [(style, part, name) for (style, part), table in INJECTED.items() for name in table]
FIRST = {(part, name): style for style, part, name in reversed(ROWS)}  # of the styles in which it is made


def cell(style: str, part: str, name: str):
    of_its_part = [other for p, other in FIRST if p == part]
    first = FIRST[part, name] == style and of_its_part.index(name) % 20 == 0
    return pytest.param(style, part, name, marks=() if first else pytest.mark.slow)


def verdict(folder, style: str, part: str, *mistakes: str) -> dict:
    """What the check says of the part, in a project with these mistakes."""
    texts = sum((INJECTED[style, part][name] for name in mistakes), ())
    return verdicts(folder, changed(RIGHT[style], swap(*texts)), [part])[part]


def names(result: dict) -> list[str]:
    return sorted(mistake["name"] for mistake in result.get("mistakes", ()))


@pytest.mark.parametrize("style, part", [(style, part) for style in IN_STYLE for part in IN_STYLE[style]])
def test_right_code_gets_no_complaint(style, part, tmp_path):
    result = verdict(tmp_path, style, part)
    assert (result["status"], names(result), result["unknown"]) == ("passed", [], [])


@pytest.mark.parametrize("style, part, name", [cell(*row) for row in ROWS])
def test_a_mistake_is_named_and_no_other(style, part, name, tmp_path):
    result = verdict(tmp_path, style, part, name)
    assert (result["status"], names(result)) == ("wrong", [name])


@pytest.mark.parametrize("part", PARTS)
def test_every_known_mistake_is_made_in_a_file(part):
    assert {name for _, row, name in ROWS if row == part} == {m.name for m in parts.load(part).mistakes}


@pytest.mark.parametrize(
    "style, part, first, second",
    [pytest.param(*pair, marks=pytest.mark.slow if i % 3 else ()) for i, pair in enumerate(PAIRS)],
)
def test_two_mistakes_at_once_are_both_named(style, part, first, second, tmp_path):
    assert names(verdict(tmp_path, style, part, first, second)) == sorted([first, second])


def test_a_size_that_nobody_can_know_is_named(tmp_path):
    old = "self.paraphrase = nn.Linear(2 * 768, 1)"
    files = changed(COURSE, swap(old, "self.paraphrase = nn.Linear(2 * 768, int(config.sizes[0]))"))
    result = verdicts(tmp_path, files, ["heads"])["heads"]
    assert result["status"] == "partly"  # classifier.py's is judged
    assert "it reads `config.sizes`" in result["unknown"][0]["reason"] and "sizes" in result["unknown"][0]["remedy"]
