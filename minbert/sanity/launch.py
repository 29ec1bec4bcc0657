"""Starts the child process in which somebody's code runs, and brings back what it recorded.

This file imports nothing heavy: the child starts, and loads PyTorch, while the parent still loads its own. One child
serves a whole check. It never runs their code in itself but in a copy of itself (`os.fork`), one a part, with a time
limit; so a part that hangs or dies costs the others nothing.

`Child.answer` says what became of a part: {"ended": "done" | "timed out" | "printed too much" | "died", "status": …}.
"""

import atexit
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


class Child:
    """A process that waits for parts to run. `folder` is the only place where it may write; it goes with `close`."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="sanity-")).resolve()
        self.home = self.folder / "home"
        self.home.mkdir()
        self._start()
        atexit.register(self.close)  # also where a flag was wrong, or Ctrl-C was pressed

    def _start(self):
        home = str(self.home)
        kept = {k: v for k, v in os.environ.items() if k in ("PATH", "SYSTEMROOT", "LANG", "LD_LIBRARY_PATH")}
        environment = {
            **kept, "HOME": home, "USERPROFILE": home, "TMPDIR": home, "TEMP": home, "TMP": home,
            "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "",
            "PYTHONIOENCODING": "utf-8", "TQDM_DISABLE": "1",
        }  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-B", "-P", str(Path(__file__).with_name("child.py")), str(self.folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            cwd=self.home, env=environment, text=True, encoding="utf-8", start_new_session=True,
        )  # fmt: skip
        self.answers: queue.Queue[str] = queue.Queue()
        self.reader = threading.Thread(target=self._read, args=(self.process, self.answers), daemon=True)
        self.reader.start()
        self.ready = False

    @staticmethod
    def _read(process: subprocess.Popen, answers: queue.Queue):
        for line in process.stdout:
            answers.put(line)
        answers.put("")

    def send(self, job: dict[str, Any]):
        """Ask for a part to be run; the answer is waited for in `answer`."""
        if self.process.poll() is not None:
            self._start()
        try:
            self.process.stdin.write(json.dumps(job) + "\n")
            self.process.stdin.flush()
        except OSError:
            pass  # it died; `answer` will say so
        self.job = job

    def answer(self) -> dict[str, Any]:
        """What became of the part asked for last."""
        limit = self.job["timeout"] + 5 + (0 if self.ready else STARTING)
        try:
            line = self.answers.get(timeout=limit)
        except queue.Empty:
            line = None
        if line:
            self.ready = True
            return json.loads(line)
        self.kill()
        return {"ended": "timed out" if line is None else "died", "status": self.process.returncode}

    def kill(self):
        self.process.kill()
        self.process.wait()

    def close(self):
        """End the process and remove its folder; a second time does nothing."""
        atexit.unregister(self.close)
        self.kill()
        self.process.stdin.close()
        self.reader.join(5)
        self.process.stdout.close()
        shutil.rmtree(self.folder, ignore_errors=True)
