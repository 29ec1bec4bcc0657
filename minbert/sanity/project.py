"""Somebody's project: where its files are, a copy to try them in, and its classes by name.

The parent process uses `Layout`: it finds the files, copies them (never running one) and says in which line a method
stands. The child process uses `Project`, which imports from the copy. Packages that a model does not need, or that are
not installed, are stood in for: only the model's code is wanted.
"""

import ast
import builtins
import contextlib
import importlib
import importlib.machinery
import importlib.util
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from minbert.errors import UserError
from minbert.sanity.core import Absent

SKIPPED = {
    "__pycache__", "node_modules", "site-packages", "venv", "env", "data", "weights", "wandb", "runs", "build", "tests",
    "sanity",
}  # fmt: skip
SCRIPTS = ("sanity_check", "optimizer_test", "setup", "conftest")  # files that act when they are imported
KEPT = {".py", ".json", ".txt", ".cfg", ".toml", ".yml", ".yaml"}
BIGGEST = 1_000_000  # bytes of a file that is still copied
MOST = 2_000  # files
HOMES = ("bert.py", "optimizer.py")  # the folder that holds the first of these is the project


# ------------------------------------------------------------------------------------------------ the files


@dataclass(frozen=True)
class Layout:
    """Where a project's files are. home: the folder of bert.py. root: the folder that Python imports from.

    package: the dotted name of `home` as seen from `root`; "" where files import one another by bare names, as in
    the course, and home is root.
    """

    root: Path
    home: Path
    package: str = ""

    @classmethod
    def find(cls, path: str | Path) -> "Layout":
        """The project in a folder, up to three levels down from it, or around a file.

        Raises UserError if there is none, or if there are several.
        """
        path = Path(path)
        if not path.exists():
            raise UserError(f"{path}: there is no such file or folder")
        folder = (path if path.is_dir() else path.parent).resolve()
        if path.is_file() and path.suffix != ".py":
            raise UserError(f"{path}: this is not a Python file; give the project's folder")
        levels = [[folder]]
        for _ in range(3):
            inside = [d for above in levels[-1] for d in sorted(above.iterdir())]
            levels.append([d for d in inside if d.is_dir() and not _skipped(d)])
        for pattern in (*HOMES, "*.py"):
            for level in levels:
                homes = [home for home in level if any(home.glob(pattern))]
                if len(homes) > 1 and pattern in HOMES:
                    names = ", ".join(str(home.relative_to(folder)) for home in homes[:5])
                    raise UserError(f"{path}: holds several projects ({names}, …): name those to check, {path}/*")
                if homes:
                    return cls._around(homes[0])
        raise UserError(f"{path}: no Python files of a BERT project, neither here nor three folders down")

    @classmethod
    def _around(cls, home: Path) -> "Layout":
        """A folder is a package if its files import one another relatively or by the folder's own name."""
        for file in home.glob("*.py"):
            for node in ast.walk(parsed(file)):
                if isinstance(node, ast.ImportFrom):
                    inside = node.level > 0 or (node.module or "").split(".")[0] == home.name
                elif isinstance(node, ast.Import):
                    inside = any(alias.name.split(".")[0] == home.name for alias in node.names)
                else:
                    continue
                if inside and not (home / f"{home.name}.py").exists():
                    return cls(home.parent, home, home.name)
        return cls(home, home)

    def files(self) -> Iterator[Path]:
        """The files worth reading: Python and small text, no data, weights, environments or hidden folders.

        The scripts beside a package belong to it; what else lies beside it does not.
        """
        beside = [p for p in sorted(self.root.glob("*.py")) if p.is_file()] if self.package else []
        yield from (p for p in beside if p.stat().st_size <= BIGGEST)
        yield from _walk(self.home)

    def copy(self, to: Path) -> "Layout":
        """Copy those files below `to` and return the copy's layout."""
        for count, file in enumerate(self.files()):
            if count == MOST:
                raise UserError(f"{self.home}: more than {MOST} files; give the folder of bert.py itself")
            target = to / file.relative_to(self.root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        return Layout(to, to / self.home.relative_to(self.root), self.package)

    def sources(self) -> list[Path]:
        """The Python files, home first, tests last."""
        files = [p for p in self.files() if p.suffix == ".py"]
        return sorted(files, key=lambda p: ("test" in str(p.relative_to(self.root)), p.parent != self.home))

    def locate(self, names: Iterable[str]) -> tuple[str, str, int] | None:
        """(name, file, line) of the first of these qualified names that is defined; file as seen from the root."""
        found: dict[str, tuple[str, str, int]] = {}
        for file in self.sources():
            for name, node in definitions(parsed(file)):
                found.setdefault(name, (name, str(file.relative_to(self.root)), node.lineno))
        return next((found[name] for name in names if name in found), None)


def _skipped(folder: Path) -> bool:
    name = folder.name
    return name.startswith(".") or name in SKIPPED or folder.is_symlink() or (folder / "pyvenv.cfg").exists()


def _walk(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if not _skipped(path):
                yield from _walk(path)
        elif path.suffix in KEPT and path.is_file() and path.stat().st_size <= BIGGEST:
            yield path


def parsed(file: Path) -> ast.AST:
    """The syntax tree of a file; an empty one where it cannot be read or parsed."""
    try:
        return ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, RecursionError, OSError):
        return ast.Module([], [])


def definitions(tree: ast.AST, inside: str = "") -> Iterator[tuple[str, ast.AST]]:
    """(qualified name, node) of every class and function, as `BertLayer.forward`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            name = f"{inside}.{node.name}".lstrip(".")
            yield name, node
            yield from definitions(node, name)
        elif isinstance(node, ast.If | ast.Try | ast.With):
            yield from definitions(node, inside)


# ------------------------------------------------------------------------------------------------ stand-ins


class _Anything(type):
    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything()


class Anything(metaclass=_Anything):
    """Whatever a missing package would have held: can be called, subclassed, entered, compared, and does nothing."""

    def __new__(cls, *args: Any, **options: Any) -> Any:
        if cls is Anything and len(args) == 1 and callable(args[0]) and not options:
            return args[0]  # it was a decorator
        return super().__new__(cls)

    def __init__(self, *args: Any, **options: Any):
        pass

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything()

    def __call__(self, *args: Any, **options: Any) -> Any:
        return args[0] if len(args) == 1 and callable(args[0]) and not options else Anything()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: Any):
        return None

    def __iter__(self) -> Iterator:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __lt__(self, other: Any) -> bool:
        return False

    __le__ = __gt__ = __ge__ = __lt__

    def __fspath__(self) -> str:
        return "anything"

    def __getitem__(self, key: Any) -> Any:
        return Anything()


def _accuracy(labels: Iterable, predictions: Iterable, **options: Any) -> float:
    pairs = list(zip(labels, predictions, strict=True))
    return sum(float(a) == float(b) for a, b in pairs) / max(len(pairs), 1)


class _Bar(Anything):
    """A progress bar that shows nothing: the items, and a context."""

    def __new__(cls, *args: Any, **options: Any) -> Any:
        return object.__new__(cls)

    def __init__(self, items: Iterable = (), *args: Any, **options: Any):
        self.items = items

    def __iter__(self) -> Iterator:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


def _extended_mask(attention_mask: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The starter's `utils.get_extended_attention_mask`: (B, T) of 1 and 0 → (B, 1, 1, T) of 0 and -10000."""
    mask = attention_mask[:, None, None, :] if attention_mask.dim() == 2 else attention_mask[:, None, :, :]
    return (1.0 - mask.to(dtype)) * -10000.0


class _BertPreTrainedModel(nn.Module):
    """What a BertModel needs of the starter's base class."""

    def __init__(self, config: Any, *inputs: Any, **options: Any):
        super().__init__()
        self.config = config

    def init_weights(self):
        pass

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype


# Never needed for a model's numbers, and slow or impossible to import: stood in for even where installed, or loaded.
ALWAYS = {
    "torch.utils.tensorboard",
    "sklearn", "requests", "filelock", "importlib_metadata", "transformers", "huggingface_hub", "explainaboard_client",
    "matplotlib", "seaborn", "pandas", "wandb", "tensorboard", "tensorboardX", "peft", "datasets", "nltk", "boto3",
    "sentence_transformers", "torchvision", "torchmetrics", "tqdm",
}  # fmt: skip
KNOWN: dict[str, dict[str, Any]] = {  # what a stand-in does know
    "sklearn.metrics": {
        "accuracy_score": _accuracy,
        "f1_score": lambda *args, **options: 0.0,
        "recall_score": lambda *args, **options: 0.0,
    },
    "tqdm": {"tqdm": _Bar, "trange": lambda *args, **options: _Bar(range(*args))},
    "tqdm.auto": {"tqdm": _Bar, "trange": lambda *args, **options: _Bar(range(*args))},
    "tqdm.notebook": {"tqdm": _Bar, "trange": lambda *args, **options: _Bar(range(*args))},
    # files of the course's starter, for somebody who hands in bert.py alone
    "utils": {"get_extended_attention_mask": _extended_mask},
    "base_bert": {"BertPreTrainedModel": _BertPreTrainedModel},
    "config": {"BertConfig": SimpleNamespace, "PretrainedConfig": SimpleNamespace},
}


class StandIns:
    """An import hook: theirs come first, then stand-ins, then what is installed; our own minbert never."""

    def __init__(self, root: Path, sources: Iterable[Path]):
        self.root = root
        self.wanted = {name for file in sources for name in _needed(parsed(file))}

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        top = fullname.partition(".")[0]
        if (self.root / f"{top}.py").exists() or (self.root / top).is_dir():
            return None
        if top == "minbert":
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)
        others = [finder for finder in sys.meta_path if finder is not self]
        missing = top in self.wanted and not any(finder.find_spec(top, None) for finder in others)
        if top in ALWAYS or fullname in ALWAYS or missing:
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> ModuleType:
        module = ModuleType(spec.name)
        known = KNOWN.get(spec.name, {})
        module.__dict__.update(known, __all__=list(known), __path__=[], __version__="9.9")

        def anything(name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return type(name, (Anything,), {}) if name[:1].isupper() else Anything()

        module.__getattr__ = anything
        return module

    def exec_module(self, module: ModuleType):
        pass


def _needed(tree: ast.AST) -> Iterator[str]:
    """Top-level names of the modules that a file imports without being ready for their absence (`try`)."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield (node.module or "").partition(".")[0]
        elif not isinstance(node, ast.Try):
            yield from _needed(node)


# ------------------------------------------------------------------------------------------------ the child's side

SHAPE = {  # what every config is asked for, unless a part wants another
    "vocab_size": 11, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12,
    "hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.5, "max_position_embeddings": 10,
    "type_vocab_size": 2, "initializer_range": 0.02, "layer_norm_eps": 1e-12, "pad_token_id": 0,
}  # fmt: skip
OTHERS = {  # what else a BERT may ask of its config
    "model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute", "name_or_path": "",
    "use_cache": True, "gradient_checkpointing": False, "output_attentions": False, "output_hidden_states": False,
    "chunk_size_feed_forward": 0, "is_decoder": False, "return_dict": True, "option": "finetune",
    "fine_tune_mode": "full-model", "num_labels": 5, "data_dir": ".",
}  # fmt: skip


class Project:
    """Somebody's project, in the child process, where their code may run."""

    def __init__(self, layout: Layout):
        self.layout = layout
        self.root, self.home, self.package = layout.root, layout.home, layout.package
        self.sources = layout.sources()

    def enter(self):
        """From now on `import` finds their modules, not ours."""
        for name in [n for n in sys.modules if n.partition(".")[0] in ALWAYS | {"minbert"}]:
            del sys.modules[name]
        builtins.get_ipython = Anything  # a notebook's, in what was exported from one
        for file in self.sources:  # a `utils` or `config` that something else brought along is not theirs
            sys.modules.pop(file.stem if file.parent == self.root else "", None)
        ours = Path(__file__).resolve().parents[2]
        sys.path[:] = [str(self.root), *(p for p in sys.path if Path(p or ".").resolve() != ours)]
        sys.meta_path.insert(0, StandIns(self.root, self.sources))
        importlib.invalidate_caches()

    def module(self, name: str) -> ModuleType:
        """Import their module of that name, beside bert.py or at the root. Raises Absent if they have none."""
        if (self.home / f"{name}.py").exists():
            return importlib.import_module(f"{self.package}.{name}".lstrip("."))
        if (self.root / f"{name}.py").exists():
            return importlib.import_module(name)
        raise Absent(f"no {name}.py")

    def get(self, module: str, name: str) -> Any:
        """Their class or function: from the usual module, else from whichever of theirs defines it. Raises Absent."""
        with contextlib.suppress(Absent):
            found = getattr(self.module(module), name, None)
            if found is not None:
                return found
        for file in self.sources:
            if any(defined == name for defined, _ in definitions(parsed(file))):
                dotted = ".".join(file.relative_to(self.root).with_suffix("").parts)
                return getattr(importlib.import_module(dotted.removesuffix(".__init__")), name)
        raise Absent(f"no {name}, in {module}.py or elsewhere")

    def modules(self) -> Iterator[ModuleType]:
        """Every module of theirs that can be imported, the one beside bert.py first, without scripts and tests."""
        for file in self.sources:
            dotted = ".".join(file.relative_to(self.root).with_suffix("").parts).removesuffix(".__init__")
            if file.stem not in SCRIPTS and "test" not in file.stem:
                try:
                    yield importlib.import_module(dotted)
                except (Exception, SystemExit):
                    continue  # it is asked for by name where it matters

    def config(self, **sizes: Any) -> Any:
        """A config of these sizes with every name that BERTs ask for: their own BertConfig where it takes them."""
        sizes = {**SHAPE, **sizes}
        values = {**OTHERS, **sizes}
        try:
            config = self.get("config", "BertConfig")(**sizes)
            assert all(getattr(config, name) == value for name, value in sizes.items())
        except Exception:
            return SimpleNamespace(**values)
        for name, value in values.items():
            if not hasattr(config, name):
                with contextlib.suppress(AttributeError):  # a frozen config of theirs has all that theirs asks for
                    setattr(config, name, value)
        return config
