"""What a person reads: the page of a project, the table of a class, the exit status, JSON, and the command line."""

import json
import os
import subprocess
import sys
import time

import pytest

import sanity_check
from minbert.sanity import report
from minbert.sanity.check import check
from tests.mutants.sanity_techniques import COURSE
from tests.sanity.making import ROOT, written

CORE = ("attention", "layer", "embeddings", "model", "optimizer")
SCALE = "S = S / math.sqrt(self.attention_head_size)"


def result(project: dict, part: str) -> dict:
    return next(r for r in project["parts"] if r["part"] == part)


def line_of(folder, words: str) -> int:
    lines = (folder / "bert.py").read_text("utf-8").splitlines()
    return next(n for n, text in enumerate(lines, 1) if words in text)


# ------------------------------------------------------------------------------------------------ the page


def test_the_course_project_passes_and_is_not_touched(project, child):
    folder = project()
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in sorted(folder.rglob("*")) if p.is_file()}
    found = check(folder, child)
    statuses = {r["part"]: r["status"] for r in found["parts"]}
    assert {name for name, status in statuses.items() if status == "passed"} == {*CORE, "heads", "evaluation"}
    assert set(statuses.values()) == {"passed", "absent"} and report.exit_status([found]) == 0
    assert "What is next: nothing. All that is there is right." in report.page(found)
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in sorted(folder.rglob("*")) if p.is_file()} == before


def test_a_mistake_is_named_with_file_and_line(project, child):
    folder = project("bert.py", SCALE, SCALE.replace("/", "*1.0 #"))
    found = check(folder, child, ["attention"])
    mistake = result(found, "attention")["mistakes"][0]
    line = line_of(folder, "def attention(")
    assert (mistake["name"], mistake["file"], mistake["line"]) == ("scores are not divided by √D", "bert.py", line)
    page = report.page(found)
    assert f"bert.py:{line}" in page and mistake["equation"] in page and "expected" in page and "found" in page
    assert max(map(len, page.splitlines())) <= 100 and "\x1b" not in page
    assert report.exit_status([found]) == 1


def test_a_half_finished_project_says_what_is_next(project, child):
    folder = project("bert.py", SCALE, "raise NotImplementedError")
    (folder / "optimizer.py").unlink()
    found = check(folder, child, CORE)
    statuses = {r["part"]: r["status"] for r in found["parts"]}
    assert statuses == {
        "attention": "not written", "layer": "passed", "embeddings": "passed", "model": "passed", "optimizer": "absent"
    }  # fmt: skip
    assert result(found, "attention")["file"] == "bert.py"
    assert "What is next: write BertSelfAttention.attention (self-attention), at bert.py:" in report.page(found)
    assert report.exit_status([found]) == 0


def test_where_nothing_is_there_nothing_is_said_to_be_right(child, tmp_path):
    found = check(written(tmp_path, {"net.py": "class Net:\n    pass\n"}), child)
    page = report.page(found)
    assert report.exit_status([found]) == 2
    assert "right" not in page and "BertSelfAttention" in page


def test_what_could_not_be_checked_has_its_reason_and_its_remedy_once(project, child):
    folder = project("bert.py", "BertLayer(config) for _", "config.layer_class(config) for _")
    found = check(folder, child, ["layer", "embeddings", "model"])
    page = " ".join(report.page(found).split())
    assert report.exit_status([found]) == 2
    assert page.count("it reads `config.layer_class`") == 1 and "Give `layer_class` a default" in page
    assert "embeddings; whole model and pooler" in page and "Nothing" not in page
    assert "What is next: nothing is known to be wrong; see above" in page


def test_a_part_that_was_checked_in_part_says_which_probes_are_lacking(child, tmp_path):
    test = "def test_model_multitask(args, model, device):\n"
    files = COURSE | {"evaluation.py": COURSE["evaluation.py"].replace(test, test + "    x = args.log_dir\n")}
    found = check(written(tmp_path, files), child, ["evaluation"])
    page = " ".join(report.page(found).split())
    assert result(found, "evaluation")["status"] == "partly" and report.exit_status([found]) == 2
    assert "passed in part" in page and "the dev file of sentiment;" in page and "--log_dir" in page


def test_the_page_of_an_unknown_mistake_says_where_by_how_much_and_what_is_right(project, child, impatient):
    folder = project("bert.py", "probs = self.dropout(probs)", "probs = 0.7 * self.dropout(probs)")
    found = check(folder, child, ["attention"])
    page = report.page(found)
    line = line_of(folder, "def attention(")
    assert result(found, "attention")["mistakes"] == []
    assert f"bert.py:{line}" in page and "0.7 times what was expected" in " ".join(page.split())
    assert "These are right: " in page and f"find what differs in bert.py:{line}." in page


