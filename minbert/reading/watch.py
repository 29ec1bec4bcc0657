"""Looking at shapes while the real code runs.

`Watch.install` must come before the rest of minbert is imported. From then on every module of the package is compiled
with extra calls: around each value that a shape in a comment or docstring is about (`claims.py`) stands a call that
looks at it and returns it. Nothing is written, and no other line changes, so files and line numbers stay true.

A scene (`scenes.py`) says which sizes the names of dimensions have while it plays. A shape is false if it was anything
else, and true only if it was seen. Some names may be free in a scene, such as C where a technique builds attention of
another width: then they must still agree within each call of a function, and be seen as they are in another scene.
"""

import ast
import importlib.abc
import importlib.machinery
import math
import sys
from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minbert.reading.claims import Claim, Function, Size, find_claims

PACKAGE = Path(__file__).resolve().parents[1]
NOT_WATCHED = ("minbert.reading", "minbert.trace", "minbert.errors")
NUMBERS = 6  # of a value, that are kept to be shown


@dataclass
class Sight:
    """A value that a claim is about, as it was when the code ran. names: the sizes of the dimensions that it names."""

    scene: str
    shape: tuple[int, ...]
    numbers: list[float]
    names: dict[str, int]
    kind: str  # of its numbers: float32, int64


class Names(dict):
    """The sizes of the dimensions' names in one call of a function."""


