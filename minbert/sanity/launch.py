"""Starts the child process in which somebody's code runs, and brings back what it recorded.

This file imports nothing heavy: the child starts, and loads PyTorch, while the parent still loads its own. One child
serves a whole check. It never runs their code in itself but in a copy of itself (`os.fork`), one a part, with a time
limit; so a part that hangs or dies costs the others nothing. Where Python cannot fork (Windows), a child serves one
part and says that it is spent; then the next one, which has been started meanwhile, takes its place.

`Child.answer` says what became of a part: {"ended": "done" | "timed out" | "printed too much" | "died", "status": …}.
"""

import atexit
import contextlib
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
STARTING = 120  # seconds until a child has loaded PyTorch, on a slow disk
PATIENCE = 6  # seconds on the clock for each second of processor time: a busy machine must not change a verdict


class Child:
    """A process that waits for parts to run. `folder` is the only place where it may write; `close` removes it."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="sanity-")).resolve()
        self.home = self.folder / "home"
        self.home.mkdir()
        self.process, self.spare = _Process(self), None
        self.job: dict[str, Any] = {}
        atexit.register(self.close)  # also where a flag was wrong, or Ctrl-C was pressed

    def send(self, job: dict[str, Any]):
        """Ask for a part to be run; `answer` waits for the result."""
        if self.process.spent:
            self.process.end()
            self.process, self.spare = self.spare or _Process(self), _Process(self)
        elif self.process.ended():
            self.process.end()
            self.process = _Process(self)
        self.process.write(json.dumps(job) + "\n")
        self.job = job

    def answer(self) -> dict[str, Any]:
        """What became of the part asked for last."""
        limit = PATIENCE * self.job["timeout"] + 5 + (0 if self.process.ready else STARTING)
        line = self.process.read(limit)
        if line:
            answer = json.loads(line)
            self.process.spent = answer.pop("spent", False)
            return answer
        self.process.end()
        return {"ended": "timed out" if line is None else "died", "status": self.process.popen.returncode}

    def close(self):
        """End the processes and remove the folder; a second time does nothing."""
        atexit.unregister(self.close)
        for process in filter(None, (self.process, self.spare)):
            process.end()
        shutil.rmtree(self.folder, ignore_errors=True)


class _Process:
    """One child process. ready: it has answered once. spent: it answered, and ends by itself."""

    def __init__(self, child: Child):
        self.ready = self.spent = False
        home = str(child.home)
        kept = {k: v for k, v in os.environ.items() if k in ("PATH", "SYSTEMROOT", "LANG", "LD_LIBRARY_PATH")}
        environment = {
            **kept, "HOME": home, "USERPROFILE": home, "TMPDIR": home, "TEMP": home, "TMP": home,
            "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "",
            "PYTHONIOENCODING": "utf-8", "TQDM_DISABLE": "1",
        }  # fmt: skip
        self.popen = subprocess.Popen(
            [sys.executable, "-B", "-P", str(Path(__file__).with_name("child.py")), str(child.folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            cwd=home, env=environment, text=True, encoding="utf-8", start_new_session=True,
        )  # fmt: skip
        self.lines: queue.Queue[str] = queue.Queue()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.popen.stdout:
            self.lines.put(line)
        self.lines.put("")

    def read(self, limit: float) -> str | None:
        """The next line that it writes; "" if it ended, None if the seconds ran out."""
        try:
            line = self.lines.get(timeout=limit)
        except queue.Empty:
            return None
        self.ready = True
        return line

    def write(self, text: str):
        with contextlib.suppress(OSError):  # it died; `read` will say so
            self.popen.stdin.write(text)
            self.popen.stdin.flush()

    def ended(self) -> bool:
        return self.popen.poll() is not None

    def end(self):
        if self.popen.stdin.closed:
            return
        self.popen.kill()
        self.popen.wait()
        self.popen.stdin.close()
        self.reader.join(5)
        self.popen.stdout.close()
