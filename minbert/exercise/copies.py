"""Writes a student's copy: the package with bodies taken out, the scripts, the sample data, a check of its own.

What holds a solution does not come along: the tests that have its lines, the history, byte code, this package, and the
pieces of right code in the sanity check. The copy's check compares with numbers that they gave (see `questions`).
"""

import re
from collections.abc import Iterable
from pathlib import Path

from minbert.errors import UserError
from minbert.exercise.blank import blank, search, solution
from minbert.exercise.parts import PARTS, Part
from minbert.exercise.questions import FOLDER, numbers, questions
from minbert.sanity.parts import NAMES

ROOT = Path(__file__).resolve().parents[2]
INSIDE = Path(__file__).resolve().parent / "inside"
TOP = ("setup.py", "pyproject.toml", "LICENSE", ".gitignore", "classifier.py", "multitask_classifier.py")
FOLDERS = {"minbert": (".py",), "data": (".py", ".md", ".csv")}
LEFT_OUT = ("minbert/exercise/", "data/make_sample.py")
WATCHING = ("minbert/reading/", "minbert/trace.py")  # which read the package's own files
TESTS = ("tests/model", "tests/tasks", "tests/techniques")
OWN_WORDS = (  # tests that compare with the same method written once more: a solution in other words
    "tests/techniques/gradients.py", "tests/techniques/proximal_models.py", "tests/techniques/test_pals.py",
    "tests/techniques/test_smoothness.py",
)  # fmt: skip
FLAT = ("bert", "config", "optimizer", "tokenizer")  # what the course has beside its scripts


def write_copy(out: Path, parts: Iterable[Part], layout: str = "package") -> list[tuple[str, str]]:
    """Write a copy to `out`, a new or empty folder; returns the (file, function) whose bodies were taken out.

    layout: "package", or "course" for bert.py, optimizer.py, config.py and tokenizer.py on top. UserError where `out`
    cannot be used.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out}: exists already; give the name of a new folder")
    if not (ROOT / "setup.py").exists():
        raise UserError(f"{ROOT}: an exercise is made from a checkout of the project, and this is an installed package")
    texts, marked = read_project(), [f for part in PARTS.values() for f in part.functions]
    parts = list(parts)
    chosen = [f for part in parts for f in part.functions]
    lines = {code: owners for code, owners in solution(code_of(texts), marked).items() if owners & set(chosen)}
    chosen += sorted({f for owners in lines.values() for f in owners} - set(chosen))  # others with the same lines
    for file in {file for file, _ in chosen}:
        texts[file] = blank(texts[file], [name for f, name in chosen if f == file])
    files = ask_only(texts)
    files = flatten(files) if layout == "course" else files | own_tests(lines)
    files["README.md"] = readme(parts, files)
    files["sanity_check.py"] = (INSIDE / "sanity_check.py").read_text(encoding="utf-8")
    for name, content in files.items():
        left = search(content if isinstance(content, str) else content.decode("utf-8", "replace"), lines)
        if left:
            raise RuntimeError(f"{name} would show a line of the solution: {left[0]}")
    for name, content in files.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return chosen


def read_project() -> dict[str, str]:
    """The texts of the files that a copy is made from, by their names, such as "minbert/bert.py"."""
    paths = [ROOT / name for name in TOP]
    for folder, endings in FOLDERS.items():
        paths += [p for p in sorted((ROOT / folder).rglob("*")) if p.suffix in endings and _ours(p)]
    names = {path.relative_to(ROOT).as_posix(): path for path in paths}
    return {name: path.read_text("utf-8") for name, path in names.items() if not name.startswith(LEFT_OUT)}


def _ours(path: Path) -> bool:
    """Whether a file belongs to the project. The course's data, which may have been fetched into data/, does not."""
    return path.suffix != ".csv" or path.parent.name == "sample"


def code_of(texts: dict[str, str]) -> dict[str, str]:
    """The modules of the package that a student reads, without the sanity check's."""
    return {n: t for n, t in texts.items() if n.endswith(".py") and "/" in n and not n.startswith("minbert/sanity/")}


def ask_only(texts: dict[str, str]) -> dict[str, str | bytes]:
    """The same files, with recorded numbers in place of the right pieces that the sanity check compares with."""
    files: dict[str, str | bytes] = dict(texts)
    parts = {Path(name).stem: text for name, text in texts.items() if name.startswith(FOLDER)}
    files |= {f"{FOLDER}{name}.py": text for name, text in questions({n: parts[n] for n in NAMES}).items()}
    for name, text in files.items():
        if name.startswith("minbert/sanity/"):  # its config is not a student's
            files[name] = text.replace("from minbert.config import", "from minbert.sanity.config import")
    return files | {"minbert/sanity/config.py": texts["minbert/config.py"], **numbers()}


def own_tests(lines: Iterable[str]) -> dict[str, str]:
    """The tests of the model, the tasks and the techniques that do not have a solution in them, by their names."""
    paths = [ROOT / "tests" / name for name in ("__init__.py", "conftest.py")]
    paths += [path for folder in TESTS for path in sorted((ROOT / folder).glob("*.py"))]
    files = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in paths}
    left_out = {name for name, text in files.items() if name in OWN_WORDS or search(text, lines)}
    modules = set()
    while modules != (modules := {name.removesuffix(".py").replace("/", ".") for name in left_out}):
        left_out |= {name for name, text in files.items() if any(f"from {m} import" in text for m in modules)}
    return {name: text for name, text in files.items() if name not in left_out}


def flatten(files: dict[str, str | bytes]) -> dict[str, str | bytes]:
    """The same files with the course's on top, imported by their names as in the course."""
    result = {}
    for name, content in files.items():
        flat = name.removeprefix("minbert/") if name in [f"minbert/{stem}.py" for stem in FLAT] else name
        if name.endswith(".py") and not name.startswith(("minbert/sanity/", *WATCHING)):
            content = re.sub(rf"\bfrom minbert\.({'|'.join(FLAT)}) import", r"from \1 import", content)
        if not name.startswith(WATCHING):
            result[flat] = content
    words = '("plain", "sdpa")'  # the flags read the words of a table from its file in the package
    result["minbert/flags.py"] = result["minbert/flags.py"].replace('"bert.ATTENTION"', words)
    return result


def readme(parts: Iterable[Part], files: dict[str, str | bytes]) -> str:
    """The README of a copy: what to write, in which order, and where it stands."""
    rows = []
    for part in parts:
        places = []
        for file, name in part.functions:
            flat = file.removeprefix("minbert/")
            places.append(f"`{flat if flat in files else file}` {name}")
        rows.append(f"| {part.name} | {part.about} | {'<br>'.join(places)} |")
    return (INSIDE / "README.md").read_text(encoding="utf-8").replace("ROWS", "\n".join(rows))
