"""The child process: the only place where somebody's code runs. It records, and judges nothing.

    a job on stdin  {"part", "root", "home", "top", "timeout", "out"}
      → a fork of this process, with standard output to a file, sets the guard, imports their code, runs the probes,
        and saves what came out with `torch.save` (tensors, numbers and strings: read back with weights_only=True)
      → a line on stdout, {"ended", "status"}

Two guards stand around their code. The folder of `out` is the only place where it may write.

    everywhere         Python's audit hook. Opening a file for writing, deleting, renaming, starting a process, sending
                       a signal, the network and reading another process's /proc raise PermissionError.
                       Native code (`torch.save` to an absolute path) and code that means harm can pass by it.
    Linux since 5.13   Landlock (`landlock.py`). The kernel refuses to write elsewhere and to start programs; since 6.2
                       to cut files short, since 6.7 TCP, since 6.12 signals. No code in a process can pass by it.

Memory, processor time and the size of a file are limited where the system can. What a part leaves running is ended
with it: its process group everywhere, and on Linux also what left that group. The environment holds none of the
caller's variables but PATH and the like. It is still NOT a sandbox: files can be read; only the hook guards UDP and
the mode, owner and times of files; and somebody's code could write its own results. For code from somebody who means
harm, use a container.
"""

import ast
import contextlib
import importlib
import json
import math
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch

from minbert.sanity import core, evidence, judge, landlock, layout, parts, project, source
from minbert.sanity.launch import PATIENCE

try:
    import resource
except ImportError:  # not a Unix
    resource = None

MOST_OUTPUT = 1_000_000  # bytes that a part may print
MOST_MEMORY = 3 << 30  # bytes beyond what PyTorch takes
MOST_FILE = 32 << 20  # bytes

TOUCHES = {  # audit event → which of its arguments are paths, and which is the folder that they are relative to
    "os.remove": ((0,), 1), "os.rmdir": ((0,), 1), "os.mkdir": ((0,), 2), "os.rename": ((0, 1), 2),
    "os.link": ((0, 1), 2), "os.symlink": ((0, 1), 2), "os.truncate": ((0,), None), "os.chmod": ((0,), 2),
    "os.chown": ((0,), 3), "os.utime": ((0,), 3), "os.chflags": ((0,), None), "os.lockf": ((), None),
    "os.setxattr": ((0,), None), "os.removexattr": ((0,), None), "shutil.rmtree": ((0,), None),
    "shutil.move": ((0, 1), None), "shutil.chown": ((0,), None), "sqlite3.connect": ((0,), None),
}  # fmt: skip
REFUSED = (
    "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.startfile", "os.kill", "pty.",
    "socket.connect", "socket.bind", "socket.send", "socket.getaddrinfo", "socket.gethostby", "ctypes.dlopen",
    "ctypes.dlsym", "ctypes.call_function", "signal.pthread_kill", "urllib.", "ftplib.", "smtplib.", "webbrowser.",
    "resource.prlimit", "resource.setrlimit", "os.unshare", "os.setns", "mmap.__new__", "winreg.",
)  # fmt: skip
SLOW = re.compile(r"(import|from) scipy\b")  # it takes a second to load; other slow packages have stand-ins
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def guard(folder: Path):
    """Forbid this process to change anything outside `folder`, to start programs and to use the network."""
    inside, real, join, decode, link, own = (
        str(folder), os.path.realpath, os.path.join, os.fsdecode, os.readlink, str(os.getpid())
    )  # fmt: skip
    devices, touches, refused, writing = (os.devnull,), dict(TOUCHES), REFUSED, WRITES  # copies, out of their reach

    def allowed(path: Any, directory: Any = -1) -> bool:
        if isinstance(path, int):  # an open file, perhaps open for reading alone
            try:
                path = link(f"/proc/self/fd/{path}")
            except OSError:  # another system, where the file was looked at when it was opened
                return True
        path = decode(path)
        if isinstance(directory, int) and directory >= 0:
            path = join(link(f"/proc/self/fd/{directory}"), path)
        # the last name itself may be a link, which is removed or renamed as such
        path = join(real(os.path.dirname(path) or "."), os.path.basename(path))
        return path in devices or all(p == inside or p.startswith(inside + os.sep) for p in (path, real(path)))

    def hook(event: str, args: tuple):
        if event == "open":
            path, mode, flags = args
            writes = flags & writing if isinstance(flags, int) else set(mode or "") & set("wax+")
            if writes and not isinstance(path, int) and not allowed(path):
                raise PermissionError(f"the check does not let your code write to {path}")
            if isinstance(path, str) and path.startswith("/proc/"):
                process = real(path).split("/")[2]
                if process.isdecimal() and process != own:
                    raise PermissionError(f"the check does not let your code read {path}")
        elif event in touches:
            which, directory = touches[event]
            base = args[directory] if directory is not None and directory < len(args) else -1
            for i in which:
                if not allowed(args[i], base):
                    raise PermissionError(f"the check does not let your code change {args[i]} ({event})")
        elif event.startswith(refused):
            raise PermissionError(f"the check does not let your code do this: {event}")

    sys.addaudithook(hook)


