"""The sanity check itself: its command line and pages, hostile code, and that the table of mistakes is its own test.

What each known mistake looks like in files, and that it is named there, is tested in test_sanity_matrix.py.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import sanity_check
from minbert.bert import BertLayer, BertModel, BertSelfAttention
from minbert.errors import UserError
from minbert.optimizer import AdamW
from minbert.sanity import core, judge, parts, report
from minbert.sanity.check import check
from minbert.sanity.launch import Child
from minbert.sanity.project import Layout

ROOT = Path(__file__).resolve().parents[1]
COURSE = ROOT / "tests" / "sanity_projects" / "course"
CORE = ("attention", "layer", "embeddings", "model", "optimizer")


@pytest.fixture(scope="module")
def child():
    child = Child()
    yield child
    child.close()


@pytest.fixture
def project(tmp_path):
    """A function that copies the course's project with texts replaced: project({"bert.py": [(old, new), …]})."""

    def copy(changes: dict[str, list[tuple[str, str]]] | None = None, name: str = "theirs") -> Path:
        folder = tmp_path / name
        shutil.copytree(COURSE, folder)
        for file, pairs in (changes or {}).items():
            text = (folder / file).read_text("utf-8")
            for old, new in pairs:
                assert text.count(old) >= 1, f"{old!r} is not in {file}"
                text = text.replace(old, new, 1)
            (folder / file).write_text(text, "utf-8")
        return folder

    return copy


def in_attention(code: str) -> dict[str, list[tuple[str, str]]]:
    """A change that runs this line at the beginning of BertSelfAttention.attention."""
    line = "S = S / math.sqrt(self.attention_head_size)"
    return {"bert.py": [(line, f"{code}; {line}")]}


def result(project: dict, part: str) -> dict:
    return next(r for r in project["parts"] if r["part"] == part)


# ------------------------------------------------------------------------------------------------ the tables


def recorded(part, pieces):
    with core.visible_dropout():
        return core.record(part, part.reference({**part.right, **pieces}))


@pytest.mark.parametrize("name", CORE)
def test_every_mistake_of_the_table_is_named_and_nothing_else_is(name):
    part = parts.load(name)
    for mistake in part.mistakes:
        for form in mistake.forms:
            found = judge.judge(part, recorded(part, form))
            assert [m["name"] for m in found["mistakes"]] == [mistake.name]


@pytest.mark.parametrize("name", CORE)
def test_what_is_right_in_other_words_passes(name):
    part = parts.load(name)
    for pieces in ({}, *part.also_right):
        assert judge.judge(part, recorded(part, pieces))["status"] == "passed"


@pytest.mark.parametrize("name", parts.NAMES)
def test_a_table_is_complete(name):
    part = parts.load(name)
    names = [m.name for m in part.mistakes]
    assert part.name == name and len(names) == len(set(names)) and part.probes
    for mistake in part.mistakes:
        assert mistake.why and mistake.equation and mistake.source and mistake.where
        for form in mistake.forms:
            assert set(form) <= set(part.right), f"{mistake.name}: replaces a piece that does not exist"


@pytest.mark.parametrize("name", CORE)
def test_probes_leave_their_subject_as_it_was(name):
    """Run in any order, twice, they give the same: the judge runs the telling ones first."""
    part = parts.load(name)
    with core.visible_dropout():
        subject = part.reference(part.right)
        first = core.record(part, subject)
        for probe in reversed(part.probes):
            assert judge.same(core.record_probe(probe, subject), first[probe.name], 0, 0)


def test_two_mistakes_at_once_are_both_named():
    part = parts.load("attention")
    table = {m.name: m.pieces for m in part.mistakes}
    pairs = [
        ("scores are not divided by √D", "the mask is not used"),
        ("no dropout on the attention probabilities", "heads are merged without the transpose"),
        ("query and key are swapped", "attention dropout is active in evaluation"),
    ]
    for pair in pairs:
        found = judge.judge(part, recorded(part, {**table[pair[0]], **table[pair[1]]}))
        assert {m["name"] for m in found["mistakes"]} == set(pair)


