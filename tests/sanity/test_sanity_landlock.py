"""What the kernel refuses the child, and what it still lets a right project do.

Each refusal has its negative control: without Landlock the same action does its harm.
"""

import contextlib
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch

from minbert.sanity import landlock

ABI = landlock.abi()
needs_landlock = pytest.mark.skipif(not ABI, reason="this kernel has no Landlock")
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


def in_a_fork(action: Callable[[], object], folder: Path | None) -> str:
    """What an action returns or raises in a process of its own, which may write to `folder` alone; None: anywhere."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        with contextlib.suppress(BaseException):
            if folder and not landlock.restrict(folder):
                text = "not restricted"
            else:
                try:
                    text = f"done {action()}"
                except BaseException as error:
                    text = f"refused {type(error).__name__}: {error}"
            os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    with os.fdopen(reader) as answer:
        return answer.read()


def relative_to_a_handle(victim: Path):
    os.close(os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=os.open(victim.parent, os.O_RDONLY)))


def move_in(victim: Path):
    with tempfile.NamedTemporaryFile(delete=False) as file:
        os.rename(file.name, "new", dst_dir_fd=os.open(victim.parent, os.O_RDONLY))


def change_mapped(victim: Path):
    torch.from_file(str(victim), shared=True, size=1, dtype=torch.uint8)[0] = 88


def start_a_program(victim: Path):
    os.execv("/bin/rm", ["rm", str(victim)])


ESCAPES = {  # past an audit hook, all but the last two
    "torch.save": (1, lambda victim: torch.save({}, victim.with_name("new"))),
    "torch.save over a file": (1, lambda victim: torch.save({}, victim)),
    "numpy.save": (1, lambda victim: numpy.save(victim.with_name("new"), numpy.ones(1))),
    "a path relative to a handle": (1, relative_to_a_handle),
    "mkfifo": (1, lambda victim: os.mkfifo(victim.with_name("new"))),
    "a rename into another folder": (1, move_in),
    "shared memory of a file": (1, change_mapped),
    "another program": (1, start_a_program),
    "truncate": (3, lambda victim: os.truncate(victim, 0)),
    "unlink": (1, lambda victim: os.unlink(victim)),
}


@needs_landlock
@pytest.mark.parametrize("name", ESCAPES)
def test_the_kernel_refuses_what_changes_files_outside_of_the_folder(name, tmp_path, monkeypatch):
    least, action = ESCAPES[name]
    if least > ABI:
        pytest.skip(f"Landlock refuses this from ABI {least} on, and this kernel has {ABI}")
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir(), outside.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(inside))
    victim = outside / "victim"

    def state() -> dict[str, bytes | None]:
        return {path.name: path.read_bytes() if path.is_file() else None for path in outside.iterdir()}

    victim.write_text("precious")
    answer = in_a_fork(lambda: action(victim), inside)
    assert answer.startswith("refused"), answer
    assert state() == {"victim": b"precious"}
    in_a_fork(lambda: action(victim), None)
    assert state() != {"victim": b"precious"}, "this harms nothing: the test shows nothing"


@needs_landlock
def test_a_right_project_may_do_what_it_does(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def work():
        os.chdir(tmp_path)
        (tmp_path / "one" / "two").mkdir(parents=True)
        torch.save({"w": torch.ones(2)}, "one/weights.pt")
        os.rename("one/weights.pt", "one/two/weights.pt")
        numpy.save("one/array.npy", numpy.ones(2))
        (tmp_path / "link").symlink_to("one")
        assert torch.equal(torch.load("link/two/weights.pt")["w"], torch.ones(2))
        with tempfile.NamedTemporaryFile() as file, open(os.devnull, "w") as nothing:
            print("text", file=nothing)
            file.write(b"bytes")
        os.remove("one/array.npy")
        shared = torch.zeros(3).share_memory_()  # a file in /dev/shm
        thread = threading.Thread(target=lambda: shared.add_(1))
        thread.start()
        thread.join()
        assert Path("/proc/self/status").read_text() and Path("/proc/meminfo").read_text() and os.listdir("/")
        return shared.tolist()

    assert in_a_fork(work, tmp_path) == "done [1.0, 1.0, 1.0]"


@needs_landlock
@pytest.mark.skipif(ABI < 4, reason="this kernel's Landlock knows no TCP")
def test_the_kernel_refuses_tcp(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def connect():
            socket.create_connection(server.getsockname(), 5).close()

        assert in_a_fork(connect, tmp_path).startswith("refused PermissionError")
        assert in_a_fork(connect, None) == "done None"


@needs_landlock
@pytest.mark.skipif(ABI < 6, reason="this kernel's Landlock knows no signals")
def test_the_kernel_refuses_signals_to_others(tmp_path):
    mine = os.getpid()
    assert in_a_fork(lambda: os.kill(mine, 0), tmp_path).startswith("refused PermissionError")
    assert in_a_fork(lambda: os.kill(mine, 0), None) == "done None"


@needs_landlock
def test_the_environment_of_other_processes_cannot_be_read(tmp_path):
    def read() -> int:
        return len(Path(f"/proc/{os.getppid()}/environ").read_bytes())

    assert in_a_fork(read, tmp_path).startswith("refused PermissionError")
    assert in_a_fork(read, None).startswith("done ")


@pytest.mark.parametrize(
    "abi, files, network, processes",
    [  # of <linux/landlock.h>: 13 rights of files, then refer, truncate, ioctl
        (0, 0, 0, 0),
        (1, 0x1FFF, 0, 0),
        (2, 0x3FFF, 0, 0),
        (3, 0x7FFF, 0, 0),
        (4, 0x7FFF, 3, 0),
        (5, 0xFFFF, 3, 0),
        (6, 0xFFFF, 3, 3),
        (9, 0xFFFF, 3, 3),
    ],
)
def test_each_abi_is_asked_for_what_it_knows(abi, files, network, processes):
    assert landlock.forbidden(abi) == (files, network, processes)


@pytest.mark.parametrize("fails", [landlock.CREATE, landlock.ADD, "version"])
def test_a_kernel_without_landlock_changes_nothing(fails, tmp_path):
    """ENOSYS, or a Landlock that is switched off: the guard of before is what there is."""
    calls = []

    def syscall(number: int, *arguments) -> int:
        calls.append(number)
        asks = number == landlock.CREATE and arguments[-1] == landlock.VERSION
        if asks:
            return -1 if fails == "version" else 7
        return -1 if number == fails else os.open(os.devnull, os.O_RDONLY)

    assert landlock.restrict(tmp_path, syscall) is False
    assert landlock.RESTRICT not in calls
    (tmp_path.parent / f"{tmp_path.name}-beside").write_text("may be written")


def test_a_process_ends_with_the_one_that_started_it():
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        if not (child := os.fork()):
            landlock.die_with_the_parent()
            os.write(writer, b"ready")
            signal.pause()
        os.read(reader, 5)
        os.write(writer, str(child).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    child = int(os.read(reader, 20))
    deadline = threading.Event()
    for _ in range(100):
        try:
            state = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":  # ended, and not waited for
            return
        deadline.wait(0.1)
    os.kill(child, signal.SIGKILL)
    pytest.fail("it outlives its parent")
