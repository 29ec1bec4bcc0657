"""The copy of every part says what is to be written, holds no line of the solution, and filled in it is right."""

import io
import os
import subprocess
import sys
import zipfile

import pytest

from minbert.exercise import questions
from minbert.exercise.copies import write_copy
from minbert.exercise.parts import PARTS
from minbert.sanity import parts
from tests.exercise.filling import ask, hidden, lines_of, put_back

pytestmark = pytest.mark.xdist_group("exercise")  # the numbers of the check are made once
ALL = [function for part in PARTS.values() for function in part.functions]
SUITES = {  # of the copy's own tests, those that say most of a part
    "attention": "model/test_bert.py", "layer": "model/test_bert.py", "embeddings": "model/test_bert_properties.py",
    "model": "model/test_bert_properties.py", "adamw": "model/test_optimizer.py", "heads": "tasks/test_heads.py",
    "evaluation": "tasks/test_evaluation.py", "pcgrad": "techniques/test_pals_tasks.py",
    "smart": "techniques/test_smart_divergences.py", "lora": "techniques/test_lora.py",
    "pals": "techniques/test_pals_sharing.py",
}  # fmt: skip


def own_tests(copy, name: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-n", "0", "-x", "-p", "no:cacheprovider", f"tests/{SUITES[name]}"]
    return subprocess.run(command, cwd=copy, env=environment, capture_output=True, encoding="utf-8")


def check_part(name: str, copy):
    part = PARTS[name]
    taken = write_copy(copy, [part])
    lines = lines_of(list(part.functions), ALL)
    assert len(lines) >= 2
    assert hidden(copy, lines) == []
    _, results = ask(copy, "--part", part.check)
    result = results[part.check]
    assert result["status"] == "not written"
    assert [method["name"] for method in result["todo"]] == [function for _, function in part.functions]
    assert own_tests(copy, name).returncode == 1

    put_back(copy, taken)
    assert {line for _, line in hidden(copy, lines)} == lines  # the search sees them where they are
    status, results = ask(copy, "--part", part.check)
    assert (status, results[part.check]["status"]) == (0, "passed"), results
    run = own_tests(copy, name)
    assert run.returncode == 0, run.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", PARTS)
def test_a_part_is_asked_for_and_right_once_it_is_filled_in(name, tmp_path):
    check_part(name, tmp_path / "copy")


def test_the_search_looks_into_archives(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("right.py", "scores = q @ k.transpose(-2, -1)", zipfile.ZIP_DEFLATED)
    (tmp_path / "parts.zip").write_bytes(buffer.getvalue())
    assert hidden(tmp_path, {"q @ k.transpose"}) == [("parts.zip/right.py", "q @ k.transpose")]


def test_the_questions_of_the_check_need_no_right_piece():
    folder = questions.ROOT / questions.FOLDER
    texts = questions.questions({name: (folder / f"{name}.py").read_text("utf-8") for name in parts.NAMES})
    for name, text in texts.items():
        compile(text, name, "exec")
        for gone in ("RIGHT", "MISTAKES", "Pieces", "reference", "Reference"):
            assert gone not in text.replace("reference run", ""), (name, gone)
