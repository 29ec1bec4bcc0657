"""Every shape that the source states is seen while the code runs; false ones, planted in a copy, are named."""

import re
import shutil

import pytest

from minbert.reading.claims import find_claims, parse_shape
from minbert.reading.watch import Names, Watch, match
from tests.reading.conftest import ROOT, in_a_new_process

PLANTS = {  # file → (what stands there, what is put in its place, the line of it that is false)
    "bert.py": [
        ("(B, H, T, T): rows are queries", "(B, H, T, D): rows are queries"),  # a comment on a value
        ("(T, C): where it stands", "(B, T, C): where it stands"),  # one on a part of an expression
        ("q, k, v: (B, H, T, D). mask", "q, k, v: (B, T, H, D). mask"),  # arguments in a docstring
        ("first token: (B, T, C) → (B, C)", "first token: (B, T, C) → (B, K)"),  # the result in a docstring
        ("Returns (L, B, H, T, T)", "Returns (B, L, H, T, T)"),
    ],
    "heads.py": [
        ("u, v: (B, C), the", "u, v: (B, T), the"),  # the fields of a class
        ("features = torch.cat([difference(u, v), hadamard(u, v)], dim=-1)  # (B, 4C)",
         "features = torch.cat([difference(u, v), hadamard(u, v)], dim=-1)  # (B, 3C)"),
    ],
    "lora.py": [("(α/r)·B·A of the adapter in use; returns (out, in)", "(α/r)·B·A; returns (in, out)")],
    "pcgrad.py": [("# (T, T): φ̂", "# (B, T): φ̂")],
    "optimizer.py": [("which parameters share", "(B, T) which parameters share")],  # about no value
}  # fmt: skip


def test_every_shape_in_the_package_is_true(program, odd):
    status, out, err = program("minbert.reading", "--check", "--pretrained", odd)
    assert (status, err) == (0, "")
    assert int(re.match(r"\d+", out)[0]) > 150


@pytest.mark.slow
def test_planted_false_shapes_are_named_and_no_others(odd, tmp_path):
    shutil.copytree(ROOT / "minbert", tmp_path / "minbert", ignore=shutil.ignore_patterns("__pycache__"))
    planted = set()
    for file, changes in PLANTS.items():
        path = tmp_path / "minbert" / file
        source = path.read_text("utf-8")
        for before, after in changes:
            assert source.count(before) == 1, before
            source = source.replace(before, after)
            planted.add(f"minbert/{file}, line {source[: source.index(after)].count(chr(10)) + 1}")
        path.write_text(source, "utf-8")
    never = "\n\ndef nobody(x):\n    return x  # (B, T)\n"
    path = tmp_path / "minbert" / "rdrop.py"
    path.write_text(path.read_text("utf-8") + never, "utf-8")
    planted.add(f"minbert/rdrop.py, line {path.read_text('utf-8').count(chr(10))}")
    status, _, err = in_a_new_process("minbert.reading", "--check", "--pretrained", odd, folder=tmp_path)
    assert status == 1
    assert {line.partition(": ")[0] for line in err.splitlines()[:-1]} == planted
    assert err.splitlines()[-1].startswith("error: ")


def test_names_that_are_never_different_are_reported():
    watch = Watch()
    sizes = {"B": 2, "H": 6, "T": 7, "C": 24}
    watch.sizes = {"a scene": sizes | {"H": 2}}
    assert watch.alike() == ["B and H"]
    watch.sizes["another scene"] = sizes
    assert watch.alike() == []


@pytest.mark.parametrize(
    "text, shape, right",
    [
        ("(B, T, C)", (2, 7, 24), True),
        ("(B, T, H·D)", (2, 7, 24), True),
        ("(B, 2C)", (2, 48), True),
        ("(B, ·)", (2, 5), True),
        ("(…, C)", (9, 9, 9, 24), True),
        ("(B,)", (2,), True),
        ("(B, T, C)", (7, 2, 24), False),
        ("(B, 2C)", (2, 24), False),
        ("(B, 1)", (2, 2), False),
        ("(B, T)", (2, 7, 1), False),
        ("(…, C)", (24, 9), False),
    ],
)
def test_a_shape_fits_only_what_it_says(text, shape, right):
    sizes = {"B": 2, "T": 7, "C": 24, "H": 6, "D": 4}
    assert (match(parse_shape(text), shape, Names(sizes), sizes) == "") == right


@pytest.mark.parametrize("text", ["f(x, y)", "(see 1, 2)", "(Hu et al. 2022)", "(1, -1)", "(β₁, β₂)", "(B)"])
def test_other_parentheses_are_no_shapes(text):
    assert find_claims(f"x = 1  # {text}\n", "minbert/x.py")[1] == []
