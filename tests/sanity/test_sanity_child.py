"""The child process: on a Python that cannot fork, on a busy machine, and when something takes long."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

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
        for names in (("attention", "optimizer"), ("optimizer",)):
            found = check(PROJECTS / "einsum", child, names)
            assert [r["status"] for r in found["parts"]] == ["passed"] * len(names)
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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="parts run in forks there alone")
@pytest.mark.parametrize(
    "name, status",
    [
        ("SIGINT", 130),
        pytest.param("SIGTERM", 143, marks=pytest.mark.slow),
        pytest.param("SIGHUP", 129, marks=pytest.mark.slow),
        ("SIGKILL", -9),
    ],
)
def test_a_check_that_is_stopped_leaves_no_process_and_no_folder(name, status, project, tmp_path):
    places = tmp_path / "temporary"
    places.mkdir()
    hangs = project("bert.py", SCALE, f"    print('in the part', flush=True)\n        while True: pass\n    {SCALE}")
    command = [sys.executable, str(ROOT / "sanity_check.py"), str(hangs), "--part", "attention", "--timeout", "60"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env={**os.environ, "TMPDIR": str(places)})  # fmt: skip

    def of_it() -> list[int]:
        """The processes that have the child's folder on their command line."""
        found = []
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if str(places).encode() in file.read_bytes():
                    found.append(int(file.parent.name))
        return found

    def within(seconds: float, holds) -> bool:
        end = time.monotonic() + seconds
        while not holds() and time.monotonic() < end:
            time.sleep(0.1)
        return holds()

    assert within(120, lambda: any(f.stat().st_size for f in places.glob("*/project-*/attention.txt")))
    began = time.monotonic()
    process.send_signal(getattr(signal, name))
    _, err = process.communicate(timeout=60)
    assert process.returncode == status and time.monotonic() - began < 30
    assert err == ("" if name == "SIGKILL" else f"stopped by {'Ctrl-C' if name == 'SIGINT' else name}\n")
    assert within(20, lambda: not of_it() and not list(places.iterdir()))


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
