"""The end of each script says how its page is made, and the command does that."""

import os
import shlex
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import pytest

import classifier
import minbert.report
import multitask_classifier
from minbert.pretraining import script as pretraining
from minbert.report.__main__ import main
from minbert.report.folders import flatten
from minbert.report.read import read_run
from tests.report.folders import Seen, see, write_run
from tests.run.crashes import script_in_a_process

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def end_of(tmp_path, tiny, capsys):
    """A function that runs a script in a folder whose name has a blank; the command with which its output ends."""

    def train(script, *flags: str | Path) -> list[str]:
        script.main(["--pretrained", str(tiny), *map(str, flags), "--epochs", "1", "--out", str(tmp_path / "my run")])
        lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("page ")]
        assert read_run(tmp_path / "my run").notes == []  # what a script writes is what the page reads
        return shlex.split(lines[-1].removeprefix("page"))

    return train


def made_by(command: list[str]) -> Seen:
    """The page that a command makes, without the start of another Python."""
    assert command[:3] == ["python", "-m", "minbert.report"]
    main(command[3:])
    return see(Path(command[3]) / "report.html")


def test_a_run_of_several_tasks_ends_with_the_command_for_its_page(end_of, sample, no_matplotlib):
    few = ("--data", sample, "--limit", "8", "--batch_size", "8", "--fine-tune-mode", "full-model")
    seen = made_by(end_of(multitask_classifier, *few, "--combine", "pcgrad", "--smart", "1"))
    titles = " ".join(seen.tables)
    assert all(words in titles for words in ("Cosines", "max|δ|", "predictions against labels", "true class"))
    scores = "Dev scores beside chance, before training and the best other run"
    assert "–" not in seen.column(scores, "before training").values()


def test_a_pretraining_ends_with_the_command_for_its_page(end_of, sample, no_matplotlib):
    few = ("--data", sample, "--limit", "8", "--batch_size", "8", "--held_out", "8")
    assert any("masked word accuracy" in title for title in made_by(end_of(pretraining, *few)).tables)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the command runs in a copy of the test's process")
def test_a_classifiers_run_ends_with_the_command_for_its_page(end_of, sample, tmp_path):
    file = sample / "ids-sst-dev.csv"
    _, *words = end_of(classifier, "--train", file, "--dev", file, "--text", "sentence", "--label", "sentiment")
    assert words[0] == "-m"
    status, output, errors = script_in_a_process(ROOT, words[1], words[2:])
    first, second = output.splitlines()
    page = Path(first.removeprefix("page").strip())
    assert (status, page) == (0, Path(words[-1]) / "report.html"), errors
    assert any("precision, recall and F1" in title for title in see(page).tables)

    _, *words = shlex.split(second.removeprefix("to open it"))
    shows = {**os.environ, "BROWSER": "echo %s"}  # a browser that prints what it is to open
    shown = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=shows)
    assert Path(url2pathname(urlparse(shown.stdout.split()[0]).path)) == page and "%20" in shown.stdout


def test_the_lines_for_tensorboard_in_the_help_work(tmp_path, monkeypatch, capsys):
    """The program in `minbert.report`'s own text runs as it stands there, with a writer in TensorBoard's place."""
    program = minbert.report.__doc__.split("reads the log of a run after\n")[1].split("\nThen `tensorboard")[0]
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
