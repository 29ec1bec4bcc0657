"""A whole check of one project: copy it, let the child run every part, judge what the child recorded."""

import json
import re
import shutil
import tempfile
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from minbert.sanity import parts
from minbert.sanity.core import Part
from minbert.sanity.judge import judge
from minbert.sanity.launch import Child
from minbert.sanity.layout import Imports, Layout

PRINTED = 2_000  # characters of what somebody's code prints that are kept
JUDGING = threading.Lock()  # visible dropout is visible in all threads


def check(path: str | Path, child: Child, names: Sequence[str] = parts.NAMES, timeout: float = 10.0) -> dict[str, Any]:
    """Check the project at `path`: {"path", "parts": [a result a part]}.

    timeout: processor seconds for each part. Raises UserError for no project, several, or one with too many files.
    """
    there = Layout.find(path)
    folder = Path(tempfile.mkdtemp(prefix="project-", dir=child.folder))  # all that its code may write to
    try:
        (folder / "home").mkdir()
        return {"path": str(path), "parts": _checked(there, there.copy(folder / "code"), folder, child, names, timeout)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # the next project of a class does not see it


def _checked(layout: Layout, copy: Layout, folder: Path, child: Child, names: Sequence[str], timeout: float) -> list:
    """The results of the parts, in order. layout, copy: the project, and its copy in which its code runs."""
    jobs = [
        {
            "part": name, "root": str(copy.root), "home": str(copy.home), "top": str(copy.top), "timeout": timeout,
            "out": str(folder / name),
        }
        for name in names
    ]  # fmt: skip
    results: dict[str, dict[str, Any]] = {}
    child.send(jobs[0])
    for job, following in zip(jobs, [*jobs[1:], None], strict=True):
        answer = child.answer()
        if following:
            child.send(following)  # it runs while this one is judged
        part = parts.load(job["part"])
        with JUDGING:
            result = _result(part, Path(job["out"]), answer, layout, folder)
        results[part.name] = _once(part, result, results.values())
    return list(results.values())


def _once(part: Part, result: dict[str, Any], earlier: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The result; of a failure that an earlier part had as well, as of a file that cannot be imported, only that."""
    for other in earlier:
        same = "failure" in result and result["failure"] == other.get("failure")
        if same and result["status"] == other["status"] == "crashed":
            return _plain(part, "not checked", f"it fails as {other['title']} does")
    return result


def _by_hand(differs: Iterable[str], layout: Layout, part: Part) -> bool:
    """Whether nothing but dropout differs, and the file of this part, or one that it imports, draws random numbers."""
    there = layout.locate(part.mistakes[0].where)
    if not there or not all(re.search("training|how often .*dropout|what the dropout", name) for name in differs):
        return False
    files = [file := layout.root / there[1], *(target for _, target, _ in Imports(layout).links(file))]
    return any(re.search(r"rand_like|torch\.rand\b|bernoulli", f.read_text("utf-8", "replace")) for f in files)


def _plain(part: Part, status: str, note: str) -> dict[str, Any]:
    about = {"part": part.name, "title": part.title, "status": status, "note": note}
    return about | {"mistakes": [], "unknown": [], "todo": []}


def _result(part: Part, out: Path, answer: dict[str, Any], layout: Layout, folder: Path) -> dict[str, Any]:
    """A part's result: the verdict if the child recorded it, else the reason why there is none."""
    recorded = _load(Path(f"{out}.pt"), part)
    if recorded is None:
        result = _plain(part, *_why_not(answer))
        if answer["ended"] == "timed out":
            result |= _where_it_hangs(Path(f"{out}.at"))
    elif recorded["status"] == "ran":
        result = judge(part, recorded["probes"], layout, recorded)
        if result["status"] == "wrong" and result.get("differs") and _by_hand(result["differs"], layout, part):
            result = _plain(part, "not checked", "its dropout is written by hand, with random numbers that the check "
                            "cannot see; all else is right")  # fmt: skip
        result["judged"] = list(recorded["choices"].values())
    else:
        result = _plain(part, recorded["status"], recorded.get("note", ""))
    if failure := result.get("failure"):
        result["note"] = result["note"] or f"{failure['error']}: {failure['message']}".removesuffix(": ")
        if not result["mistakes"]:
            result |= {key: failure[key] for key in ("file", "line") if failure.get(key)}
    if result["status"] == "wrong" and not result.get("file") and not result["mistakes"]:
        there = layout.locate(part.mistakes[0].where, recorded["judged"].values()) or ("", "", 0)
        result |= dict(zip(("where", "file", "line"), there, strict=True))
    printed = Path(f"{out}.txt")
    if printed.exists() and (text := printed.read_bytes()[:PRINTED].decode("utf-8", "replace")).strip():
        result["output"] = _printable(text)
    return {key: _tidy(value, folder) for key, value in result.items()}


def _load(file: Path, part: Part) -> dict[str, Any] | None:
    """What the child saved: tensors, numbers and strings, in the form that it promises; None for anything else."""
    try:
        recorded = torch.load(file, weights_only=True)
        whole = recorded["status"] != "ran" or all(probe.name in recorded["probes"] for probe in part.probes)
        return recorded if whole else None
    except Exception:  # not there, torn, or forged by the code that was checked
        return None


def _why_not(answer: dict[str, Any]) -> tuple[str, str]:
    """(status, note) of a part of which nothing was recorded."""
    if answer["ended"] == "timed out":
        return "not checked", "it takes more processor time than the check allows; --timeout allows more"
    if answer["ended"] == "printed too much":
        return "crashed", "it prints without end"
    status = answer["status"]
    how = f"by signal {-status}" if isinstance(status, int) and status < 0 else f"with status {status}"
    return "crashed", f"it ended the Python process itself, {how} (os._exit, or a crash of native code)"


def _where_it_hangs(file: Path) -> dict[str, Any]:
    """The file and line that ran shortly before the time was up; status "timed out" as well if one call hung."""
    try:
        seen = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    place = dict(zip(("file", "line"), seen["place"], strict=True))
    if seen["hangs"]:
        return place | {"status": "timed out", "note": "it did not come to an end in the time allowed"}
    return place


def _printable(text: str) -> str:
    return "".join(c for c in text if c.isprintable() or c in "\n\t")


def _tidy(value: Any, folder: Path) -> Any:
    """The same with names of temporary folders taken out, and no control characters."""
    if isinstance(value, str):
        own = re.escape(str(folder.parent))
        value = re.sub(rf"{own}/(project-\w+/)?(code|home(/tmp\w+)?)/", "", value)
        return _printable(re.sub(own + r"[\w/-]*", ".", value))
    if isinstance(value, dict):
        return {key: _tidy(v, folder) for key, v in value.items()}
    if isinstance(value, list):
        return [_tidy(v, folder) for v in value]
    return value