def test_an_unknown_mistake_shows_the_first_probe_that_differs_and_the_nearest_known_one(monkeypatch):
    monkeypatch.setattr(judge, "PATIENCE", 0.3)  # there is nothing to be found
    part = parts.load("attention")
    found = judge.judge(part, recorded(part, {"scale": lambda s: s / 1.1}))
    assert found["status"] == "wrong" and found["mistakes"] == []
    assert found["probe"]["name"] == part.probes[0].name
    assert found["nearest"] == "scores are not divided by √D"


def test_another_shape_and_nan_are_differences_like_others():
    part = parts.load("attention")
    for after in (lambda y, x: y[:, :1], lambda y, x: y * float("nan")):
        found = judge.judge(part, recorded(part, {"after": after}))
        assert found["status"] == "wrong" and found["mistakes"] == []
        report.page({"path": "x", "parts": [found]})
        json.loads(report.as_json([{"path": "x", "parts": [found]}]))


# ------------------------------------------------------------------------------------------------ dropout, visible


def test_dropout_is_visible_in_every_way_of_writing_it():
    x = torch.ones(2, 3)
    with core.visible_dropout():
        dropout = nn.Dropout(0.4)
        assert torch.equal(dropout(x), x * core.kappa(0.4))
        assert torch.equal(nn.functional.dropout(x, 0.4), x * core.kappa(0.4))
        assert torch.equal(torch.dropout(x, 0.4, True), x * core.kappa(0.4))
        assert torch.equal(dropout.eval()(x), x)
        q = torch.randn(1, 2, 3, 4)
        full = nn.functional.scaled_dot_product_attention(q, q, q)
        halved = nn.functional.scaled_dot_product_attention(q, q, q, dropout_p=0.5)
        torch.testing.assert_close(halved, full * core.kappa(0.5))
    torch.testing.assert_close(full, nn.functional.scaled_dot_product_attention(q, q, q))


# ------------------------------------------------------------------------------------------------ finding a project


def test_a_project_is_found_in_a_folder_one_down_and_around_a_file(project, tmp_path):
    folder = project()
    for path in (folder, tmp_path, folder / "optimizer.py"):
        assert Layout.find(path) == Layout(folder, folder)


def test_a_package_is_imported_by_its_name():
    assert Layout.find(ROOT) == Layout(ROOT, ROOT / "minbert", "minbert")
    assert Layout.find(ROOT / "minbert") == Layout.find(ROOT)


def test_a_project_may_lie_deep_but_must_be_the_only_one(project, tmp_path):
    project(name="class/anna/hw/minbert")
    assert Layout.find(tmp_path / "class" / "anna").home.name == "minbert"
    project(name="class/bela/hw/minbert")
    with pytest.raises(UserError, match=r"holds several projects \(anna/hw/minbert, bela/hw/minbert"):
        Layout.find(tmp_path / "class")


def test_what_is_no_project_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no code")
    for path in (tmp_path, tmp_path / "nowhere", tmp_path / "notes.txt"):
        with pytest.raises(UserError, match=str(path)):
            Layout.find(path)


def test_big_files_weights_and_environments_are_not_copied(project, tmp_path):
    folder = project()
    for name in (".git/config.py", "venv/lib/x.py", "data/sst.txt", "weights/model.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x = 1")
    (folder / "big.txt").write_bytes(b"0" * 1_500_000)
    copy = Layout.find(folder).copy(tmp_path / "copy")
    found = {str(p.relative_to(copy.root)) for p in copy.root.rglob("*") if p.is_file()}
    assert found == {p.name for p in COURSE.iterdir() if p.is_file()}


# ------------------------------------------------------------------------------------------------ somebody's code


def test_the_course_project_passes_and_is_not_touched(project, child):
    folder = project()
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in sorted(folder.rglob("*")) if p.is_file()}
    found = check(folder, child, CORE)
    assert {r["part"]: r["status"] for r in found["parts"]} == dict.fromkeys(CORE, "passed")
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in sorted(folder.rglob("*")) if p.is_file()} == before


