"""The end of each script says how its page is made, and the command does that."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from minbert.report.__main__ import main
from minbert.report.folders import flatten
from minbert.report.read import read_run
from tests.report.folders import see, write_run

ROOT = Path(__file__).resolve().parents[2]
FEW = ["--epochs", "1", "--limit", "8", "--batch_size", "8"]
SCRIPTS = {
    "multitask_classifier.py": [*FEW, "--combine", "pcgrad", "--smart", "1", "--fine-tune-mode", "full-model"],
    "classifier.py": ["--train", "{sample}/ids-sst-dev.csv", "--dev", "{sample}/ids-sst-dev.csv", "--text", "sentence",
                      "--label", "sentiment", "--epochs", "1"],
    "-m minbert.pretraining": [*FEW, "--held_out", "8"],
}  # fmt: skip


def run(words: list, where: Path) -> str:
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, cwd=where)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_command_that_a_run_ends_with_makes_its_page(tmp_path, tiny, sample, script):
    words = [ROOT / script] if script.endswith(".py") else script.split()
    flags = [flag.format(sample=sample) for flag in SCRIPTS[script]]
    data = [] if script == "classifier.py" else ["--data", sample]
    out = tmp_path / "my run"
    last = run([*words, "--pretrained", tiny, *data, *flags, "--out", out], ROOT).strip().splitlines()
    line = next(line for line in reversed(last) if line.startswith("page "))
    python, *command = shlex.split(line.removeprefix("page"))
    assert python == "python" and Path(run(command, ROOT).split("page", 1)[1].strip()) == out / "report.html"
    result = read_run(out)
    seen = see(out / "report.html")
    assert result.notes == [], "what a script writes is what the page reads"
    assert f"python {result.description['command']}" in seen.text and "Learning curves" in seen.text
    if script == "multitask_classifier.py":
        titles = " ".join(seen.tables)
        assert "Cosines" in titles and "max|δ|" in titles and "predictions against labels" in titles
        assert all(x == "0.000" or x != "–" for x in seen.column(next(iter(
            t for t in seen.tables if t.startswith("Dev scores"))), "before training").values())  # fmt: skip


def test_the_lines_for_tensorboard_in_the_help_work(tmp_path, monkeypatch, capsys):
    """The program in `minbert.report`'s own text runs as it stands there, with a writer in TensorBoard's place."""
    import minbert.report

    program = minbert.report.__doc__.split("reads the log of a run after\n")[1].split("\nand Weights")[0]
    written = []

    class Writer:
        def __init__(self, folder):
            self.add_scalar = lambda name, value, epoch: written.append((name, value, epoch))

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

    write_run(tmp_path / "runs" / "quickstart")
    monkeypatch.chdir(tmp_path)
    lines = [line.removeprefix("    ") for line in program.splitlines() if "tensorboard import" not in line]
    exec("\n".join(lines), {"SummaryWriter": Writer})
    assert ("dev/sst", 0.2, 0) in written and ("smart/sst/before", 1e-7, 1) in written
    assert len(written) == sum(len(flatten(line)) for line in read_run("runs/quickstart").lines)


def test_the_help_names_what_the_command_takes(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0 and "DIR [DIR ...] [--out FILE]" in capsys.readouterr().out