def limit(seconds: float):
    """Limits that the system holds, where it has them. A process that has used up its seconds gets SIGXCPU."""
    if resource is None:
        return

    def lower(what: str, value: int, room: int = 0):
        with contextlib.suppress(ValueError, OSError, AttributeError):
            number = getattr(resource, what)
            hard = resource.getrlimit(number)[1]
            resource.setrlimit(number, (value, value + room if hard < 0 else min(value + room, hard)))

    with contextlib.suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        lower("RLIMIT_AS", pages * os.sysconf("SC_PAGE_SIZE") + MOST_MEMORY)
    lower("RLIMIT_CPU", math.ceil(time.process_time() + seconds), room=2)
    lower("RLIMIT_FSIZE", MOST_FILE)
    lower("RLIMIT_CORE", 0)


def watch(file: str, root: Path, seconds: float):
    """Write down, again and again, which line of theirs is running, and whether one call of theirs hangs.

    A call hangs if it takes a third of the processor seconds or, as when it sleeps, half of the time on the clock. Only
    then is running out of time a mistake, because the inputs are tiny; otherwise there was merely much to do.
    """
    main, call, since = threading.main_thread().ident, None, (0.0, 0.0)
    while True:
        time.sleep(seconds / 40)
        frame, innermost, outermost = sys._current_frames().get(main), None, None
        while frame is not None:
            if Path(frame.f_code.co_filename).is_relative_to(root):
                innermost, outermost = innermost or frame, frame
            frame = frame.f_back
        now = time.process_time(), time.monotonic()
        if outermost is not call:
            call, since = outermost, now
        if outermost is not None:
            place = str(Path(innermost.f_code.co_filename).relative_to(root)), innermost.f_lineno
            hangs = now[0] - since[0] > seconds / 3 or now[1] - since[1] > PATIENCE * seconds / 2
            Path(file).write_text(json.dumps({"place": place, "hangs": hangs}))


def examine(part: core.Part, theirs: project.Project) -> dict[str, Any]:
    """Find the part in their project and run its probes: {"status", "note"?, "failure"?, "probes"?, …}."""
    blame = evidence.Blame(theirs, part.owns)
    try:
        with core.visible_dropout():
            subject = part.find(theirs)
            probes = evidence.record(part, subject, blame)
            if theirs.notes and any("values" in outcome for outcome in probes.values()):
                probes = confirmed(part, theirs, probes, blame)
    except core.Absent as reason:
        return {"status": "absent", "note": str(reason)}
    except BaseException as error:  # SystemExit and KeyboardInterrupt as well: whatever it was, it ends the part only
        probes = dict.fromkeys((probe.name for probe in part.probes), blame(error))
        subject = None
    promised, base = getattr(subject, "promised", True), False
    if part.at_base and subject is not None and (wrong := judge.differing(part, probes)):
        with contextlib.suppress(Exception), core.visible_dropout():
            base = part.at_base(theirs, {name: probes[name] for name in wrong})
    return {
        "status": "ran", "probes": probes, "judged": theirs.judged, "choices": theirs.choices, "promised": promised,
        "base": base, "renamed": theirs.renamed,
        "unwritten": theirs.unwritten(name for name in part.owns if ":" in name),
        "places": {name: list(place) for name, place in getattr(subject, "places", {}).items()},
    }  # fmt: skip


def confirmed(part: core.Part, theirs: project.Project, probes: dict, blame: evidence.Blame) -> dict:
    """The outcomes; those that change when the check guesses something else become unknown."""
    theirs.guess += 1
    note = theirs.notes[-1]
    try:
        again = evidence.record(part, part.find(theirs), blame)
    except Exception:
        again = {}
    return {
        name: outcome
        if "values" not in outcome or evidence.same_values(outcome, again.get(name, {}))
        else {"unknown": note.reason, "remedy": note.remedy}
        for name, outcome in probes.items()
    }


_read: dict[Path, project.Project] = {}  # the project that was read last, by its folder