def test_a_mistake_is_named_with_file_and_line(project, child):
    found = check(project(in_attention("S = S * math.sqrt(self.attention_head_size)")), child, ["attention"])
    wrong = result(found, "attention")
    assert [m["name"] for m in wrong["mistakes"]] == ["scores are not divided by √D"]
    mistake = wrong["mistakes"][0]
    line = 1 + (COURSE / "bert.py").read_text("utf-8").splitlines().index(
        next(t for t in (COURSE / "bert.py").read_text("utf-8").splitlines() if "def attention(" in t)
    )
    assert (mistake["file"], mistake["line"]) == ("bert.py", line)
    page = report.page(found)
    assert f"bert.py:{line}" in page and mistake["equation"] in page and "expected" in page and "found" in page
    assert max(map(len, page.splitlines())) <= 100 and "\x1b" not in page
    assert report.exit_status([found]) == 1


def test_a_half_finished_project_says_what_is_next(project, child):
    todo = "S = S / math.sqrt(self.attention_head_size)"
    changes = {"bert.py": [(todo, "raise NotImplementedError")]}
    folder = project(changes)
    (folder / "optimizer.py").unlink()
    found = check(folder, child, CORE)
    statuses = {r["part"]: r["status"] for r in found["parts"]}
    assert statuses == {
        "attention": "not written", "layer": "passed", "embeddings": "passed", "model": "passed", "optimizer": "absent"
    }  # fmt: skip
    assert result(found, "attention")["file"] == "bert.py"
    assert "What is next: write self-attention, at bert.py:" in report.page(found)
    assert report.exit_status([found]) == 0


def test_a_method_that_returns_nothing_is_not_written_yet(project, child):
    found = check(project(in_attention("return None")), child, ["attention"])
    assert result(found, "attention")["status"] == "not written"


HOSTILE = {  # what somebody's attention does → what the page says of it
    "while True: pass": ("timed out", "time allowed"),
    "exit(3)": ("crashed", "SystemExit: 3"),
    "import os; os._exit(0)": ("crashed", "ended the Python process"),
    "import os; os.abort()": ("crashed", "by signal 6"),
    "[print('again' * 100) for _ in iter(int, 1)]": ("crashed", "prints without end"),
    "import os; os.remove({victim!r})": ("crashed", "PermissionError"),
    "import shutil; shutil.rmtree({folder!r})": ("crashed", "PermissionError"),
    "open({victim!r}, 'w')": ("crashed", "PermissionError"),
    "import os; os.rename({victim!r}, 'mine')": ("crashed", "PermissionError"),
    "import os; os.open({victim!r}, os.O_TRUNC | os.O_RDWR)": ("crashed", "PermissionError"),
    "import os; os.symlink({folder!r}, 'here'); open('here/victim.txt', 'w')": ("crashed", "PermissionError"),
    "import os; os.system('rm ' + {victim!r})": ("crashed", "PermissionError"),
    "import subprocess; subprocess.run(['rm', {victim!r}])": ("crashed", "PermissionError"),
    "import os; os.kill(os.getppid(), 9)": ("crashed", "PermissionError"),
    "import os; os.fork()": ("crashed", "PermissionError"),
    "import socket; socket.create_connection(('127.0.0.1', 9))": ("crashed", "PermissionError"),
    "import ctypes; ctypes.CDLL(None)": ("crashed", "PermissionError"),
    "x = bytearray(1 << 40)": ("crashed", "MemoryError"),
    "1 / 0": ("crashed", "ZeroDivisionError"),
    "S = S[:, :, :1]": ("wrong", ""),
    "S = S * float('nan')": ("wrong", ""),
    "torch.softmax = nn.functional.softmax = lambda *a, **o: 1 / 0": ("crashed", "ZeroDivisionError"),
}


