"""Signals while the scripts load PyTorch, or in a run that ignores them; a reader of the output that leaves."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = {
    "multitask_classifier": ["multitask_classifier.py"],
    "classifier": ["classifier.py"],
    "pretraining": ["-m", "minbert.pretraining", "--out", "nowhere"],
    "sanity_check": ["sanity_check.py", "--part", "gelu"],
}
PROBE = """
import importlib.abc, os, signal, sys
class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torch" and not hasattr(self, "sent"):
            self.sent = True
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
"""  # a Ctrl-C at the moment when PyTorch is asked for


def start(words: list[str], before: str = "", **options) -> subprocess.Popen:
    """A script in a process of its own. before: lines of Python that are run first."""
    if words[0] == "-m":
        body = f"sys.argv = {words[1:]!r}; runpy.run_module({words[1]!r}, run_name='__main__', alter_sys=True)"
    else:
        body = f"sys.argv = {words!r}; runpy.run_path({words[0]!r}, run_name='__main__')"
    program = f"{before}\nimport runpy, sys; sys.path.insert(0, '.'); {body}"
    pipe, environment = subprocess.PIPE, os.environ | {"HF_HUB_OFFLINE": "1"}
    return subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=pipe, stderr=pipe, text=True,
                            env=environment, **options)  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS)
def test_ctrl_c_while_pytorch_is_loaded_is_one_line(script):
    process = start(SCRIPTS[script], PROBE)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out, err) == (130, "", "stopped by Ctrl-C\n")


def test_ctrl_c_that_is_ignored_stays_ignored_while_pytorch_is_loaded():
    """As in a job that a shell started with `&`: the script goes on, to its complaint about --predict."""
    ignore = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
    process = start([*SCRIPTS["classifier"], "--predict", "a", "b", "c"], ignore + PROBE)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2 and "--predict takes one sentence or two" in err


def run_of(tiny: Path, sample: Path, out: Path, *more: str) -> list[str]:
    words = f"multitask_classifier.py --pretrained {tiny} --data {sample} --out {out} --limit 40 --batch_size 2"
    return [*words.split(), "--steps_per_epoch", "400", "--skip_predictions", *more]


def in_training(process: subprocess.Popen, out: Path):
    """Wait until the run is in its first epoch."""
    while not (out / "metrics.jsonl").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_run_in_which_a_signal_is_ignored_goes_on(tiny, sample, tmp_path, number):
    """`nohup` ignores SIGHUP, a job with `&` Ctrl-C; SIGTERM is heard."""
    ignore = f"import signal; signal.signal({int(number)}, signal.SIG_IGN)"
    process = start(run_of(tiny, sample, tmp_path / "run"), ignore)
    in_training(process, tmp_path / "run")
    for _ in range(3):
        process.send_signal(number)
        time.sleep(0.1)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143 and "Traceback" not in err and "--resume" in err


@pytest.mark.slow
def test_a_hang_up_saves_as_a_termination_does(tiny, sample, tmp_path):
    process = start(run_of(tiny, sample, tmp_path / "run"))
    in_training(process, tmp_path / "run")
    process.send_signal(signal.SIGHUP)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 129 and "--resume goes on" in err and "Traceback" not in err
    assert list((tmp_path / "run" / "checkpoints").iterdir())


@pytest.mark.parametrize("words", [["--help"], []], ids=["help", "run"])
def test_a_reader_that_leaves_ends_the_program_without_a_traceback(tiny, sample, tmp_path, words):
    """`… | head -1`."""
    script = ["multitask_classifier.py", *words] if words else run_of(tiny, sample, tmp_path / "run")
    process = start(script)
    assert process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(timeout=120) in (0, 1, 120, 141) and "Traceback" not in err and "BrokenPipe" not in err, err
