"""How their own scripts would do it: the lines before a call, taken from the syntax tree and run again.

    config = {"hidden_size": 768, "drop": args.drop}          ┐
    config = SimpleNamespace(**config)                        ┘ run again, with the defaults of their own parser
    model = MultitaskBERT(config, args.layers)                  … so this is what their class is built with

Only those statements of a function run that the call's arguments need, back to what the check can supply: the flags,
a batch, a device. Nothing is trained and no data is read.
"""

import ast
import builtins
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from minbert.sanity.source import called, calls, definitions, made_by_script
from minbert.sanity.starter import Flags, Words

Supply = Callable[[str], Any]  # a name that nothing before the call defines → its value; KeyError where there is none
DEEPEST = 3  # calls of calls that are followed
NUM_LABELS = {k: k for k in range(5)}


class Replay:
    def __init__(self, project: Any):
        self.project = project
        self._parsers: dict[Path, Flags] = {}
        self._under_way: set[Path] = set()

    # -------------------------------------------------------------------------------------------- what is asked

    def parser(self, file: Path) -> Flags:
        """The flags' defaults of the first parser of a file; empty where there is none."""
        if file not in self._parsers:
            self._parsers[file] = Flags()  # until it is known: its own lines may ask for it
            for node, path in self.calls(file, lambda call: called(call) in ("parse_args", "parse_known_args")):
                try:
                    value = self.value(file, node, path, self.known(file))
                    value = value[0] if isinstance(value, tuple) else value
                except Exception:
                    continue
                self._parsers[file] = value if isinstance(value, Flags) else Flags(**vars(value))
                break
        return self._parsers[file]

    def of_main(self, module: ModuleType) -> dict[str, Any]:
        """{name: value} of what a module's functions read but only its main block, or a `global` function, assigns."""
        file = Path(module.__file__)
        if file in self._under_way:
            return {}
        self._under_way.add(file)
        made = {}
        scripted = made_by_script(file)
        for name in (_taken_for_granted(file) & scripted.keys()) - vars(module).keys() if scripted else ():
            for node, path in scripted[name]:
                if isinstance(node.targets[0], ast.Name):
                    with contextlib.suppress(Exception):  # a NameError will tell, if it matters
                        made[name] = self.value(file, node.value, path, self.known(file), vars(module) | made)
                        break
        self._under_way.discard(file)
        return made

    def arguments(self, file: Path, call: ast.Call, path: list[ast.AST], supply: Supply) -> tuple[list, dict]:
        """What a call of theirs hands over: positional arguments, and named ones. Raises what their code raises."""
        tuple_of = ast.Tuple([*call.args], ast.Load())
        named = ast.Dict([k.arg and ast.Constant(k.arg) for k in call.keywords], [k.value for k in call.keywords])
        both = ast.fix_missing_locations(ast.copy_location(ast.Tuple([tuple_of, named], ast.Load()), call))
        args, options = self.value(file, both, path, supply)
        return list(args), options

    def calls(self, file: Path, wanted: Callable[[ast.Call], bool]) -> Iterator[tuple[ast.Call, list[ast.AST]]]:
        """(call, the nodes around it from the module inwards) of every call in a file that `wanted` accepts."""
        yield from ((call, list(path)) for call, path in calls(file) if wanted(call))

    def known(self, file: Path) -> Supply:
        """What the check can supply by name: the flags, a device, the labels, a tokenizer."""

        def supply(name: str) -> Any:
            low = name.lower()
            if low in ("args", "arg", "opt", "opts", "options", "hparams", "flags", "params", "hp"):
                return self.project.flags(file)
            if "device" in low:
                return torch.device("cpu")
            if low in ("num_labels", "n_labels", "num_classes"):
                return 5 if file.stem == "classifier" else NUM_LABELS
            if "tokenizer" in low:
                return Words()
            raise KeyError(name)

        return supply

    # -------------------------------------------------------------------------------------------- the slice

    def value(
        self, file: Path, node: ast.expr, path: list[ast.AST], supply: Supply, names: dict | None = None, depth: int = 0
    ) -> Any:
        """The value of an expression of theirs. path: the nodes around it. Raises what their code raises."""
        namespace = dict(vars(self.project.load(file)) if names is None else names)
        statements, lacking = _slice(node, path)
        for name in sorted(lacking - namespace.keys() - vars(builtins).keys()):
            try:
                namespace[name] = supply(name)
            except KeyError:
                result = self._parameter(file, name, path, supply, depth)
                if result is not None:
                    namespace[name] = result[0]
        promised = {"load_multitask_data": lambda *a, **o: ([], NUM_LABELS, [], []), "load_data": _data,
                    "create_data": _data, "get_dataloaders": None}  # fmt: skip
        namespace |= {name: value for name, value in promised.items() if value and name in namespace}
        for statement in statements:
            try:
                exec(compile(ast.Module([statement], []), str(file), "exec"), namespace)
            except Exception:  # a name is missing then; it is supplied, or it does not matter
                for name in _names(statement, ast.Store) - namespace.keys():
                    with contextlib.suppress(KeyError):
                        namespace[name] = supply(name)
        return eval(compile(ast.Expression(node), str(file), "eval"), namespace)

    def _parameter(self, file: Path, name: str, path: list[ast.AST], supply: Supply, depth: int) -> tuple[Any] | None:
        """The value of a parameter of the function around, from where that function is called."""
        function = next((n for n in reversed(path) if isinstance(n, ast.FunctionDef)), None)
        if function is None or depth == DEEPEST:
            return None
        parameters = [a.arg for a in (*function.args.posonlyargs, *function.args.args)]
        if name not in [*parameters, *(a.arg for a in function.args.kwonlyargs)]:
            return None
        for script in self.project.sources:
            for call, around in self.calls(script, lambda c: called(c) == function.name):
                given = dict(zip(parameters[parameters[:1] == ["self"] :], call.args, strict=False))
                given |= {k.arg: k.value for k in call.keywords}
                if name in given and not isinstance(given[name], ast.Starred):
                    try:
                        return (self.value(script, given[name], around, supply, depth=depth + 1),)
                    except Exception:
                        continue
        return None


