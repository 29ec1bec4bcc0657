"""Writes a student's copy: the package with bodies taken out, the scripts, the sample data, a check of its own.

What holds a solution in other words does not come along: the tests with their oracles, the history, byte code, and this
package. The right pieces with which the sanity check compares are packed into one file, so that nobody reads them by
accident; they are no secret from somebody who unpacks it.
"""

import io
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path

from minbert.errors import UserError
from minbert.exercise.blank import blank, body, functions, search, solution
from minbert.exercise.parts import PARTS, Part

ROOT = Path(__file__).resolve().parents[2]
INSIDE = Path(__file__).resolve().parent / "inside"
TOP = ("setup.py", "pyproject.toml", "LICENSE", ".gitignore", "classifier.py", "multitask_classifier.py")
FOLDERS = {"minbert": (".py",), "data": (".py", ".md", ".csv")}
LEFT_OUT = ("minbert/exercise/", "data/make_sample.py")
WATCHING = ("minbert/reading/", "minbert/trace.py")  # which read the package's own files
PACKED = "minbert/sanity/parts/"
RIGHT = "minbert.sanity.parts.right_"
FLAT = ("bert", "config", "optimizer", "tokenizer")  # what the course has beside its scripts
UNPACK = """
__path__.append(__file__.replace("__init__.py", "parts.zip"))  # the right pieces, packed: they are a solution too
"""


def write_copy(out: Path, parts: Iterable[Part], layout: str = "package") -> list[tuple[str, str]]:
    """Write a copy to `out`, a new or empty folder; returns the (file, function) whose bodies were taken out.

    layout: "package", or "course" for bert.py, optimizer.py, config.py and tokenizer.py on top. UserError where `out`
    cannot be used.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out}: is there already; give the name of a new folder")
    if not (ROOT / "setup.py").exists():
        raise UserError(f"{ROOT}: an exercise is made from a checkout of the project, and this is an installed package")
    original, marked = read_project(), [f for part in PARTS.values() for f in part.functions]
    texts = dict(original)
    parts = list(parts)
    chosen = [f for part in parts for f in part.functions]
    lines = {code: owners for code, owners in solution(code_of(texts), marked).items() if owners & set(chosen)}
    chosen += sorted({f for owners in lines.values() for f in owners} - set(chosen))  # others with the same lines
    for file in {file for file, _ in chosen}:
        texts[file] = blank(texts[file], [name for f, name in chosen if f == file])
    files: dict[str, str | bytes] = pack(texts, original)
    if layout == "course":
        files = flatten(files)
    files["README.md"] = readme(parts, files)
    files["sanity_check.py"] = (INSIDE / "sanity_check.py").read_text(encoding="utf-8")
    for name, content in files.items():
        left = search(content, lines) if isinstance(content, str) else []
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
    """Whether a file belongs to the project: the course's data, which one may have fetched into data/, do not."""
    return path.suffix != ".csv" or path.parent.name == "sample"


def code_of(texts: dict[str, str]) -> dict[str, str]:
    """The modules of the package that a student reads, without the sanity check's."""
    return {n: t for n, t in texts.items() if n.endswith(".py") and "/" in n and not n.startswith("minbert/sanity/")}


def pack(texts: dict[str, str], original: dict[str, str]) -> dict[str, str | bytes]:
    """The same files, the sanity check's parts in one packed file, and with them the modules that it compares with.

    original: the texts with all bodies. The check must not take a student's modules for the right ones.
    """
    door, mine = f"{PACKED}__init__.py", {file for part in PARTS.values() for file, _ in part.functions}
    mine = {Path(file).stem for file in mine} | {"config"}

    def of_the_check(text: str) -> str:
        return re.sub(rf"\bfrom minbert\.({'|'.join(sorted(mine))}) import", rf"from {RIGHT}\1 import", text)

    files: dict[str, str | bytes] = {}
    packed = {}
    for name, text in texts.items():
        if name.startswith(PACKED) and name != door:
            packed[name.removeprefix(PACKED)] = of_the_check(text)
        else:
            files[name] = of_the_check(text) if name.startswith("minbert/sanity/") else text
    needed = "\n".join([*packed.values(), *(t for n, t in files.items() if n.startswith("minbert/sanity/"))])
    while needed:
        stems = {stem for stem in re.findall(rf"from {RIGHT}(\w+) import", needed) if f"right_{stem}.py" not in packed}
        new = {f"right_{stem}.py": of_the_check(original[f"minbert/{stem}.py"]) for stem in sorted(stems)}
        packed |= new
        needed = "\n".join(new.values())
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in packed.items():
            archive.writestr(zipfile.ZipInfo(name), text, zipfile.ZIP_DEFLATED)
    return files | {f"{PACKED}parts.zip": buffer.getvalue(), door: texts[door] + UNPACK}


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
            file = flat if flat in files else file
            first, _ = body(functions(files[file])[name])
            places.append(f"`{file}:{first}` {name}")
        rows.append(f"| {part.name} | {part.about} | {'<br>'.join(places)} |")
    return (INSIDE / "README.md").read_text(encoding="utf-8").replace("ROWS", "\n".join(rows))
