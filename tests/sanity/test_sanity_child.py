"""The child process: on a Python that cannot fork, on a busy machine, and when something takes long."""

import os
import subprocess
import sys

import pytest

from minbert.sanity.check import check
from minbert.sanity.launch import Child
from tests.sanity.making import PROJECTS, ROOT

SCALE = "    S = S / math.sqrt("
WITHOUT_FORK = """
import os, signal, sys
for name in ("fork", "forkpty", "setsid", "killpg"):
    if hasattr(os, name):
        delattr(os, name)
del signal.SIGKILL
sys.modules["resource"] = None
"""


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / "sanity_check.py", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.fixture
def without_fork(tmp_path, monkeypatch):
    """Python's own start-up file for the child, which takes away what Windows does not have."""
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_FORK)
    monkeypatch.setattr("minbert.sanity.launch.REPOSITORY", os.pathsep.join([str(tmp_path), str(ROOT)]))


def test_a_right_project_passes_where_python_cannot_fork(without_fork):
    """Each part has a process of its own; the next job must not go to one that is about to end."""
    child = Child()
    try:
        for _ in range(2):
            found = check(PROJECTS / "einsum", child, ("attention", "optimizer", "attention"))
            assert [r["status"] for r in found["parts"]] == ["passed"] * 2
        assert child.process.spent, "the child could fork: this test shows nothing"
    finally:
        child.close()


@pytest.mark.slow
def test_a_part_that_dies_costs_the_others_nothing_where_python_cannot_fork(without_fork, project):
    folder = project("bert.py", SCALE, f"    import os; os._exit(3)\n    {SCALE}")
    child = Child()
    try:
        found = check(folder, child, ("attention", "optimizer"))
        assert [r["status"] for r in found["parts"]] == ["crashed", "passed"]
    finally:
        child.close()


@pytest.mark.slow
def test_much_to_do_is_no_mistake_and_a_call_that_does_not_end_is(project, child):
    """Both use up their time. In the one many calls have ended, in the other a single one has not."""
    busy = "sum(i * i for i in range(8_000_000))"
    slow = project("bert.py", SCALE, f"    {busy}\n    {SCALE}", name="slow")
    result = check(slow, child, ["attention"], timeout=3)["parts"][0]
    assert result["status"] == "not checked" and "--timeout" in result["note"]
    hangs = project("bert.py", SCALE, f"    while True: pass\n    {SCALE}", name="hangs")
    result = check(hangs, child, ["attention"], timeout=3)["parts"][0]
    assert result["status"] == "timed out" and result["file"] == "bert.py"


@pytest.mark.slow
def test_a_busy_machine_gives_the_same_page():
    """Processor time is what is limited: with two busy loops a processor the clock runs three times as fast."""
    quiet = run(PROJECTS / "einsum", "--timeout", "3")
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        busy = run(PROJECTS / "einsum", "--timeout", "3")
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    assert busy.stdout == quiet.stdout and busy.returncode == quiet.returncode == 0