def _data(filename: Any = None, flag: str = "train", *others: Any, **options: Any) -> Any:
    """In place of what reads the classifier's data: no rows; a training set comes with the number of labels."""
    return ([], 5) if "train" in str(options.get("flag", options.get("split", flag))) else []


def _names(node: ast.AST, kind: type) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, kind)}


def _changes(statement: ast.stmt) -> set[str]:
    """The names that a statement defines or changes: `x = …`, `x.y = …`, `x[y] = …`, `x.update(…)`."""
    changed = _names(statement, ast.Store)
    for node in ast.walk(statement):
        if isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store):
            changed |= _names(node, ast.Load)
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        function = statement.value.func
        if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
            changed.add(function.value.id)
        elif called(statement.value) == "setattr":
            changed |= _names(statement.value.args[0], ast.Load)
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        changed.add(statement.name)
    if isinstance(statement, ast.Import | ast.ImportFrom):
        changed |= {(alias.asname or alias.name).partition(".")[0] for alias in statement.names}
    return changed


def _slice(node: ast.expr, path: list[ast.AST]) -> tuple[list[ast.stmt], set[str]]:
    """The statements before an expression that it needs, in order, and the names that these take from outside.

    Loops around it are not run: what they run over is to be supplied. Conditions around it are taken to hold.
    """
    needed = _names(node, ast.Load)
    statements: list[ast.stmt] = []
    outside: set[str] = set()
    around = [*path, node]
    for parent, child in zip(reversed(path), reversed(around), strict=False):
        for field in ("body", "orelse", "finalbody"):
            block = getattr(parent, field, None)
            if not isinstance(block, list) or child not in block or isinstance(parent, ast.Module):
                continue
            for statement in reversed(block[: block.index(child)]):
                if _changes(statement) & needed:
                    statements.insert(0, statement)
                    needed |= _names(statement, ast.Load)
        if isinstance(parent, ast.For):
            outside |= _names(parent.target, ast.Store) & needed
        if isinstance(parent, ast.FunctionDef | ast.Lambda):
            break
    defined = set().union(*map(_changes, statements)) if statements else set()
    return statements, (needed - defined) | outside


def _taken_for_granted(file: Path) -> set[str]:
    """Names that a file's functions read and do not make themselves, Python's own left out."""
    granted: set[str] = set()
    for _, node in definitions(file):
        if isinstance(node, ast.FunctionDef):
            own = {a.arg for a in ast.walk(node) if isinstance(a, ast.arg)}
            declared = {g for s in ast.walk(node) if isinstance(s, ast.Global) for g in s.names}
            granted |= _names(node, ast.Load) - own - (_names(node, ast.Store) - declared)
    return granted - vars(builtins).keys()