class Watch:
    """All that the source claims, and what was seen of it.

    sights: by a claim's key, the first value that confirmed it. problems: by the same key, what contradicted it. seen:
    by the same key, its first value of all, in the order in which the code ran. sizes: those of the names in all scenes
    so far, by scene.
    """

    def __init__(self, package: Path = PACKAGE):
        self.package = package
        self.claims: dict[tuple, list[Claim]] = {}
        self.trees: dict[str, ast.Module] = {}
        for path in sorted(package.rglob("*.py")):
            file = path.relative_to(package.parent).as_posix()
            if not file.startswith("minbert/reading/"):
                tree, claims = find_claims(path.read_text(encoding="utf-8"), file)
                self.trees[file] = tree
                for claim in claims:
                    self.claims.setdefault(claim.key, []).append(claim)
        self.sights: dict[tuple, Sight] = {}
        self.unconfirmed: dict[tuple, Sight] = {}
        self.seen: dict[tuple, Sight] = {}
        self.problems: dict[tuple, str] = {}
        self.scene, self.free, self.of_modules = "", (), {}
        self.sizes: dict[str, dict[str, int]] = {}

    def install(self):
        """Compile every module that is imported from now on with its shapes looked at."""
        early = [name for name in sys.modules if name.startswith("minbert.") and not name.startswith(NOT_WATCHED)]
        early = [name for name in early if self._has_claims(name)]
        if early:
            raise RuntimeError(f"{early[0]} was imported before Watch.install")
        sys.meta_path.insert(0, _Finder(self))

    def _has_claims(self, module: str) -> bool:
        file = module.replace(".", "/")
        return any(key[0] in (f"{file}.py", f"{file}/__init__.py") for key in self.claims)

    @contextmanager
    def playing(self, scene: str, sizes: Mapping[str, int], free: Iterable[str] = (), **of_modules: Mapping[str, int]):
        """Inside, the names of dimensions have these sizes. free: names that may have others. of_modules: module → the
        sizes that differ in it, such as pcgrad={"T": 3}."""
        self.scene, self.free, self.of_modules = scene, free, of_modules
        self.sizes[scene] = dict(sizes)
        try:
            yield
        finally:
            self.scene = ""

    # ------------------------------------------------------------------------------------------ called by the code

    def enter(self, keys: Iterable[tuple], values: Mapping[str, Any]) -> Names:
        """Look at a function's arguments; the names that hold in this call of it."""
        names = Names()
        if self.scene:
            for key in keys:
                for claim in self.claims[key]:
                    if claim.about in ("argument", "lambda") and claim.name in values:
                        self._look(claim, values[claim.name], names)
        return names

    def see(self, names: Names, keys: Iterable[tuple], value: Any) -> Any:
        """Look at the value of an expression."""
        if self.scene:
            here = sys._getframe(1).f_locals
            names.update({name: n for name, n in here.items() if type(n) is int and len(name) == 1 and name.isupper()})
            for key in keys:
                for claim in self.claims[key]:
                    self._look(claim, value, names)
        return value

    def leave(self, names: Names, keys: Iterable[tuple], value: Any) -> Any:
        """Look at what a function returns."""
        return self.see(names, keys, value) if self.scene else value

    def call(self, keys: Iterable[tuple], values: Mapping[str, Any], value: Any) -> Any:
        """Look at a lambda's arguments and result."""
        if self.scene:
            names = Names()
            for claim in (claim for key in keys for claim in self.claims[key]):
                if claim.name == "argument":
                    self._look(claim, list(values.values())[claim.place], names)
            for claim in (claim for key in keys for claim in self.claims[key]):
                if claim.name != "argument":
                    self._look(claim, value, names)
        return value

    def fields(self, cls: type, keys: Iterable[tuple]):
        """Look at the fields of every object of a class, once it is made."""
        maker = "__new__" if issubclass(cls, tuple) else "__init__"
        make = getattr(cls, maker)

        def made(*arguments, **keywords):
            made_object = make(*arguments, **keywords)
            new = made_object if maker == "__new__" else arguments[0]
            if self.scene and type(new) is cls:
                names = Names()
                for claim in (claim for key in keys for claim in self.claims[key]):
                    value = getattr(new, claim.name) if maker == "__new__" else vars(new).get(claim.name)
                    self._look(claim, value, names)
            return made_object

        setattr(cls, maker, made)

    # ------------------------------------------------------------------------------------------ looking

    def _look(self, claim: Claim, value: Any, names: Names):
        tensors = list(_tensors(value))
        if claim.place is not None and claim.about != "argument" and claim.name != "argument":
            if len(tensors) != claim.count:
                if tensors:
                    self._contradict(claim, f"there are {claim.count} shapes for {len(tensors)} values")
                return
            tensors = [tensors[claim.place]]
        sizes = self.sizes[self.scene] | dict(self.of_modules.get(Path(claim.file).stem, {}))
        for tensor in tensors:
            shape = tuple(tensor.shape)
            trial = Names(names)  # what a false shape says of its names does not count for the others
            problem = match(claim.sizes, shape, trial, sizes)
            used = {name: trial[name] for size in claim.sizes for name in size.names if name in trial}
            other = [name for name in used if used[name] != sizes.get(name, used[name])]
            for name in other:
                if name not in self.free:
                    problem = problem or f"{name} is {sizes[name]}, not {used[name]}"
            if problem:
                self._contradict(claim, f"it was {_written(shape)} ({problem})")
                return
            names.update(trial)
            sight = Sight(self.scene, shape, _numbers(tensor), used, _kind(tensor))
            confirmed = not other and all(name in sizes for name in used)
            (self.sights if confirmed else self.unconfirmed).setdefault(claim.key, sight)
            self.seen.setdefault(claim.key, sight)

    def _contradict(self, claim: Claim, what: str):
        self.problems.setdefault(claim.key, f"is false: {what}")

    def verdict(self) -> list[str]:
        """A line for every claim that is false, or that no scene has confirmed; in the order of the files."""
        lines = []
        for key in sorted(self.claims):
            claim = self.claims[key][0]
            if not claim.about:
                what = "is about no value; put it behind an expression, or write `x: (…)`, `(…) → (…)` or `returns (…)`"
            elif key in self.problems:
                what = self.problems[key]
            elif key in self.unconfirmed and key not in self.sights:
                names = ", ".join(f"{name} = {n}" for name, n in self.unconfirmed[key].names.items())
                what = f"was seen only with {names}, a size that no scene of minbert/reading/scenes.py gives"
            elif key not in self.sights:
                what = "was never seen; let a scene of minbert/reading/scenes.py run this line"
            else:
                continue
            lines.append(f"{claim.file}, line {claim.line}: {claim.text} {what}")
        return lines

    def alike(self) -> list[str]:
        """Pairs of names of one file that have one size in every scene with both: no check can tell them apart."""
        together = {}
        for (file, *_), claims in self.claims.items():
            together.setdefault(file, set()).update(n for claim in claims for size in claim.sizes for n in size.names)
        pairs = sorted({(a, b) for names in together.values() for a in names for b in names if a < b})
        both = {(a, b): [s for s in self.sizes.values() if a in s and b in s] for a, b in pairs}
        return [f"{a} and {b}" for (a, b), scenes in both.items() if scenes and all(s[a] == s[b] for s in scenes)]


