"""What the sanity check's tests share: projects made of example files with texts replaced, and the check of them.

`verdicts` runs their code as the check's child does, but in forks of the test's own process: no process has to load
PyTorch for it.
"""

import contextlib
import io
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import torch

from minbert.sanity import judge, parts
from minbert.sanity.child import examine, reading
from minbert.sanity.layout import Imports, Layout
from minbert.sanity.source import nodes

ROOT = Path(__file__).resolve().parents[2]
PROJECTS = ROOT / "tests" / "sanity_projects"
BERT, OPTIMIZER = ("attention", "layer", "embeddings", "model"), ("optimizer",)
ALONE = ("einsum", "own_names", "notebook")  # the others are changes of the project "course"

Swaps = tuple[tuple[str, str], ...]  # (old text, which stands exactly once in the project's files, new text)


def swap(*texts: str) -> Swaps:
    """swap(old, new, old, new, …)"""
    return tuple(zip(texts[::2], texts[1::2], strict=True))


@cache
def example(style: str) -> dict[str, str]:
    """The files of an example project: path from its root → text."""
    files: dict[str, str] = {}
    for folder in [PROJECTS / style] if style in ALONE else [PROJECTS / "course", PROJECTS / style]:
        files |= {str(p.relative_to(folder)): p.read_text("utf-8") for p in sorted(folder.rglob("*.py"))}
    return files


def bare(text: str) -> str:
    """The text without the comments at the ends of its lines, so that a mutant does not depend on their wording."""
    return re.sub(r"  #[^\n]*", "", text)


def changed(files: Mapping[str, str], swaps: Swaps) -> dict[str, str]:
    """A copy of `files` with each old text replaced by the new one."""
    files = dict(files)
    for old, new in swaps:
        if not any(old in text for text in files.values()):
            old, new = bare(old), bare(new)
        places = [path for path, text in files.items() for _ in range(text.count(old))]
        assert len(places) == 1, f"{old!r} stands {len(places)} times in {sorted(set(places))}"
        files[places[0]] = files[places[0]].replace(old, new)
    return files


def written(folder: Path, files: Mapping[str, str]) -> Path:
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    return folder


def read(folder: Path, files: Mapping[str, str]) -> SimpleNamespace:
    """A project of these files, as far as their source tells of it: none of it runs."""
    layout = Layout.find(written(folder, files))
    imports = Imports(layout)
    return SimpleNamespace(root=layout.root, sources=imports.sources, imports=imports)


# ------------------------------------------------------------------------------------------------ running them


def record(folder: Path, names: Sequence[str]) -> dict[str, dict]:
    """What the check's child records of these parts of a project: {part: outcome}."""
    for file in folder.rglob("*.py"):
        nodes(file)  # read here, so that a text which many projects have is read once
    theirs, loaded = reading(Layout.find(folder)), {name: parts.load(name) for name in names}
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(read)
            os.chdir(theirs.root)
            with open(write, "wb") as pipe, contextlib.redirect_stdout(io.StringIO()):
                theirs.enter()
                torch.save({name: examine(loaded[name], theirs) for name in names}, pipe)
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        recorded = pipe.read()
    os.waitpid(pid, 0)
    return torch.load(io.BytesIO(recorded), weights_only=True)


def judged(folder: Path, recorded: Mapping[str, dict]) -> dict[str, dict]:
    """The verdicts on what was recorded: {part: result}."""
    layout = Layout.find(folder)
    results = {}
    for name, outcome in recorded.items():
        ran = outcome["status"] == "ran"
        results[name] = judge.judge(parts.load(name), outcome["probes"], layout, outcome) if ran else outcome
    return results


def verdicts(folder: Path, files: Mapping[str, str], names: Sequence[str] = BERT + OPTIMIZER) -> dict[str, dict]:
    """The check of a project of these files: {part: result}."""
    folder = written(Path(tempfile.mkdtemp(dir=folder)), files)  # a new one: what was read of a file is kept
    return judged(folder, record(folder, names))


def complaints(results: Mapping[str, dict]) -> list[str]:
    """All that was said against a project: names of mistakes, and parts that are not right for another reason."""
    said = []
    for part, result in results.items():
        if result["status"] not in ("passed", "absent"):
            mistakes = [mistake["name"] for mistake in result.get("mistakes", ())]
            said += [f"{part}: {what}" for what in mistakes or [result["status"]]]
    return said


def why_not(results: Mapping[str, dict]) -> list[str]:
    """The reasons why something was not checked."""
    return [unknown["reason"] for result in results.values() for unknown in result.get("unknown", ())]
