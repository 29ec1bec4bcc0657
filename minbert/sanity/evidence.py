"""Whose failure is it? The rule of this package, in one place.

    A complaint needs evidence: something that somebody's code did with inputs that the course's interface promises.
    Whatever fails because of the check's own stand-ins, guesses or limits is "not checked", with the reason.

Every probe therefore ends in one of five outcomes:

    {"values": …}                what came out; the judge compares it; "touched": a package that was stood in for
    {"error": …, "file": …}      their code failed on promised inputs: evidence
    {"unknown": …, "remedy": …}  the check could not see; no evidence of anything
    {"todo": [(name, file, line), …]}   these methods are still to be written
    {"absent": …}                they have no such thing

An exception is theirs if it was raised in their code, and if nothing that the check made up can have caused it:
a stand-in that was asked for more than is promised raises `CannotCheck`, a guess leaves a note in `Project.notes`.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import torch

from minbert.sanity.core import DROPPED, Absent, CannotCheck, NotWritten, Part, Probe
from minbert.sanity.source import made_by_script, nodes

OURS = Path(__file__).resolve().parents[1]
Outcome = dict[str, Any]


TOUCHED: list[str] = []  # packages whose stand-in gave an answer that counts, since the part's probes began


class NoAttribute(CannotCheck, AttributeError):
    """A stand-in has no such attribute, and the course does not promise one."""


class NoKey(CannotCheck, KeyError):
    """A stand-in has no such key, and the course does not promise one."""

    __str__ = CannotCheck.__str__


# ------------------------------------------------------------------------------------------------ recording


def record(part: Part, subject: Any, blame: "Blame | None" = None) -> dict[str, Outcome]:
    """Run a part's probes: {probe: outcome}. Call it within `visible_dropout`."""
    TOUCHED.clear()
    return {probe.name: record_probe(probe, subject, blame) for probe in part.probes}


def record_probe(probe: Probe, subject: Any, blame: "Blame | None" = None) -> Outcome:
    """One probe's outcome. blame: decides whose a failure is; without it the subject is the check's own."""
    torch.manual_seed(0)
    DROPPED.clear()
    try:
        values = probe.run(subject)
        if not isinstance(values, Mapping):
            values = {"": values}
        if any(value is None for value in values.values()):
            raise NotWritten("it returns None")
        outcome = {"values": {name: torch.as_tensor(value).detach().clone() for name, value in values.items()}}
        return outcome | ({"touched": blame.stood_in(TOUCHED[0])} if blame and TOUCHED else {})
    except Absent as reason:
        return {"absent": str(reason)}
    except Exception as error:
        return blame(error) if blame else {"error": type(error).__name__, "message": str(error)}


def same_values(a: Outcome, b: Outcome) -> bool:
    """Whether two outcomes are the same numbers."""
    if a.get("values", {}).keys() != b.get("values", {}).keys():
        return False
    pairs = ((a["values"][name].double(), b["values"][name].double()) for name in a["values"])
    return all(x.shape == y.shape and torch.allclose(x, y, equal_nan=True) for x, y in pairs)


# ------------------------------------------------------------------------------------------------ whose it is

DENIED = re.compile("Permission denied|failed to connect")  # native code's words where the system refuses


