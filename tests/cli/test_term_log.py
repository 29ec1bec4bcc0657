"""What a run logs and prints about the terms of the loss."""

import re

import pytest

from minbert import smart
from minbert.smart import Proximal
from tests.cli.runs import ALL, BOTH, EVERY_TASK, FULL, ONE_UPDATE, SMART


def test_the_log_has_the_means_over_the_batches(train, monkeypatch):
    """max|δ| is the largest of the batches. `sequential` has two batches of SST, two of Quora, two of STS."""
    results, distances = [], []
    smoothness, proximal = smart.smoothness, Proximal.__call__
    monkeypatch.setattr(smart, "smoothness", lambda *a, **k: (results.append(smoothness(*a, **k)), results[-1])[1])
    monkeypatch.setattr(Proximal, "__call__", lambda self, *a: (distances.append(proximal(self, *a)), distances[-1])[1])
    (line,) = train(*FULL, *BOTH, "--smart_noise", "relative", "--schedule", "sequential").metrics
    for i, task in enumerate(("sst", "para", "sts")):
        (one, other), near = results[2 * i : 2 * i + 2], distances[2 * i : 2 * i + 2]
        largest = [x.delta.abs().max().item() for x in (one, other)]
        assert largest[0] != largest[1]
        assert line["smart"][task] == pytest.approx(
            {
                "before": (one.before + other.before).item() / 2,
                "after": (one.term + other.term).item() / 2,
                "max_delta": max(largest),
            }
        )
        assert line["bregman"][task] == {"distance": pytest.approx(sum(near).item() / 2)}


def test_terms_in_combination_keep_all_their_numbers_in_the_log(train):
    """Each term has its own place in the line, though two of them log a "distance"."""
    (line,) = train(*FULL, *ALL).metrics
    assert set(line["smart"]) == set(line["bregman"]) == set(line["rdrop"]) == EVERY_TASK
    for task in EVERY_TASK:
        assert set(line["smart"][task]) == {"before", "after", "max_delta"}
        assert set(line["bregman"][task]) == set(line["rdrop"][task]) == {"distance"}
        assert line["rdrop"][task]["distance"] != line["bregman"][task]["distance"]
        assert all(value > 0 for name in ("smart", "rdrop") for value in line[name][task].values())


def test_a_terms_numbers_in_the_first_step_do_not_depend_on_the_other_terms(train):
    """In the first update, each term's numbers are those of a run with this term alone."""
    together = train(*FULL, *ONE_UPDATE, *ALL).metrics[0]
    for name, flags in (("smart", SMART), ("bregman", ("--bregman", "1")), ("rdrop", ("--rdrop", "1"))):
        alone = train(*FULL, *ONE_UPDATE, *flags).metrics[0]
        assert not {"smart", "bregman", "rdrop"} - {name} & set(alone)
        for task in EVERY_TASK:
            assert together[name][task] == pytest.approx(alone[name][task], rel=1e-4), name


NUMBER = r"\d\.\de-\d\d"


def test_each_term_prints_one_line_an_epoch(train, capsys):
    (line,) = train(*FULL, *ALL, "--epochs", "1").metrics
    out = capsys.readouterr().out
    (text,) = re.findall(rf"^  smoothness, before → after ascent: (.*);  max\|δ\| ({NUMBER})$", out, re.M)
    words = [f"{task} {x['before']:.1e} → {x['after']:.1e}" for task, x in line["smart"].items()]
    assert text == (",  ".join(words), "1.0e-01")
    for name, title in (("bregman", "bregman"), ("rdrop", "R-Drop, ½·ℓ_s of two passes")):
        (text,) = re.findall(rf"^  {title}: (.*)$", out, re.M)
        assert text == ",  ".join(f"{task} {x['distance']:.1e}" for task, x in line[name].items())
        assert re.fullmatch(rf"(\w+ {NUMBER},  ){{2}}\w+ {NUMBER}", text)

    train(*FULL)
    out = capsys.readouterr().out
    assert not re.search("smoothness|bregman|R-Drop", out)
