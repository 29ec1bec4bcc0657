"""Somebody's files, read and never run: which files there are, what they import, and where a method stands.

A project may be a folder of scripts, as in the course, or a package, or lie below `src/`. `Layout.find` finds it,
`copy` makes the copy in which its code may run, and `Imports` follows the import statements from the scripts that
somebody starts, so that an abandoned copy of a file is not taken for the one in use.
"""

import ast
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from minbert.errors import UserError
from minbert.sanity.source import acts, definitions, imported, main_block, nodes, top_names

SKIPPED = {
    "__pycache__", "node_modules", "site-packages", "venv", "env", "weights", "wandb", "runs", "build", "tests",
    "sanity",
}  # fmt: skip
NOT_PARTS = ("sanity_check", "optimizer_test", "setup", "conftest", "prepare_submit")  # they run when imported
KEPT = {".py", ".json", ".txt", ".cfg", ".toml", ".yml", ".yaml"}
DATA = {"data", "datasets", "predictions"}  # of folders with these names only Python files are kept
BIGGEST = 1_000_000  # bytes of a file that is still copied
MOST = 2_000  # files
HOMES = ("bert.py", "optimizer.py")  # the folder that holds the first of these is where the project begins
ENTRIES = ("multitask_classifier", "classifier", "train", "main", "run")  # scripts, the likeliest first
TEST = re.compile(r"(?i)(?<![a-z])(unit)?tests?(?![a-z])")  # in a file's name; "latest" is none
OLD = re.compile(r"(?i)(^|[_/\W])(old|backup|bak|copy|deprecated|unused|archive|orig|original|legacy)([_/\W\d]|$)")