def match(sizes: Iterable[Size], shape: tuple[int, ...], names: Names, hints: Mapping[str, int]) -> str:
    """What is wrong with a shape, or "". New names get their sizes from it, for the rest of the call.

    hints: the sizes that names may have where a product leaves them open.
    """
    sizes = list(sizes)
    for i in (i for i, size in enumerate(sizes) if size.number == -1):
        sizes[i : i + 1] = [Size(0)] * (len(shape) - len(sizes) + 1)
    if len(sizes) != len(shape):
        return f"{len(shape)} dimensions, not {len(sizes)}"
    for size, actual in zip(sizes, shape, strict=True):
        if size.number == 0:
            continue
        unknown = [name for name in size.names if name not in names]
        for name in unknown[1:]:
            if name in hints:
                names[name] = hints[name]
        known = size.number * math.prod(names[name] for name in size.names if name in names)
        open_names = [name for name in size.names if name not in names]
        if open_names and known and actual % known == 0:
            names[open_names[0]] = actual // known
        elif known != actual:
            text = "·".join([str(size.number)] * (size.number != 1 or not size.names) + list(size.names))
            return f"{text} is {known}, not {actual}"
    return ""


def _written(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, shape))}{',' * (len(shape) == 1)})"


def _tensors(value: Any) -> Iterable[Any]:
    """The tensors and arrays that a value is, or holds, in order."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)
    elif hasattr(value, "shape") and hasattr(value, "dtype"):
        yield value


def _numbers(tensor: Any) -> list[float]:
    flat = tensor.detach() if hasattr(tensor, "detach") else tensor
    return flat.reshape(-1)[:NUMBERS].tolist()


def _kind(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")


# ---------------------------------------------------------------------------------------------- compiling


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of the package, and has them compiled by `_Loader`."""

    def __init__(self, watch: Watch):
        self.watch = watch

    def find_spec(self, name: str, path: Any = None, target: Any = None):
        if not name.startswith("minbert.") or name.startswith(NOT_WATCHED):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.origin:
            spec.loader = _Loader(name, spec.origin, self.watch)
        return spec


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, name: str, path: str, watch: Watch):
        super().__init__(name, path)
        self.watch = watch

    def get_code(self, name: str):
        """Compiled anew each time, and never written to disk."""
        file = Path(self.path).resolve().relative_to(self.watch.package.parent).as_posix()
        claims = [claim for key, same in self.watch.claims.items() if key[0] == file for claim in same]
        tree = Instrument(claims).visit(self.watch.trees[file])
        return compile(ast.fix_missing_locations(tree), self.path, "exec", dont_inherit=True)

    def exec_module(self, module):
        module.__dict__["__watch__"] = self.watch
        super().exec_module(module)


class Instrument(ast.NodeTransformer):
    """Puts the calls of a `Watch` around what the claims are about."""

    def __init__(self, claims: Iterable[Claim]):
        self.of: dict[int, list[Claim]] = {}
        for claim in claims:
            self.of.setdefault(id(claim.node), []).append(claim)

    def _call(self, method: str, claims: Iterable[Claim], *arguments: ast.expr | str) -> ast.Call:
        keys = ast.parse(repr(list(dict.fromkeys(claim.key for claim in claims))), mode="eval").body
        nodes = [ast.parse(a, mode="eval").body if isinstance(a, str) else a for a in arguments]
        nodes.insert(0 if method in ("enter", "call") else 1, keys)
        return ast.Call(ast.Attribute(ast.Name("__watch__", ast.Load()), method, ast.Load()), nodes, [])

    def visit(self, node: ast.AST) -> Any:
        claims = self.of.get(id(node), [])
        node = super().visit(node)
        if isinstance(node, Function):
            return self._function(node, claims)
        if isinstance(node, ast.ClassDef) and claims:
            return [node, ast.Expr(self._call("fields", claims, node.name))]
        if isinstance(node, ast.Lambda) and claims:
            node.body = self._call("call", claims, "locals()", node.body)
        elif isinstance(node, ast.expr) and claims:
            return self._call("see", claims, "__names__", node)
        return node

    def _function(self, node: ast.AST, claims: list[Claim]) -> ast.AST:
        results = [claim for claim in claims if claim.about == "result"]
        arguments = [claim for claim in claims if claim.about == "argument"]
        if results:
            _Returns(lambda value: self._call("leave", results, "__names__", value)).run(node)
        start = bool(ast.get_docstring(node, clean=False))
        if claims or any(isinstance(n, ast.Name) and n.id == "__names__" for n in ast.walk(node)):
            names = ast.Assign([ast.Name("__names__", ast.Store())], self._call("enter", arguments, "locals()"))
            node.body.insert(start, names)
        return node


class _Returns(ast.NodeTransformer):
    """Puts a call around what a function returns, but not around what functions inside it do."""

    def __init__(self, call):
        self.call = call

    def run(self, function: ast.AST):
        function.body = [self.visit(statement) for statement in function.body]

    def visit(self, node: ast.AST) -> Any:
        return node if isinstance(node, Function | ast.Lambda | ast.ClassDef) else super().visit(node)

    def visit_Return(self, node: ast.Return) -> ast.Return:
        if node.value is not None:
            node.value = self.call(node.value)
        return node