def test_a_failure_is_said_to_have_failed_and_no_number_is_expected_of_it(project, child, impatient):
    folder = project("bert.py", SCALE, "S = S.nothing")
    found = check(folder, child, ["attention"])
    page = report.page(found)
    assert result(found, "attention")["status"] == "crashed"
    assert f"bert.py:{line_of(folder, 'S.nothing')}" in page and "AttributeError" in page and "expected" not in page


@pytest.mark.slow
def test_what_is_right_beside_a_failure_names_only_what_was_probed(child, tmp_path):
    wrong = ("return self.paraphrase(torch.cat([u, v], dim=1)).squeeze()", "return (u * v).mean(1).sigmoid()")
    text = COURSE["multitask_classifier.py"].replace(*wrong).replace("return 5 * F.cosine", "return 5 * self.cosine")
    files = {k: v for k, v in COURSE.items() if k != "classifier.py"} | {"multitask_classifier.py": text}
    found = check(written(tmp_path, files), child, ["heads"])
    heads, page = result(found, "heads"), report.page(found)
    assert [m["name"] for m in heads["mistakes"]] == ["sigmoid twice for paraphrase"]
    assert heads["failure"]["error"] == "AttributeError" and "Besides, “predict_similarity" in page
    assert "classifier.py" not in page.replace("multitask_classifier.py", "")  # there is none


@pytest.mark.slow
def test_paths_of_the_check_s_own_are_not_shown(project, child):
    lines = f"    print('in', __file__, '{child.home}/tmpabc/x.csv')\n    raise ValueError(__file__)\n"
    folder = project("evaluation.py", "    model.eval()\n", lines)
    found = result(check(folder, child, ["evaluation"]), "evaluation")
    assert str(child.folder) not in json.dumps(found) and "sanity-" not in json.dumps(found)
    assert found["output"].split() == ["in", "evaluation.py", "x.csv"] * found["output"].count("in ")


def test_progress_bars_are_silent(project, child):
    assert "output" not in result(check(project(), child, ["evaluation"]), "evaluation")  # it evaluates under tqdm
    folder = project("evaluation.py", "    model.eval()\n", "    model.eval()\n    print('hello')\n", name="prints")
    assert "hello" in result(check(folder, child, ["evaluation"]), "evaluation")["output"]  # what they print is shown


# ------------------------------------------------------------------------------------------------ forms of handing in


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
            file.unlink()
    found = check(folder, child, CORE)
    assert {r["status"] for r in found["parts"]} == {"passed"}


def test_other_parameter_names_are_not_checked(project, child):
    folder = project()
    text = (folder / "bert.py").read_text("utf-8").replace("self.query", "self.asks")
    (folder / "bert.py").write_text(text, "utf-8")
    found = check(folder, child, ["attention"])
    assert result(found, "attention")["status"] == "not checked" and "query.weight" in report.page(found)
    assert report.exit_status([found]) == 2


def test_dropout_by_hand_is_not_checked_and_not_called_wrong(project, child, impatient):
    by_hand = "(probs * (torch.rand_like(probs) > self.dropout.p) / (1 - self.dropout.p) if self.training else probs)"
    found = result(check(project("bert.py", "self.dropout(probs)", by_hand), child, ["attention"]), "attention")
    assert found["status"] == "not checked" and "written by hand" in found["note"]
    wrong = project("bert.py", "self.dropout(probs)", by_hand, "S = S + attention_mask", "pass", name="wrong")
    assert result(check(wrong, child, ["attention"]), "attention")["status"] == "wrong"  # not only in training


@pytest.mark.slow
def test_dropout_by_a_function_of_another_file_is_not_called_wrong(project, child, impatient):
    drop = "def drop(x, p, training):\n    return x * (torch.rand_like(x) > p) / (1 - p) if training else x\n"
    folder = project(
        "bert.py", "import math\n", "import math\nfrom dropping import drop\n",
        "= dropout(transformed)", "= drop(transformed, dropout.p, self.training)",
        "= self.embed_dropout(embeds)", "= drop(embeds, self.embed_dropout.p, self.training)",
    )  # fmt: skip
    written(folder, {"dropping.py": f"import torch\n\n\n{drop}"})
    found = check(folder, child, ["layer", "embeddings"])
    assert [(r["status"], "written by hand" in r["note"]) for r in found["parts"]] == [("not checked", True)] * 2
    written(folder, {"dropping.py": drop.replace("(torch.rand_like(x) > p)", "0.7")})
    assert [r["status"] for r in check(folder, child, ["layer"])["parts"]] == ["wrong"]  # nothing here is random


