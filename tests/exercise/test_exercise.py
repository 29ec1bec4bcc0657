"""A student's copy: nothing of the solution is left in it, its check marks it, and filled in it is right."""

import importlib.util
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

from minbert.exercise.__main__ import main
from minbert.exercise.copies import INSIDE, write_copy
from minbert.exercise.parts import PARTS
from tests.exercise.filling import ROOT, ask, left_over, put_back, solution

pytestmark = pytest.mark.xdist_group("exercise")  # the numbers of the check are made once
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
NEW_STATE = """\
                if not state:
                    state.update(step=0, m=torch.zeros_like(p), v=torch.zeros_like(p))
"""


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(list(PARTS), id="all"),
        *[pytest.param([name], id=name, marks=pytest.mark.slow) for name in PARTS],
    ],
)
def test_nothing_of_its_parts_is_left_in_a_copy(names, tmp_path, no_numbers):
    parts = [PARTS[name] for name in names]
    functions = [function for part in parts for function in part.functions]
    taken = write_copy(tmp_path / "copy", parts)
    assert set(functions) <= set(taken)
    lines = solution(functions, ALL)
    assert len(lines) >= 3
    assert left_over(tmp_path / "copy", lines) == set()
    for file in {file for file, _ in taken}:
        assert "is still to be written" in (tmp_path / "copy" / file).read_text("utf-8")
    put_back(tmp_path / "copy", taken)
    assert left_over(tmp_path / "copy", lines) == lines  # the search sees them where they are
    for file in {file for file, _ in taken}:
        assert (tmp_path / "copy" / file).read_text("utf-8") == (ROOT / file).read_text("utf-8")


def test_tests_without_a_solution_come_along_and_no_history_or_byte_code(tmp_path, no_numbers):
    write_copy(tmp_path / "copy", PARTS.values())
    names = {path.relative_to(tmp_path / "copy").as_posix() for path in (tmp_path / "copy").rglob("*")}
    assert {"README.md", "sanity_check.py", "setup.py", "minbert/bert.py", "data/sample/sts-dev.csv"} <= names
    assert {"tests/model/test_bert.py", "tests/model/test_optimizer.py", "tests/tasks/test_heads.py"} <= names
    assert not names & {"tests/techniques/gradients.py", "tests/techniques/test_pcgrad.py"}  # Algorithm 1, once more
    wrong = re.compile(r"(^|/)(mutants|\.git|__pycache__|exercise|runs)(/|$)|\.pyc$|\.pt$|\.zip$")
    assert [name for name in names if wrong.search(name)] == []


def test_the_readme_of_a_copy_names_the_functions_in_order(tmp_path, no_numbers):
    write_copy(tmp_path / "copy", [PARTS["attention"], PARTS["adamw"]])
    text = (tmp_path / "copy/README.md").read_text("utf-8")
    places = re.findall(r"`(minbert/\w+\.py)` ([\w.]+)", text)
    assert places == [*PARTS["attention"].functions, *PARTS["adamw"].functions]


def test_docstrings_shapes_and_comments_stay(tmp_path, no_numbers):
    write_copy(tmp_path / "copy", [PARTS["attention"]])
    text = (tmp_path / "copy/minbert/bert.py").read_text("utf-8")
    assert "Attention(Q, K, V) = softmax(QKᵀ/√D + mask)·V" in text
    assert "# scores: (B, H, T, T): rows are queries, columns are keys\n" in text
    assert "q @ k" not in text


def line_of(copy, result: dict) -> str:
    """The line of a copy that a result points to."""
    return (copy / result["file"]).read_text("utf-8").splitlines()[result["line"] - 1]


def test_a_copy_is_marked_while_it_is_filled_in(tmp_path, numbers_of):
    """Wrong, then right, in a part whose numbers are made soon; `--slow` asks of every part, also while it is blank."""
    numbers_of("pcgrad")
    taken = write_copy(tmp_path / "copy", [PARTS["pcgrad"]])
    put_back(tmp_path / "copy", taken, {"W[i, j] -= dot": "W[i, j] += dot"})
    status, results = ask(tmp_path / "copy", "--part", "pcgrad")
    names = [mistake["name"] for mistake in results["pcgrad"]["mistakes"]]
    assert (status, names) == (1, ["adds the part that opposes instead of taking it out"])

    put_back(tmp_path / "copy", taken)
    status, results = ask(tmp_path / "copy", "--part", "pcgrad")
    assert (status, results["pcgrad"]["status"]) == (0, "passed")


