"""The progress of long work: a bar on a terminal and in a notebook, a line a minute where there is no terminal."""

import sys
import time

from tqdm.auto import tqdm

QUIET = 60.0  # seconds between two printed lines


class Progress:
    """Counts what is done. Use it as a context; `update(n)` says that n more are done.

    total: how many there are. title: what is being done. unit: what is counted, in the singular.
    """

    def __init__(self, total: int, title: str, unit: str = "step"):
        self.total, self.title, self.unit = total, title, unit
        self.done, self.skipped, self.start = 0, 0, time.monotonic()
        self.last = self.start
        self.bar = tqdm(total=total, desc=title, unit=unit, leave=False, disable=None)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error):
        self.bar.close()

    def skip(self, n: int):
        """Note that n were done before."""
        self.skipped = n
        self.bar.update(n)

    def update(self, n: int = 1):
        self.done += n
        self.bar.update(n)
        now = time.monotonic()
        if now - self.last >= QUIET and not sys.stdout.isatty():
            self.last, seconds = now, now - self.start
            done = self.skipped + self.done
            left = seconds / self.done * (self.total - done)
            print(f"{self.title}: {done:,} of {self.total:,} {self.unit}s in {seconds / 60:.0f} min, "
                  f"about {left / 60:.0f} min to go", flush=True)  # fmt: skip