@dataclass(frozen=True)
class Layout:
    """Where a project's files are. root: what file names are relative to. home: the folder of bert.py.

    top: the folder that is read with all its subfolders; of a root above it only the scripts are read.
    """

    root: Path
    home: Path
    top: Path

    @classmethod
    def find(cls, path: str | Path) -> "Layout":
        """The project in a folder, up to three levels down from it, or around a file.

        Raises UserError if there is none, or if there are several.
        """
        path = Path(path)
        if not path.exists():
            raise UserError(f"{path}: there is no such file or folder")
        if path.is_file() and path.suffix != ".py":
            raise UserError(f"{path}: this is not a Python file; give the project's folder")
        folder = (path if path.is_dir() else path.parent).resolve()
        while path.is_file() and (folder / "__init__.py").exists():
            folder = folder.parent
        levels = [[folder]]
        for _ in range(3):
            inside = [d for above in levels[-1] for d in sorted(above.iterdir())]
            levels.append([d for d in inside if d.is_dir() and not _skipped(d)])
        for pattern in (*HOMES, "*.py"):
            for level in levels:
                homes = [home for home in level if any(home.glob(pattern))]
                if len(homes) > 1 and pattern in HOMES:
                    homes = _in_use(folder, homes)
                if len(homes) > 1 and pattern in HOMES:
                    names = ", ".join(str(home.relative_to(folder)) for home in homes[:5])
                    more = ", …" if len(homes) > 5 else ""
                    raise UserError(
                        f"{path}: holds several projects ({names}{more}); give one of them, or all: {path}/*"
                    )
                if homes:
                    return cls._around(folder, homes[0])
        if any(folder.rglob("*.ipynb")):
            raise UserError(
                f"{path}: holds notebooks and no Python file; `jupyter nbconvert --to script` makes one of a notebook"
            )
        raise UserError(f"{path}: no Python files of a BERT project, neither here nor three folders down")

    @classmethod
    def _around(cls, folder: Path, home: Path) -> "Layout":
        """The layout of a home. Its root is the given folder, one below it with all code, or that above a package."""
        while folder != home and not any(folder.glob("*.py")):
            inside = [d for d in folder.iterdir() if d.is_dir() and not _skipped(d) and any(d.rglob("*.py"))]
            if len(inside) != 1 or (inside[0] / "__init__.py").exists() or inside[0].name == "src":
                break
            folder = inside[0]
        if folder == home and _is_package(home):
            return cls(home.parent, home, home)
        return cls(folder, home, folder)

    def files(self) -> Iterator[Path]:
        """The files worth reading: Python and small text, no data, weights, environments or hidden folders."""
        if self.root != self.top:
            beside = [p for p in sorted(self.root.glob("*.py")) if p.is_file()]
            yield from (p for p in beside if p.stat().st_size <= BIGGEST)
        yield from _walk(self.top)

    def copy(self, to: Path) -> "Layout":
        """Copy the files below `to`, `%` and `!` lines as comments; returns the new layout. UserError for too many."""
        for count, file in enumerate(self.files()):
            if count == MOST:
                raise UserError(f"{self.top}: more than {MOST} files; give the folder of bert.py itself")
            target = to / file.relative_to(self.root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
            if file.suffix == ".py" and re.search(rb"(?m)^\s*[%!]\w", text := file.read_bytes()):
                cured = re.sub(rb"(?m)^(\s*)([%!]\w)", rb"\1pass  # \2", text)
                if not _compiles(text) and _compiles(cured):
                    target.write_bytes(cured)
        return Layout(to, to / self.home.relative_to(self.root), to / self.top.relative_to(self.root))

    def sources(self) -> list[Path]:
        """The Python files: those at home first, old copies late, tests last."""
        files = [p for p in self.files() if p.suffix == ".py"]

        def order(file: Path) -> tuple:
            name = str(file.relative_to(self.root))
            return bool(TEST.search(name)), bool(OLD.search(name.removesuffix(".py"))), file.parent != self.home

        return sorted(files, key=order)

    def locate(self, names: Iterable[str], first: Iterable[str] = ()) -> tuple[str, str, int] | None:
        """(name, file, line) of the first of these qualified names that is defined; file as seen from the root.

        first: the files that are looked through, for all of the names, before the others.
        """
        names = list(names)
        for files in ([self.root / name for name in first], self.sources()):
            there = [(f, {name: node.lineno for name, node in definitions(f)}) for f in files]  # the last of a name
            for name in names:
                for file, lines in there:
                    if name in lines:
                        return name, str(file.relative_to(self.root)), lines[name]
        return None


def _is_package(home: Path) -> bool:
    """Whether the files of a folder import one another relatively, or by the folder's own name."""
    for file in home.glob("*.py"):
        for name, level in imported(file):
            inside = level > 0 or name.partition(".")[0] == home.name
            if inside and not (home / f"{home.name}.py").exists():
                return True
    return False


def _in_use(folder: Path, homes: list[Path]) -> list[Path]:
    """Of several possible projects, those that a script above them imports from, else those not called "old" or so."""
    scripts = [name for file in folder.glob("*.py") for name, _ in imported(file)]
    used = [h for h in homes if any(name.split(".")[0] == h.relative_to(folder).parts[0] for name in scripts)]
    return used or [h for h in homes if not OLD.search(str(h.relative_to(folder)))] or homes


def _skipped(folder: Path) -> bool:
    name = folder.name
    return name.startswith(".") or name in SKIPPED or folder.is_symlink() or (folder / "pyvenv.cfg").exists()


def _walk(folder: Path) -> Iterator[Path]:
    kept = {".py"} if folder.name in DATA else KEPT
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if not _skipped(path):
                yield from _walk(path)
        elif path.suffix in kept and path.is_file() and path.stat().st_size <= BIGGEST:
            yield path


def _compiles(text: bytes) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return False
    return True


# ------------------------------------------------------------------------------------------------ imports


class Imports:
    """Which of a project's files imports which, and by which name Python finds each."""

    def __init__(self, layout: Layout):
        self.layout, self.root = layout, layout.root
        self.sources = layout.sources()
        self._there, self._links = set(self.sources), {}
        folders = {d for f in self.sources for d in f.parents if d == self.root or d.is_relative_to(self.root)}
        self._folders = sorted(folders, key=lambda d: (len(d.parts), str(d)))

    def resolve(self, file: Path, module: str, level: int = 0) -> Path | None:
        """The file of theirs that `file` means by a module's name; None if it is not one of theirs."""
        parts = module.split(".") if module else []
        if level:
            bases = [file.parents[level - 1]] if level <= len(file.parents) else []
        else:
            bases = [file.parent, self.layout.home, *self._folders]
        for base in bases:
            target = base.joinpath(*parts)
            for candidate in (target.with_suffix(".py") if parts else None, target / "__init__.py"):
                if candidate in self._there:
                    return candidate
        return None

    def links(self, file: Path) -> list[tuple[str, Path, str]]:
        """(name, file, name there) of what a file imports from other files of the project; "" for a whole module."""
        if file in self._links:
            return self._links[file]
        links = self._links[file] = []
        for node in nodes(file):
            if isinstance(node, ast.Import):
                targets = [(alias.asname or alias.name, self.resolve(file, alias.name), "") for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                there = self.resolve(file, node.module or "", node.level)
                targets = []
                for alias in node.names:
                    below = f"{node.module}.{alias.name}".removeprefix("None.")
                    inner = self.resolve(file, below, node.level)
                    targets.append((alias.asname or alias.name, inner or there, "" if inner else alias.name))
            else:
                continue
            links += [target for target in targets if target[1] is not None and target[1] != file]
        return links

    @cached_property
    def entries(self) -> list[Path]:
        """The scripts that somebody starts, the likeliest first: those of the course, and those with a main block."""

        def order(file: Path) -> tuple:
            known = ENTRIES.index(file.stem) if file.stem in ENTRIES else len(ENTRIES)
            return bool(OLD.search(str(file.relative_to(self.root)))), known, self.sources.index(file)

        scripts = [f for f in self.sources if f.stem in ENTRIES[:2] or main_block(f) or acts(f)]
        return sorted((f for f in scripts if f.stem not in NOT_PARTS and not TEST.search(f.stem)), key=order)

    @cached_property
    def reached(self) -> list[Path]:
        """The entry scripts and all files that they import, directly or not; without entry scripts all sources."""
        reached = list(self.entries) or list(self.sources)
        for file in reached:  # the list grows during the loop
            reached += dict.fromkeys(t for _, t, _ in self.links(file) if t not in reached)
        return reached

    def defining(self, name: str, module: str = "") -> list[tuple[Path, str]]:
        """(file, name there) of everything that could be meant by a name, what the entry scripts use first.

        module: the course's name of the file, which decides between equals.
        """
        bound = [self._origin(t, there) for e in self.entries for n, t, there in self.links(e) if n == name and there]
        own = [(file, name) for file in self.sources if name in top_names(file)]
        reached = {file: number for number, file in enumerate(self.reached)}

        def order(place: tuple[Path, str]) -> tuple:
            file = place[0]
            used = 0 if place in bound else 1 if file in reached else 2
            old = bool(OLD.search(str(file.relative_to(self.root))))
            return used, old, bool(TEST.search(file.stem)), file.stem != module, self.sources.index(file)

        return sorted(dict.fromkeys([*(p for p in bound if p is not None), *own]), key=order)

    def _origin(self, file: Path, name: str, seen: tuple = ()) -> tuple[Path, str] | None:
        """Where a name that `file` offers is defined, following re-exports."""
        if name in top_names(file):
            return file, name
        for bound, target, there in self.links(file):
            if bound == name and there and (file, name) not in seen:
                return self._origin(target, there, (*seen, (file, name)))
        return None

    def dotted(self, file: Path) -> tuple[Path, str]:
        """(folder for Python's path, dotted name) by which a file is to be imported: as others import it."""
        names = self._names_in_use
        options = []
        for base in [d for d in file.parents if d == self.root or d.is_relative_to(self.root)]:
            options.append((base, ".".join(file.relative_to(base).with_suffix("").parts).removesuffix(".__init__")))
        used = [o for o in options if o[1] in names or (o[1].rpartition(".")[0] in names)]
        if used:
            return used[-1]
        inside = file.parent
        while inside != self.root and (inside in self._packages or (inside / "__init__.py").exists()):
            inside = inside.parent
        return next((o for o in options if o[0] == inside and o[1]), options[0])

    @cached_property
    def _names_in_use(self) -> set[str]:
        names: set[str] = set()
        for file in self.sources:
            for name, level in imported(file):
                folders = (base.joinpath(*name.split(".")) for base in (file.parent, *self._folders))
                if not level and (self.resolve(file, name) or any(f in self._folders for f in folders)):
                    names |= {name, *(".".join(name.split(".")[:n]) for n in range(1, name.count(".") + 1))}
        return names

    @cached_property
    def _packages(self) -> set[Path]:
        """Folders whose files import relatively, and those above them that such an import reaches."""
        levels = ((f, level) for f in self.sources for _, level in imported(f) if level)
        return {f.parents[n] for f, level in levels for n in range(min(level, len(f.parents)))}

    def path(self) -> list[str]:
        """Python's path for this project."""
        wanted = [self.dotted(file)[0] for file in (*self.entries, *self.sources)]
        return [str(folder) for folder in dict.fromkeys([*wanted, self.root])]