@pytest.mark.slow
@pytest.mark.parametrize(
    "part, changes, name",
    [
        ("attention", {"dropout.p if dropout.training else 0.0": "dropout.p"},
         "sdpa_attention drops out in evaluation"),
        ("pcgrad", {"math.sqrt(1 - phi**2) - phi * sine": "sine - phi * math.sqrt(1 - phi**2)",
                    "(norm_j * sine)": "(norm_j * math.sqrt(1 - phi**2))"}, "the sines of φ and φ̂ are swapped"),
        ("adamw", {"with torch.enable_grad():": "if True:"}, "the closure runs without gradients (no_grad)"),
        ("adamw", {"self._state_of(p)\n": f"self.state[p]\n{NEW_STATE}", "exp_avg_sq": "v", "exp_avg": "m"},
         "the state has other names than that of torch.optim.AdamW"),
    ],
)  # fmt: skip
def test_mistakes_that_only_this_project_can_make_are_named(part, changes, name, tmp_path):
    taken = write_copy(tmp_path / "copy", [PARTS[part]])
    put_back(tmp_path / "copy", taken, changes)
    _, results = ask(tmp_path / "copy", "--part", PARTS[part].check)
    result = results[PARTS[part].check]
    assert [mistake["name"] for mistake in result["mistakes"]] == [name]
    assert "def " in line_of(tmp_path / "copy", result["mistakes"][0])


@pytest.mark.slow
def test_a_mistake_in_plain_attention_is_named_before_the_rest_is_written(tmp_path):
    write_copy(tmp_path / "copy", [PARTS["attention"]])
    put_back(tmp_path / "copy", [("minbert/bert.py", "plain_attention")], {" / math.sqrt(D)": ""})
    _, results = ask(tmp_path / "copy", "--part", "attention")
    assert [mistake["name"] for mistake in results["attention"]["mistakes"]] == ["scores are not divided by √D"]


@pytest.mark.slow
def test_the_check_of_a_copy_says_what_is_to_be_written(tmp_path):
    write_copy(tmp_path / "copy", PARTS.values())
    _, results = ask(tmp_path / "copy")
    assert {name: part["status"] for name, part in results.items()} == dict.fromkeys(results, "not written")
    assert [part.check for part in PARTS.values()] == list(results)
    for part in PARTS.values():
        assert [m["name"] for m in results[part.check]["todo"]] == [name for _, name in part.functions]
        assert f"def {part.functions[0][1].rpartition('.')[2]}" in line_of(tmp_path / "copy", results[part.check])
    assert (results["optimizer"]["file"], results["pcgrad"]["file"]) == ("minbert/optimizer.py", "minbert/pcgrad.py")


@pytest.mark.slow
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


@pytest.fixture
def its_check(tmp_path, monkeypatch):
    """The module of a copy's check; no child process is started for it."""
    shutil.copy(INSIDE / "sanity_check.py", tmp_path)
    spec = importlib.util.spec_from_file_location("check_of_a_copy", tmp_path / "sanity_check.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "Child", lambda: SimpleNamespace(close=lambda: None, folder=tmp_path))
    return module


def stopped(function, argv: list[str], capsys) -> tuple[int, str]:
    """The exit status of a program, and the line that it prints on stderr."""
    with pytest.raises(SystemExit) as stop:
        function(argv)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return stop.value.code, lines[0]


@pytest.mark.parametrize(
    "argv, complaint",
    [
        (["--timeout", "0"], "above 0"),
        (["--timeout", "-1"], "above 0"),
        (["--part", "attention, layr"], "'layr' is no part"),
        ([], "holds several projects (a, b)"),
    ],
)
def test_what_a_copy_s_check_cannot_do_is_one_line_and_status_2(argv, complaint, its_check, tmp_path, capsys):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "bert.py").touch()
    status, line = stopped(its_check.main, argv, capsys)
    assert status == 2 and complaint in line


def test_a_copy_s_check_takes_blanks_between_parts_and_ends_with_ctrl_c(its_check, monkeypatch, capsys):
    def check(folder, child, names, timeout):
        assert (names, timeout) == (["attention", "optimizer"], 2.5)
        raise KeyboardInterrupt

    monkeypatch.setattr(its_check, "check", check)
    argv = ["--part", "adamw, Attention", "--timeout", "2.5"]
    assert stopped(its_check.main, argv, capsys) == (130, "stopped by Ctrl-C")
