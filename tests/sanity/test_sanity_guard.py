"""Code that is rude, or hostile by accident: it gets a clear line, it harms nothing, and other parts are judged."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minbert.sanity import landlock, report
from minbert.sanity.check import check

CORE = ("attention", "layer", "embeddings", "model", "optimizer")
ROOT = str(Path(__file__).resolve().parents[2])
SCALE = "    S = S / math.sqrt("


def result(project: dict, part: str) -> dict:
    return next(r for r in project["parts"] if r["part"] == part)


HOSTILE = {  # what somebody's attention does → what the page says of it
    "while True: pass": ("timed out", "time allowed"),
    "exit(3)": ("crashed", "SystemExit: 3"),
    "import os; os._exit(0)": ("crashed", "ended the Python process"),
    "import os; os.abort()": ("crashed", "by signal 6"),
    "[print('again' * 100) for _ in iter(int, 1)]": ("crashed", "prints without end"),
    "import os; os.remove({victim!r})": ("not checked", "does not let"),
    "import shutil; shutil.rmtree({folder!r})": ("not checked", "does not let"),
    "open({victim!r}, 'w')": ("not checked", "does not let"),
    "import os; os.rename({victim!r}, 'mine')": ("not checked", "does not let"),
    "import os; os.open({victim!r}, os.O_TRUNC | os.O_RDWR)": ("not checked", "does not let"),
    "import os; os.symlink({folder!r}, 'here'); open('here/victim.txt', 'w')": ("not checked", "does not let"),
    "import os; os.system('rm ' + {victim!r})": ("not checked", "does not let"),
    "import subprocess; subprocess.run(['rm', {victim!r}])": ("not checked", "does not let"),
    "import os; os.kill(os.getppid(), 9)": ("not checked", "does not let"),
    "import os; os.fork()": ("not checked", "does not let"),
    "import socket; socket.create_connection(('127.0.0.1', 9))": ("not checked", "does not let"),
    "import ctypes; ctypes.CDLL(None)": ("not checked", "does not let"),
    "import os; os.fchmod(os.open({victim!r}, os.O_RDONLY), 0)": ("not checked", "does not let"),
    "import os; open(f'/proc/{{os.getppid()}}/environ')": ("not checked", "does not let"),
    "import os, __main__; __main__.TOUCHES.clear(); os.remove({victim!r})": ("not checked", "does not let"),
    "x = bytearray(1 << 40)": ("not checked", "more memory"),
    "1 / 0": ("crashed", "ZeroDivisionError"),
    "S = S[:, :, :1]": ("wrong", ""),
    "S = S * float('nan')": ("wrong", ""),
    "torch.softmax = nn.functional.softmax = lambda *a, **o: 1 / 0": ("crashed", "ZeroDivisionError"),
}


@pytest.mark.parametrize("code", HOSTILE)
def test_hostile_code_gets_a_clear_line_and_harms_nothing(code, project, child, tmp_path, impatient):
    status, words = HOSTILE[code]
    victims = tmp_path / "precious"
    victims.mkdir()
    victim = victims / "victim.txt"
    victim.write_text("precious")
    code = code.format(victim=str(victim), folder=str(victims))
    folder = project("bert.py", SCALE, f"    {code}\n    {SCALE}")
    began = time.monotonic()
    found = check(folder, child, ["attention", "optimizer"], timeout=6 if "while" in code else 4)
    assert result(found, "attention")["status"] == status
    reasons = [u["reason"] for u in result(found, "attention")["unknown"]]
    assert words in " ".join([result(found, "attention")["note"], *reasons])
    assert result(found, "optimizer")["status"] == "passed"  # one part's end is not the other's
    assert victim.read_text() == "precious" and [p.name for p in victims.iterdir()] == ["victim.txt"]
    assert time.monotonic() - began < 60
    report.page(found)


@pytest.mark.skipif(not landlock.abi(), reason="this kernel has no Landlock")
def test_native_code_that_writes_elsewhere_is_refused_and_is_no_mistake(project, child, tmp_path):
    folder = project("bert.py", SCALE, f"    torch.save(S, {str(tmp_path / 'scores.pt')!r})\n    {SCALE}")
    attention = result(check(folder, child, ["attention"]), "attention")
    assert attention["status"] == "not checked" and "Permission denied" in attention["unknown"][0]["reason"]
    assert not (tmp_path / "scores.pt").exists()


def test_a_project_cannot_write_into_the_folder_of_another_or_into_the_home_that_they_share(project, child):
    other = child.folder / "project-other"
    other.mkdir()
    (other / "bert.py").write_text("theirs")
    for place in (other / "bert.py", other / "new.py", child.home / "usercustomize.py"):
        folder = project("bert.py", SCALE, f"    open({str(place)!r}, 'w')\n    {SCALE}", name=place.stem)
        assert result(check(folder, child, ["attention"]), "attention")["status"] == "not checked"
    assert [(p.name, p.read_text()) for p in other.iterdir()] == [("bert.py", "theirs")]
    assert not list(child.home.iterdir())
    assert [p.name for p in child.folder.glob("project-*")] == ["project-other"]  # each is removed after its check


LEAVES_A_PROCESS = """
import os, sys, time
from minbert.sanity import child, landlock
out = sys.argv[1]

def run_part(job, part):  # a daemon: it has left the process group, and the process that started it has ended
    if not os.fork():
        os.setsid()
        os.closerange(0, 3)
        with open(f"{out}.part", "w") as file:
            file.write(str(os.getpid()))
        os.rename(f"{out}.part", f"{out}.pid")
        time.sleep(60)
        os._exit(0)
    while not os.path.exists(f"{out}.pid"):
        time.sleep(0.01)

child.run_part = run_part
if sys.argv[2] == "without":
    child.end_the_rest = lambda group: None
landlock.adopt_orphans()
print(child.in_a_fork({"out": out, "timeout": 20}, None, os.dup(1))["ended"])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux hands orphans to a grandparent")
@pytest.mark.parametrize("how, alive", [("with", False), pytest.param("without", True, marks=pytest.mark.slow)])
def test_what_a_part_starts_ends_with_it(how, alive, tmp_path):
    command = [sys.executable, "-c", LEAVES_A_PROCESS, str(tmp_path / "out"), how]
    answer = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONPATH": ROOT}
    )
    assert answer.stdout == "done\n", answer.stderr
    process = int((tmp_path / "out.pid").read_text())
    assert Path(f"/proc/{process}").exists() == alive
    if alive:
        os.kill(process, 9)


def test_files_may_be_written_and_deleted_in_the_copy_only(project, child):
    code = "import os; open('mine.txt', 'w').close(); os.remove('mine.txt'); os.remove('optimizer.py')"
    folder = project("bert.py", SCALE, f"    {code}\n    {SCALE}")
    check(folder, child, ["attention"])
    assert (folder / "optimizer.py").exists() and not (folder / "mine.txt").exists()


@pytest.mark.slow
def test_where_it_hangs_is_said(project, child):
    folder = project("bert.py", SCALE, f"    while True: pass\n    {SCALE}")
    found = result(check(folder, child, ["attention"], timeout=6), "attention")
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


def test_a_file_that_cannot_be_imported_is_told_of_once(project, child):
    folder = project("bert.py", "class BertLayer(nn.Module):", "class BertLayer(nn.Module:")
    found = check(folder, child, ["attention", "layer", "embeddings", "optimizer"])
    assert [r["status"] for r in found["parts"]] == ["crashed", "not checked", "not checked", "passed"]
    assert report.page(found).count("SyntaxError") == 3  # in the list, in its section, and as what is next