class Blame:
    """Decides whose an exception is. project: a `project.Project`. owns: the qualified names of the part's methods."""

    def __init__(self, project: Any, owns: tuple[str, ...] = ()):
        self.project, self.root, self.owns = project, project.root, owns

    def __call__(self, error: BaseException) -> Outcome:
        for link in _chain(error):
            if isinstance(link, CannotCheck):
                return {"unknown": link.reason, "remedy": link.remedy}
        if todo := self.unwritten(error):
            return {"todo": todo}
        if unknown := self.not_theirs(error):
            return dict(zip(("unknown", "remedy"), unknown, strict=True))
        return failure(error, self.root)

    def unwritten(self, error: BaseException) -> list[tuple[str, str, int]]:
        """The methods that are still to be written, if that is why this failed: (name, file, line) each."""
        if isinstance(error, NotWritten):
            return self.project.unwritten(self.owns) or [(error.what, error.file, error.line)]
        steps = list(_steps(error.__traceback__, self.root))
        unfilled = {(file, name): how for name, file, line, how in self.project.unfilled()}
        if isinstance(error, NotImplementedError):
            if missing := re.search(r'Module \[(\w+)\] is missing the required "forward"', str(error)):
                return [(f"{missing[1]}.forward", *self.project.place(missing[1]))]
            if not steps or (str(error) and steps[-1][::2] not in unfilled):
                return []
            return self.project.unwritten(self.owns) or [self._begins(*steps[-1])]
        if "None" not in str(error):
            return []
        called = {name for *_, names in _steps(error.__traceback__, self.root, names=True) for name in names}
        guilty = any((file, function) in unfilled for file, _, function in steps)
        guilty |= any(how == "empty" and name.split(".")[-1] in called for (_, name), how in unfilled.items())
        return self.project.unwritten(self.owns) if guilty else []

    def _begins(self, file: str, line: int, name: str) -> tuple[str, str, int]:
        """(name, file, line of its `def`) of a function that failed; other places are given by their `def` too."""
        there = self.project.layout.locate([name], [file])
        return (name, file, there[2] if there and there[1] == file else line)

    def not_theirs(self, error: BaseException) -> tuple[str, str] | None:
        """(reason, remedy) if this may be the check's own failure, None if it is theirs."""
        text = f"{type(error).__name__}: {first_line(error)}"
        if isinstance(error, SyntaxError) and error.filename and Path(error.filename).is_relative_to(self.root):
            return None
        if isinstance(error, OSError) or DENIED.search(str(error)):
            if isinstance(error, PermissionError) and "the check does not let" in str(error):
                return str(error), ""
            return f"it needs a file or a connection that the copy does not have ({text})", ""
        if isinstance(error, ImportError) and getattr(error, "name", None) in self.project.missing:
            return f"it imports {error.name}, which is neither in this folder nor installed here", ""
        if isinstance(error, MemoryError):
            return "it needs more memory than the check gives it", ""
        if re.search(r"CUDA|NVIDIA|cudnn|mps device", str(error)) or self._asks_for_a_gpu(error):
            return f"it needs a GPU ({text})", ""
        if note := next(reversed(self.project.notes), None):
            return f"{note.reason} ({text})", note.remedy
        if not any(True for _ in _steps(error.__traceback__, self.root)):
            if isinstance(error, TypeError):
                return f"the check cannot call it as the course does ({text})", ""
            return f"the check itself failed ({text})", ""
        if isinstance(error, AttributeError) and _is_ours(type(error.obj)):
            name = type(error.obj).__name__
            what = f"it asks the check's {name} for `{error.name}`, which the course's does not have"
            return what, "Your own BERT takes its place as soon as it is right." if self.project.berts else ""
        if _innermost_is_ours(error.__traceback__, self.root):
            return f"it uses a stand-in of the check in a way that the check does not support ({text})", ""
        if type(error) is NameError and error.name in self.project.skipped:
            return f"`{error.name}` is set in a line that the check cannot run: {self.project.skipped[error.name]}", ""
        if type(error) is NameError and (script := self._made_by_a_script(error.name)):
            return f"`{error.name}` exists only while {script} runs as a script", "Hand it over as an argument."
        if package := self._stand_in(error.__traceback__):
            return f"{self.stood_in(package)} ({text})", ""
        return None

    def stood_in(self, package: str) -> str:
        """The reason why a package that was stood in for keeps something from being seen."""
        if package in self.project.missing:
            return f"it uses {package}, which is neither in this folder nor installed here"
        return f"it uses the package {package}, which the check does not run"

    def _asks_for_a_gpu(self, error: BaseException) -> bool:
        """Whether it was raised by an `assert` of a GPU, or below an `if` that asks for one."""
        if not (steps := list(_steps(error.__traceback__, self.root))):
            return False
        file, line, _ = steps[-1]
        tests = [n.test for n in nodes(self.root / file) if isinstance(n, ast.Assert | ast.If)
                 and n.lineno <= line <= (n.end_lineno or line)]  # fmt: skip
        return any(re.search(r"(?i)cuda|gpu", ast.unparse(test)) for test in tests)

    def _made_by_a_script(self, name: str | None) -> str:
        """The script whose main block makes this name, or one of whose functions declares it global; "" if none."""
        files = (file for file in self.project.sources if name in made_by_script(file))
        return next((str(file.relative_to(self.root)) for file in files), "")

    def _stand_in(self, traceback: TracebackType | None) -> str:
        """The package whose stand-in the failing function uses; "" if there is none."""
        frame = None
        while traceback is not None:
            if Path(traceback.tb_frame.f_code.co_filename).is_relative_to(self.root):
                frame = traceback.tb_frame
            traceback = traceback.tb_next
        if frame is None:
            return ""
        used = [frame.f_globals.get(name) for name in frame.f_code.co_names]
        return next(filter(None, map(stands_for, [*frame.f_locals.values(), *used])), "")


def stands_for(value: Any) -> str:
    """The package that a stand-in of unknown content, its class or its module stands for; "" for all else."""
    return getattr(value if isinstance(value, type | ModuleType) else type(value), "stands_for", "")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, and those that it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _steps(traceback: TracebackType | None, root: Path, names: bool = False) -> Iterator[tuple]:
    """(file, line, function) of each step of a traceback that lies in their files; names: and what it calls."""
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if Path(code.co_filename).is_relative_to(root):
            place = str(Path(code.co_filename).relative_to(root)), traceback.tb_lineno, code.co_qualname
            yield (*place, code.co_names) if names else place
        traceback = traceback.tb_next


PASSED = ("__torch_function__", "_dropout", "_torch_dropout", "_sdpa")  # functions of ours that hand a call on


def _innermost_is_ours(traceback: TracebackType | None, root: Path) -> bool:
    """Whether the last step that lies in their files or in ours lies in ours."""
    ours = False
    while traceback is not None:
        code = traceback.tb_frame.f_code
        file = Path(code.co_filename)
        if file.is_relative_to(root) or (file.is_relative_to(OURS) and code.co_name not in PASSED):
            ours = not file.is_relative_to(root)
        traceback = traceback.tb_next
    return ours


def _is_ours(cls: type) -> bool:
    """Whether a class is one of this package, as its stand-ins are."""
    files = (f.__code__.co_filename for c in cls.__mro__ for f in vars(c).values() if hasattr(f, "__code__"))
    return any(Path(file).is_relative_to(OURS) for file in files)


def first_line(error: BaseException) -> str:
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    return (message.strip().splitlines() or [""])[0][:300]


def failure(error: BaseException, root: Path) -> Outcome:
    """What went wrong, for a person and for comparing: type, message, and where in their files."""
    steps = list(_steps(error.__traceback__, root))
    file, line, function = steps[-1] if steps else ("", 0, "")
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).is_relative_to(root):
        file, line, function = str(Path(error.filename).relative_to(root)), error.lineno or 0, ""
    return {
        "error": type(error).__name__, "message": first_line(error), "file": file, "line": line, "function": function,
    }  # fmt: skip
