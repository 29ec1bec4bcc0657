"""data/minbert.ipynb: six cells that only call the scripts. Here they run, on a few rows with a tiny BERT."""

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = json.loads((ROOT / "data" / "minbert.ipynb").read_text("utf-8"))
CODE = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def test_it_has_six_cells_and_no_outputs():
    assert (NOTEBOOK["nbformat"], len(CODE)) == (4, 6)
    assert all(not cell["outputs"] for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code")
    defined = [line for code in CODE for line in code.splitlines() if line.startswith(("def ", "class "))]
    assert defined == ["def run(*words):"]


@pytest.mark.slow
def test_its_cells_run(odd, tmp_path, monkeypatch):
    real, commands = subprocess.Popen, []
    out = ["--out", str(tmp_path / "run")]
    more = {  # what makes each command small and keeps it out of the project's folder
        "--quickstart": ["--pretrained", str(odd), "--limit", "16", "--epochs", "1", *out],
        "--predict": out,
        "minbert.reading": ["--pretrained", str(odd), "--out", str(tmp_path / "page")],
    }

    def small(words, **options):
        commands.append(words[1:])
        if "pip" in words:
            return real([sys.executable, "-c", ""], **options)
        extra = next((flags for word, flags in more.items() if word in words), [])
        return real([*words, *extra], env=os.environ | {"OMP_NUM_THREADS": "1"}, **options)

    monkeypatch.setattr(subprocess, "Popen", small)
    monkeypatch.chdir(ROOT / "data")
    names, shown = {}, io.StringIO()
    with contextlib.redirect_stdout(shown):
        for code in CODE:
            exec(compile(code, "data/minbert.ipynb", "exec"), names)
    assert [words[0] for words in commands] == ["-m", "sanity_check.py", "multitask_classifier.py",
                                                "multitask_classifier.py", "-m"]  # fmt: skip
    assert "self-attention" in shown.getvalue() and "sentiment" in shown.getvalue().lower()
    assert (tmp_path / "run" / "run.json").exists() and (tmp_path / "page" / "index.html").exists()


def test_a_script_that_fails_stops_it(monkeypatch):
    names, shown, real = {}, io.StringIO(), subprocess.Popen
    monkeypatch.chdir(ROOT)
    fails = [sys.executable, "-c", "print('error: no'); raise SystemExit(2)"]
    monkeypatch.setattr(subprocess, "Popen", lambda words, **options: real(fails, **options))
    with contextlib.redirect_stdout(shown), pytest.raises(AssertionError, match="exit status 2"):
        exec(CODE[0], names)
    assert shown.getvalue() == "error: no\n"
