"""A student's copy: nothing of the solution is left in it, its check marks it, and filled in it is right."""

import re
import subprocess
import sys

import pytest

from minbert.exercise.__main__ import main
from minbert.exercise.copies import write_copy
from minbert.exercise.parts import PARTS
from tests.exercise.filling import ROOT, ask, left_over, put_back, solution

ALL = [function for part in PARTS.values() for function in part.functions]
COURSE = """
import numpy as np, torch
from bert import BertModel
from optimizer import AdamW

bert = BertModel.from_pretrained({weights!r})
output = bert(torch.tensor([[101, 7, 9, 102], [101, 8, 102, 0]]) % 50, torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]))
print(*output["last_hidden_state"][:, 0, :3].flatten().tolist(), *output["pooler_output"][:, :3].flatten().tolist())

torch.manual_seed(0)
rng = np.random.default_rng(0)
model = torch.nn.Linear(3, 2, bias=False)
optimizer = AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4, correct_bias=True)
for _ in range(1000):
    optimizer.zero_grad()
    x = torch.FloatTensor(rng.uniform(size=[3]))
    y = torch.stack([x[0] + x[1], -x[2]])
    ((y - model(x)) ** 2).sum().backward()
    optimizer.step()
print(*model.weight.flatten().tolist())
"""
ADAMW = [0.55482787, 0.86665666, 0.07291982, -0.44724506, -0.2951228, -0.2717272]  # the course's, after 1,000 steps


@pytest.mark.parametrize("name", PARTS)
def test_nothing_of_a_part_is_left_in_its_copy(name, tmp_path):
    taken = write_copy(tmp_path / "copy", [PARTS[name]])
    assert set(PARTS[name].functions) <= set(taken)
    lines = solution(list(PARTS[name].functions), ALL)
    assert len(lines) >= 3
    assert left_over(tmp_path / "copy", lines) == set()
    for file in {file for file, _ in taken}:
        assert "is still to be written" in (tmp_path / "copy" / file).read_text("utf-8")
    put_back(tmp_path / "copy", taken)
    assert left_over(tmp_path / "copy", lines) == lines  # the search sees them where they are
    for file in {file for file, _ in taken}:
        assert (tmp_path / "copy" / file).read_text("utf-8") == (ROOT / file).read_text("utf-8")


def test_no_tests_history_or_byte_code_come_along(tmp_path):
    write_copy(tmp_path / "copy", PARTS.values())
    names = {path.relative_to(tmp_path / "copy").as_posix() for path in (tmp_path / "copy").rglob("*")}
    assert {"README.md", "sanity_check.py", "setup.py", "minbert/bert.py", "data/sample/sts-dev.csv"} <= names
    wrong = re.compile(r"(^|/)(tests|\.git|__pycache__|exercise|runs)(/|$)|\.pyc$|\.pt$|\.safetensors$")
    assert [name for name in names if wrong.search(name)] == []


def test_docstrings_shapes_and_comments_stay(tmp_path):
    write_copy(tmp_path / "copy", [PARTS["attention"]])
    text = (tmp_path / "copy/minbert/bert.py").read_text("utf-8")
    assert "Attention(Q, K, V) = softmax(QKᵀ/√D + mask)·V" in text
    assert "# scores: (B, H, T, T): rows are queries, columns are keys\n" in text
    assert "q @ k" not in text


@pytest.mark.slow
def test_the_check_of_a_copy_says_what_is_to_be_written(tmp_path):
    write_copy(tmp_path / "copy", PARTS.values())
    _, results = ask(tmp_path / "copy")
    assert {name: part["status"] for name, part in results.items()} == dict.fromkeys(results, "not written")
    assert [part.check for part in PARTS.values()] == list(results)
    assert (results["optimizer"]["file"], results["pcgrad"]["file"]) == ("minbert/optimizer.py", "minbert/pcgrad.py")


def test_the_check_of_a_copy_names_a_mistake(tmp_path):
    taken = write_copy(tmp_path / "copy", [PARTS["attention"]])
    put_back(tmp_path / "copy", taken, {" / math.sqrt(D)": ""})
    status, results = ask(tmp_path / "copy", "--part", "attention")
    assert status == 1
    assert [mistake["name"] for mistake in results["attention"]["mistakes"]] == ["scores are not divided by √D"]


@pytest.mark.slow
def test_a_file_that_cannot_be_read_by_python_is_a_result_and_no_traceback(tmp_path):
    write_copy(tmp_path / "copy", [PARTS["attention"]])
    path = tmp_path / "copy" / "minbert" / "bert.py"
    path.write_text(
        path.read_text("utf-8").replace("class BertModel(nn.Module):", "class BertModel(nn.Module)"), "utf-8"
    )
    status, results = ask(tmp_path / "copy", "--part", "attention")
    assert status == 1
    assert results["attention"]["status"] == "crashed" and "SyntaxError" in str(results["attention"])


@pytest.mark.slow
def test_a_course_copy_that_is_filled_in_is_right(tmp_path, tiny):
    copy = tmp_path / "copy"
    put_back(copy, write_copy(copy, PARTS.values(), "course"))
    status, results = ask(copy)
    assert {name: part["status"] for name, part in results.items()} == dict.fromkeys(results, "passed")
    assert status == 0
    script = copy / "as_the_course_checks.py"
    script.write_text(COURSE.format(weights=str(tiny)), "utf-8")
    result = subprocess.run([sys.executable, script], cwd=copy, capture_output=True, encoding="utf-8")
    assert not result.stderr, result.stderr
    bert, adamw = ([float(x) for x in line.split()] for line in result.stdout.splitlines())
    assert bert == pytest.approx(of_transformers(tiny), abs=1e-5)
    assert adamw == pytest.approx(ADAMW, abs=1e-6, rel=1e-4)


def of_transformers(folder) -> list[float]:
    """What `transformers` makes of the inputs of COURSE."""
    import torch
    import transformers

    theirs = transformers.BertModel.from_pretrained(folder).eval()
    ids, mask = torch.tensor([[101, 7, 9, 102], [101, 8, 102, 0]]) % 50, torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    with torch.no_grad():
        output = theirs(ids, mask)
    hidden, pooled = output.last_hidden_state[:, 0, :3], output.pooler_output[:, :3]
    return [*hidden.flatten().tolist(), *pooled.flatten().tolist()]


def test_a_name_that_is_no_part_and_a_folder_in_use_are_refused(tmp_path, refusal):
    assert "attention, layer" in refusal(main, ["--out", str(tmp_path / "copy"), "--parts", "attention,tail"])
    (tmp_path / "mine.py").touch()
    assert str(tmp_path) in refusal(main, ["--out", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]
