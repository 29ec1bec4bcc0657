"""The sanity check of heads, evaluation and techniques against mistakes that are really made in files.

`sanity_techniques.INJECTED` says how each looks. All projects are run once, for all tests of this file.
"""

import pytest

from minbert.sanity import parts
from tests.mutants.sanity_techniques import COURSE, IN_STYLE, INJECTED, PAIRS, PARTS, RIGHT
from tests.sanity.making import changed, many, swap, verdicts

pytestmark = pytest.mark.xdist_group("techniques")  # one process: they share what is recorded once

CASES = {  # (style, part, the names that must be given) → the replaced texts
    **{(style, part, ()): () for style, parts_ in IN_STYLE.items() for part in parts_},
    **{(*key, (name,)): texts for key, table in INJECTED.items() for name, texts in table.items()},
    **{(s, p, tuple(names)): sum((INJECTED[s, p][n] for n in names), ()) for s, p, *names in PAIRS},
}


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[tuple, dict]:
    """What the check says of every case."""
    projects = [
        (changed(RIGHT[style], swap(*texts)), [part]) for (style, part, _), texts in CASES.items()
    ]  # fmt: skip
    found = many(tmp_path_factory.mktemp("projects"), projects)
    return {case: result[case[1]] for case, result in zip(CASES, found, strict=True)}


def names(verdict: dict) -> list[str]:
    return sorted(m["name"] for m in verdict["mistakes"]) if "mistakes" in verdict else [str(verdict)]


@pytest.mark.parametrize("case", [c for c in CASES if not c[2]], ids=lambda c: f"{c[0]}-{c[1]}")
def test_right_code_gets_no_complaint(results, case):
    verdict = results[case]
    assert (verdict["status"], names(verdict), verdict["unknown"]) == ("passed", [], [])


def test_a_size_that_nobody_can_know_is_named(tmp_path):
    old = "self.paraphrase = nn.Linear(2 * 768, 1)"
    files = changed(COURSE, ((old, "self.paraphrase = nn.Linear(2 * 768, int(config.sizes[0]))"),))
    result = verdicts(tmp_path, files, ["heads"])["heads"]
    assert result["status"] == "partly"  # classifier.py's is judged
    assert "it reads `config.sizes`" in result["unknown"][0]["reason"] and "sizes" in result["unknown"][0]["remedy"]


@pytest.mark.parametrize("part", PARTS)
def test_every_mistake_is_named_and_no_other(results, part):
    """The matrix of injected against diagnosed mistakes is the identity."""
    columns = [m.name for m in parts.load(part).mistakes]
    rows = [c for c in CASES if c[1] == part and len(c[2]) == 1]
    wanted = {(style, name): [int(name == column) for column in columns] for style, _, (name,) in rows}
    found = {(c[0], c[2][0]): [names(results[c]).count(column) for column in columns] for c in rows}
    assert found == wanted
    assert {name for _, name in wanted} == set(columns), "a mistake of the table is made in no file"
    assert all(results[c]["status"] == "wrong" for c in rows)


@pytest.mark.parametrize("case", [c for c in CASES if len(c[2]) == 2], ids=lambda c: f"{c[0]}-{c[1]}-{c[2][0]}")
def test_two_mistakes_at_once_are_both_named(results, case):
    assert names(results[case]) == sorted(case[2])