@pytest.mark.parametrize(
    "line",
    ["from torch.utils.tensorboard import SummaryWriter", "get_ipython().run_line_magic('matplotlib', 'inline')"],
)
def test_what_has_no_part_in_a_model_does_no_harm(line, project, child):
    folder = project("multitask_classifier.py", "import argparse\n", f"import argparse\n{line}\n")
    assert result(check(folder, child, ["heads"]), "heads")["status"] == "passed"


# ------------------------------------------------------------------------------------------------ the command line


def run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / "sanity_check.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 3])
def test_a_class_makes_a_table_in_the_order_that_was_given(jobs, project, tmp_path):
    good, bad = project(name="good"), project("bert.py", SCALE, SCALE.replace("/", "*"), name="bad")
    done = run(good, bad, tmp_path / "missing", "--part", "optimizer,attention", "--jobs", jobs)
    lines = done.stdout.splitlines()
    assert done.returncode == 1 and lines[0].split() == ["attention", "optimizer"]
    assert lines[1].split()[-2:] == ["ok", "ok"] and lines[2].split()[-2:] == ["WRONG", "ok"]
    assert "could not be run" in lines[3] and "scores are multiplied by √D" in done.stdout


def test_the_rows_of_a_class_come_as_they_are_ready(project, monkeypatch, capsys):
    """The first project's row is on the screen before the second project's check has ended."""
    text = ""

    def slow_check(path, *others):
        nonlocal text
        row = check(path, *others)
        if path.endswith("second"):
            end = time.monotonic() + 20
            while "first" not in text and time.monotonic() < end:
                time.sleep(0.02)
                text += capsys.readouterr().out
        return row

    monkeypatch.setattr(sanity_check, "check", slow_check)
    paths = [str(project(name=name)) for name in ("first", "second")]
    with pytest.raises(SystemExit):
        sanity_check.main([*paths, "--part", "optimizer", "--jobs", "1"])
    assert "first" in text and "second" not in text


@pytest.mark.slow
def test_json_is_for_a_program(project):
    done = run(project(), "--part", "attention", "--json")
    (found,) = json.loads(done.stdout)
    assert done.returncode == 0 and [r["status"] for r in found["parts"]] == ["passed"]
    wrong = run(project("bert.py", "S = S / math", "S = S * math", name="wrong"), "--part", "attention,lora", "--json")
    (other,) = json.loads(wrong.stdout)
    assert wrong.returncode == 1 and {tuple(r) for r in found["parts"] + other["parts"]} == {tuple(found["parts"][0])}
    nowhere = run("nowhere", "--json")
    assert nowhere.returncode == 2 and "no such file" in json.loads(nowhere.stdout)[0]["error"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments, words",
    [
        (["/nowhere/at/all"], "no such file"),
        ([".", "--part", "attention,everything"], "'everything' is no part"),
        ([".", "--timeout", "0"], "above 0"),
        ([".", "--jobs", "0"], "at least 1"),
        ([".", "--pretrained", "minilm"], "leave it out with a PATH"),
    ],
)
def test_what_cannot_be_run_is_one_line_and_status_2(arguments, words):
    done = run(*arguments)
    assert done.returncode == 2 and words in done.stderr and len(done.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_our_own_parts_pass():
    """`python sanity_check.py --part …`: this project by the same machinery, without the real weights."""
    done = run("--part", ",".join(CORE))
    assert done.returncode == 0 and done.stdout.count("passed") == len(CORE)


@pytest.mark.slow
def test_the_script_says_passed_and_leaves_with_0(capsys):
    with pytest.raises(SystemExit) as stop:
        sanity_check.main(["--part", "attention", "--pretrained", "minilm"])
    out = capsys.readouterr().out
    assert stop.value.code == 0 and out.count("passed") == 4


def test_the_script_says_what_is_wrong_and_leaves_with_1(capsys, monkeypatch):
    monkeypatch.setattr(sanity_check, "check_adamw", lambda: "weights: expected 1, found 2")
    monkeypatch.setattr(sanity_check, "check_real_bert", lambda name: "")  # loading them takes seconds
    with pytest.raises(SystemExit) as stop:
        sanity_check.main(["--part", "attention", "--pretrained", "minilm"])
    assert stop.value.code == 1 and "WRONG: weights: expected 1, found 2" in capsys.readouterr().out