@pytest.mark.parametrize("code", HOSTILE)
def test_hostile_code_gets_a_clear_line_and_harms_nothing(code, project, child, tmp_path):
    status, words = HOSTILE[code]
    victims = tmp_path / "precious"
    victims.mkdir()
    victim = victims / "victim.txt"
    victim.write_text("precious")
    code = code.format(victim=str(victim), folder=str(victims))
    changes = {"bert.py": [("    S = S / math.sqrt(", f"    {code}\n        S = S / math.sqrt(")]}
    folder = project(changes)
    began = time.monotonic()
    found = check(folder, child, ["attention", "optimizer"], timeout=4)
    assert result(found, "attention")["status"] == status
    assert words in result(found, "attention")["note"]
    assert result(found, "optimizer")["status"] == "passed"  # one part's end is not the other's
    assert victim.read_text() == "precious" and [p.name for p in victims.iterdir()] == ["victim.txt"]
    assert time.monotonic() - began < 60
    report.page(found)


def test_files_may_be_written_and_deleted_in_the_copy_only(project, child):
    code = "import os; open('mine.txt', 'w').close(); os.remove('mine.txt'); os.remove('optimizer.py')"
    folder = project({"bert.py": [("    S = S / math.sqrt(", f"    {code}\n        S = S / math.sqrt(")]})
    check(folder, child, ["attention"])
    assert (folder / "optimizer.py").exists() and not (folder / "mine.txt").exists()


def test_where_it_hangs_is_said(project, child):
    folder = project({"bert.py": [("    S = S / math.sqrt(", "    while True: pass\n        S = S / math.sqrt(")]})
    found = result(check(folder, child, ["attention"], timeout=2), "attention")
    hanging = next(
        k for k, t in enumerate((folder / "bert.py").read_text("utf-8").splitlines(), 1) if "while True" in t
    )
    assert (found["file"], found["line"]) == ("bert.py", hanging)


@pytest.mark.parametrize(
    "code, words",
    [
        ("def broken(:\n", "SyntaxError"),
        ("import sys\nsys.exit('bye')\n", "SystemExit: bye"),
        ("from utils import nothing_of_the_kind\n", "ImportError"),
        ("raise RuntimeError('at import')\n", "RuntimeError: at import"),
        ("print('hello from theirs')\nundefined\n", "NameError"),
    ],
)
def test_a_file_that_cannot_be_imported_is_shown_as_theirs(code, words, project, child):
    folder = project()
    (folder / "optimizer.py").write_text(code)
    found = result(check(folder, child, ["optimizer"]), "optimizer")
    assert found["status"] == "crashed" and words in found["note"] and found["file"] == "optimizer.py"
    assert found["line"] == max(1, len(code.splitlines()) if "SyntaxError" not in words else 1)
    assert str(child.folder) not in json.dumps(found)
    if "hello" in code:
        assert found["output"].strip() == "hello from theirs"


def test_missing_packages_are_stood_in_for(project, child):
    imports = "import nobody_has_this\nfrom nor_this.one import Thing, thing\nimport sklearn.metrics\nimport requests\n"
    use = "class Sub(Thing):\n    pass\n@thing\ndef f():\n    return 1\nassert f() == 1\n"
    folder = project()
    text = (folder / "bert.py").read_text("utf-8")
    (folder / "bert.py").write_text(imports + use + text, "utf-8")
    assert result(check(folder, child, ["attention"]), "attention")["status"] == "passed"


def test_an_optional_package_may_be_missing(project, child):
    text = "try:\n    import nobody_has_this\nexcept ImportError:\n    pass\nelse:\n    raise RuntimeError\n"
    folder = project()
    (folder / "bert.py").write_text(text + (folder / "bert.py").read_text("utf-8"), "utf-8")
    assert result(check(folder, child, ["attention"]), "attention")["status"] == "passed"


def test_bert_alone_is_enough(project, child):
    """Somebody hands in bert.py and optimizer.py without the starter's other files."""
    folder = project()
    for file in folder.iterdir():
        if file.name not in ("bert.py", "optimizer.py"):
            file.unlink() if file.is_file() else shutil.rmtree(file)
    found = check(folder, child, CORE)
    assert {r["status"] for r in found["parts"]} == {"passed"}