def reading(where: layout.Layout) -> project.Project:
    """A project, with its syntax trees read, and scipy loaded if it imports that. Done once, as forks inherit both."""
    if where.root not in _read:
        _read.clear()
        theirs = project.Project(where)
        theirs.imports.path()
        for file in theirs.imports.reached:
            source.calls(file)
            for node in source.nodes(file):
                if isinstance(node, ast.Import | ast.ImportFrom) and SLOW.match(ast.unparse(node)):
                    with contextlib.suppress(Exception):
                        exec(ast.unparse(node), {})
        _read[where.root] = theirs
    return _read[where.root]


def layout_of(job: dict[str, Any]) -> layout.Layout:
    return layout.Layout(*(Path(job[name]) for name in ("root", "home", "top")))


def run_part(job: dict[str, Any], part: core.Part, save: Any = torch.save):
    """A part from beginning to end, in a process of its own."""
    out = Path(job["out"])
    output = os.open(f"{out}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdin = os.fdopen(0)
    sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1, encoding="utf-8", errors="replace")
    home = str(out.with_name("home"))
    os.environ.update(dict.fromkeys(("HOME", "USERPROFILE", "TMPDIR", "TEMP", "TMP"), home))
    tempfile.tempdir = None
    theirs = reading(layout_of(job))
    os.chdir(theirs.root if theirs.imports.entries else theirs.home)
    limit(job["timeout"])
    threading.Thread(target=watch, args=(f"{out}.at", theirs.root, job["timeout"]), daemon=True).start()
    guard(out.parent)
    theirs.enter()
    result = examine(part, theirs)
    save(result, f"{out}.part")
    os.replace(f"{out}.part", f"{out}.pt")
    with contextlib.suppress(Exception):
        sys.stdout.flush()


def in_a_fork(job: dict[str, Any], part: core.Part, answers: int) -> dict[str, Any]:
    """Run a part in a copy of this process, with a limit on its time and on how much it prints."""
    parent, caller = os.getpid(), os.getppid()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            os.close(answers)
            os.setsid()  # a group of its own, to be killed as one
            landlock.die_with_the_parent()
            landlock.restrict(Path(job["out"]).parent)  # before there is another thread, which would not be restricted

            def end_with_the_parent():
                while os.getppid() == parent:
                    time.sleep(0.2)
                os._exit(1)

            threading.Thread(target=end_with_the_parent, daemon=True).start()
            run_part(job, part)
            status = 0
        finally:
            os._exit(status)
    printed = Path(f"{job['out']}.txt")
    end, ended = time.monotonic() + PATIENCE * job["timeout"], None
    while ended is None:
        gone, status = os.waitpid(pid, os.WNOHANG)
        if gone:
            end_the_rest(pid)
            code = os.waitstatus_to_exitcode(status)
            if code == -signal.SIGXCPU:
                return {"ended": "timed out", "status": None}
            return {"ended": "died" if code else "done", "status": code}
        if time.monotonic() > end:
            ended = "timed out"
        elif printed.exists() and printed.stat().st_size > MOST_OUTPUT:
            ended = "printed too much"
        elif os.getppid() != caller:
            ended = "left alone"  # the process that asked has been killed
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)  # it has not been waited for, so the number is still its own
    os.waitpid(pid, 0)
    end_the_rest(pid)
    return {"ended": ended, "status": None}


def end_the_rest(group: int):
    """End what a part has started: what is still in its process group, and what has left it and is now our child."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
    for _ in range(100):  # the children of those that are ended come to us in turn
        if not (left := children()):
            return
        for pid in left:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def children() -> list[int]:
    """The processes whose parent is this one; [] where there is no /proc."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            if int(file.read_text("utf-8", "replace").rpartition(")")[2].split()[1]) == os.getpid():
                found.append(int(file.parent.name))
    return found


def main():
    torch.set_num_threads(1)
    landlock.adopt_orphans()
    answers = os.dup(1)
    os.dup2(2, 1)  # from now on printed text does not get among the answers
    channel = os.fdopen(answers, "w", buffering=1, encoding="utf-8")
    for line in sys.stdin:
        job = json.loads(line)
        part = parts.load(job["part"])  # here, and not in the fork: there `import minbert` is theirs
        with contextlib.suppress(Exception):  # the fork reports what cannot be read
            reading(layout_of(job))
        if hasattr(os, "fork"):
            with contextlib.suppress(BrokenPipeError):
                channel.write(json.dumps(in_a_fork(job, part, answers)) + "\n")
        else:
            landlock.restrict(Path(job["out"]).parent)
            run_part(job, part)  # this process is spent then; the parent starts another
            channel.write(json.dumps({"ended": "done", "status": 0, "spent": True}) + "\n")
            break
    else:  # the process that asked has been killed, and does not clean up
        shutil.rmtree(sys.argv[1], ignore_errors=True)


if __name__ == "__main__":
    importlib.invalidate_caches()
    main()