def test_other_parameter_names_are_not_checked(project, child):
    folder = project()
    text = (folder / "bert.py").read_text("utf-8").replace("self.query", "self.asks")
    (folder / "bert.py").write_text(text, "utf-8")
    found = check(folder, child, ["attention"])
    assert result(found, "attention")["status"] == "not checked" and "query.weight" in report.page(found)
    assert report.exit_status([found]) == 2


def test_dropout_by_hand_is_not_checked_and_not_called_wrong(project, child, monkeypatch):
    monkeypatch.setattr(judge, "PATIENCE", 0.3)
    by_hand = "(probs * (torch.rand_like(probs) > self.dropout.p) / (1 - self.dropout.p) if self.training else probs)"
    found = result(check(project({"bert.py": [("self.dropout(probs)", by_hand)]}), child, ["attention"]), "attention")
    assert found["status"] == "not checked" and "written by hand" in found["note"]
    wrong = project({"bert.py": [("self.dropout(probs)", by_hand), ("S = S + attention_mask", "pass")]}, "wrong")
    assert result(check(wrong, child, ["attention"]), "attention")["status"] == "wrong"  # not only in training


def test_the_page_of_an_unknown_mistake_says_where_by_how_much_and_what_is_right(project, child, monkeypatch):
    monkeypatch.setattr(judge, "PATIENCE", 0.3)
    folder = project({"bert.py": [("probs = self.dropout(probs)", "probs = 0.7 * self.dropout(probs)")]})
    found = check(folder, child, ["attention"])
    page = report.page(found)
    line = next(
        n for n, text in enumerate((folder / "bert.py").read_text("utf-8").splitlines(), 1) if "def attention(" in text
    )
    assert result(found, "attention")["mistakes"] == []
    assert f"bert.py:{line}" in page and "0.7 times what was expected" in " ".join(page.split())
    assert f"find what differs in bert.py:{line}." in page


def test_a_file_that_cannot_be_imported_is_told_of_once(project, child):
    folder = project({"bert.py": [("class BertLayer(nn.Module):", "class BertLayer(nn.Module:")]})
    found = check(folder, child, ["attention", "layer", "embeddings", "optimizer"])
    assert [r["status"] for r in found["parts"]] == ["crashed", "not checked", "not checked", "passed"]
    assert report.page(found).count("SyntaxError") == 3  # in the list, in its section, and as what is next


@pytest.mark.parametrize(
    "line",
    ["from torch.utils.tensorboard import SummaryWriter", "get_ipython().run_line_magic('matplotlib', 'inline')"],
)
def test_what_has_no_part_in_a_model_does_no_harm(line, project, child):
    folder = project({"multitask_classifier.py": [("import argparse\n", f"import argparse\n{line}\n")]})
    assert result(check(folder, child, ["heads"]), "heads")["status"] == "passed"


def test_progress_bars_are_silent(project, child):
    assert "output" not in result(check(project(), child, ["evaluation"]), "evaluation")  # it evaluates under tqdm
    folder = project({"evaluation.py": [("    model.eval()\n", "    model.eval()\n    print('hello')\n")]}, "prints")
    assert "hello" in result(check(folder, child, ["evaluation"]), "evaluation")["output"]  # what they print is shown


# ------------------------------------------------------------------------------------------------ the command line


def run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / "sanity_check.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_a_class_makes_a_table(project, tmp_path):
    good, bad = project(name="good"), project(in_attention("S = S * math.sqrt(self.attention_head_size)"), name="bad")
    done = run(good, bad, tmp_path / "missing", "--part", "optimizer,attention")
    lines = done.stdout.splitlines()
    assert done.returncode == 1 and lines[0].split() == ["attention", "optimizer"]
    assert lines[1].split()[-2:] == ["ok", "ok"] and lines[2].split()[-2:] == ["WRONG", "ok"]
    assert "could not be run" in lines[3] and "scores are not divided by √D" in done.stdout


def test_json_is_for_a_program(project):
    done = run(project(), "--part", "attention", "--json")
    (found,) = json.loads(done.stdout)
    assert done.returncode == 0 and [r["status"] for r in found["parts"]] == ["passed"]
    wrong = run(project({"bert.py": [("S = S / math", "S = S * math")]}, "wrong"), "--part", "attention,lora", "--json")
    (other,) = json.loads(wrong.stdout)
    assert wrong.returncode == 1 and {tuple(r) for r in found["parts"] + other["parts"]} == {tuple(found["parts"][0])}
    nowhere = run("nowhere", "--json")
    assert nowhere.returncode == 2 and "no such file" in json.loads(nowhere.stdout)[0]["error"]


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["/nowhere/at/all"], "no such file"),
        ([".", "--part", "attention,everything"], "'everything' is no part"),
        ([".", "--timeout", "0"], "above 0"),
        ([".", "--pretrained", "minilm"], "leave it out with a PATH"),
    ],
)
def test_what_cannot_be_run_is_one_line_and_status_2(arguments, words):
    done = run(*arguments)
    assert done.returncode == 2 and words in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_our_own_parts_pass():
    """`python sanity_check.py --part …`: this project by the same machinery, without the real weights."""
    done = run("--part", ",".join(CORE))
    assert done.returncode == 0 and done.stdout.count("passed") == len(CORE)


def test_the_script_says_passed_and_leaves_with_0(capsys):
    with pytest.raises(SystemExit) as stop:
        sanity_check.main(["--part", "attention", "--pretrained", "minilm"])
    out = capsys.readouterr().out
    assert stop.value.code == 0 and out.count("passed") == 4


def test_the_script_says_what_is_wrong_and_leaves_with_1(capsys, monkeypatch):
    monkeypatch.setattr(sanity_check, "check_adamw", lambda: "weights: expected 1, found 2")
    with pytest.raises(SystemExit) as stop:
        sanity_check.main(["--part", "attention", "--pretrained", "minilm"])
    assert stop.value.code == 1 and "WRONG: weights: expected 1, found 2" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------ by hand


def test_right_code_passes_the_checks_by_hand():
    assert sanity_check.check_tiny_bert() == ""
    assert sanity_check.check_tiny_bert(lambda config: BertModel(config, "sdpa")) == ""
    assert sanity_check.check_adamw() == ""


def attention_with(scale=None, use_mask=True):
    def attention(q, k, v, mask, dropout):
        scores = q @ k.transpose(-2, -1) / (scale or q.shape[-1] ** 0.5)
        return (scores + mask if use_mask else scores).softmax(-1) @ v

    return attention


def wrong_attention(**how):
    def build(config):
        model = BertModel(config)
        for layer in model.bert_layers:
            layer.self_attention.attend = attention_with(**how)
        return model

    return build


def patched(owner, name, replacement):
    """A builder of a BertModel while `owner.name` is `replacement`."""

    def build(config):
        model = BertModel(config)
        forward = model.forward

        def wrong(*args):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(owner, name, replacement)
                return forward(*args)

        model.forward = wrong
        return model

    return build


def no_residual(self, input, output, dense_layer, dropout, ln_layer):
    return ln_layer(dropout(dense_layer(output)))


def heads_swapped(self, x, linear):
    B, T, C = x.shape
    return linear(x).view(B, T, C // self.num_heads, self.num_heads).permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    "build",
    [
        wrong_attention(scale=1.0),
        wrong_attention(scale=2.0),  # √C
        wrong_attention(use_mask=False),
        patched(nn.functional, "gelu", partial(nn.functional.gelu, approximate="tanh")),
        patched(nn.functional, "gelu", torch.relu),
        patched(BertLayer, "add_norm", no_residual),
        patched(BertSelfAttention, "transform", heads_swapped),
    ],
    ids=["no √D", "√C", "no mask", "tanh GELU", "ReLU", "no residual", "heads (D, H)"],
)
def test_a_wrong_bert_is_found_by_hand(build):
    assert "expected" in sanity_check.check_tiny_bert(build)


def test_a_wrong_adamw_is_found_by_the_course_s_check():
    class NoCorrection(AdamW):
        def __init__(self, params, **options):
            super().__init__(params, **options | {"correct_bias": False})

    assert "expected" in sanity_check.check_adamw(NoCorrection)
