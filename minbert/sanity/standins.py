"""Stand-ins for packages that a model's numbers do not need, or that are not installed.

Some do what the package does; all else is an `Anything`, which `evidence.Blame` recognises. `Importer` gives them to
code that imports such a package, and runs the project's own modules.
"""

import __future__

import ast
import importlib.machinery
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import nn

from minbert.sanity.evidence import TOUCHED
from minbert.sanity.source import is_magic, nodes, parsed
from minbert.sanity.starter import BertPreTrainedModel, Settings, Words, extended_mask

# ------------------------------------------------------------------------------------------------ packages


EXCEPTIONS = re.compile(r"(Error|Exception|Warning|Timeout|Interrupt)$")  # how exception classes are called


class _Anything(type):
    def __getattr__(cls, name: str) -> Any:
        return _offer(cls, name)


class Anything(metaclass=_Anything):
    """Whatever a missing package would have held: can be called, subclassed, entered, compared, and does nothing.

    Where its answer may decide something (a length, an order, what is in it) the package is noted in TOUCHED.
    """

    stands_for = ""

    def __new__(cls, *args: Any, **options: Any) -> Any:
        if len(args) == 1 and callable(args[0]) and not options and cls.__base__ in (object, Anything):
            return args[0]  # it was a decorator
        return super().__new__(cls)

    def __init__(self, *args: Any, **options: Any):
        pass

    def __getattr__(self, name: str) -> Any:
        return _offer(type(self), name)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return args[0] if len(args) == 1 and callable(args[0]) and not options else type(self)()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: Any):
        return None

    def __iter__(self) -> Iterator:
        TOUCHED.append(self.stands_for)
        return iter(())

    def __len__(self) -> int:
        TOUCHED.append(self.stands_for)
        return 0

    def __lt__(self, other: Any) -> bool:
        TOUCHED.append(self.stands_for)
        return False

    __le__ = __gt__ = __ge__ = __lt__

    def __fspath__(self) -> str:
        return "anything"

    def __getitem__(self, key: Any) -> Any:
        return type(self)()


def _offer(cls: type, name: str) -> Any:
    """An attribute of a stand-in: an exception class if its name ends like one, else another stand-in."""
    if is_magic(name):
        raise AttributeError(name)
    if EXCEPTIONS.search(name):
        return type(name, (Exception,), {})
    return cls()


def accuracy(labels: Iterable, predictions: Iterable, **options: Any) -> float:
    pairs = list(zip(labels, predictions, strict=True))
    return sum(float(a) == float(b) for a, b in pairs) / max(len(pairs), 1)


class Bar:
    """A progress bar that shows nothing: the items, and a context."""

    def __init__(self, items: Iterable = (), *args: Any, **options: Any):
        self.items = items

    def __getattr__(self, name: str) -> Any:
        if is_magic(name):
            raise AttributeError(name)
        return lambda *args, **options: None

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *error: Any):
        return None

    def __iter__(self) -> Iterator:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


class LightningModule(nn.Module):
    """As much of PyTorch Lightning's module as a model's own numbers need."""

    device = torch.device("cpu")

    def save_hyperparameters(self, *args: Any, **options: Any):
        """Keep the caller's arguments in `hparams`, as Lightning does."""
        given = sys._getframe(1).f_locals
        values = {k: v for k, v in given.items() if k != "self" and not is_magic(k)}
        for value in [v for v in values.values() if isinstance(v, dict)]:
            values |= value
        self.hparams = SimpleNamespace(**values)

    def log(self, *args: Any, **options: Any):
        pass

    log_dict = log


# ------------------------------------------------------------------------------------------------ importing

# Never needed for a model's numbers, and slow or impossible to import: replaced even where installed or loaded.
ALWAYS = {
    "torch.utils.tensorboard",
    "sklearn", "requests", "filelock", "importlib_metadata", "transformers", "huggingface_hub", "explainaboard_client",
    "matplotlib", "seaborn", "pandas", "wandb", "tensorboard", "tensorboardX", "peft", "datasets", "nltk", "boto3",
    "sentence_transformers", "torchvision", "torchmetrics", "tqdm", "pytorch_lightning", "lightning", "accelerate",
    "google", "IPython", "ipywidgets",
}  # fmt: skip
BARS = {"tqdm": Bar, "trange": lambda *args, **options: Bar(range(*args))}
TOKENIZERS = dict.fromkeys(
    ("BertTokenizer", "BertTokenizerFast", "AutoTokenizer", "PreTrainedTokenizer", "PreTrainedTokenizerFast"), Words
)
KNOWN: dict[str, dict[str, Any]] = {  # what a stand-in does know
    "sklearn.metrics": {"accuracy_score": accuracy, **dict.fromkeys(
        ("f1_score", "recall_score", "precision_score"), lambda *args, **options: float("nan"))},
    **dict.fromkeys(("tqdm", "tqdm.auto", "tqdm.notebook", "tqdm.autonotebook"), BARS),
    **dict.fromkeys(("pytorch_lightning", "lightning", "lightning.pytorch"), {"LightningModule": LightningModule}),  # noqa: RUF024
    "transformers": TOKENIZERS,
    # files of the course's starter, for somebody who hands in bert.py alone
    "utils": {"get_extended_attention_mask": extended_mask},
    "base_bert": {"BertPreTrainedModel": BertPreTrainedModel},
    "config": {"BertConfig": Settings, "PretrainedConfig": Settings},
    "tokenizer": TOKENIZERS,
}  # fmt: skip


class Importer:
    """An import hook: their modules come first, then stand-ins, then what is installed; our own minbert never comes.

    project.missing: names of modules that are nowhere; those that a `try` guards are not among them.
    """

    def __init__(self, project: Any):
        self.project, self.root = project, project.root
        self.wanted = {name for file in project.sources for name in _needed(file)}
        self.missing: set[str] = project.missing

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        top = fullname.partition(".")[0]
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        file = Path(spec.origin) if spec and spec.origin and spec.has_location else None
        if file and file.is_relative_to(self.root):
            if spec.loader and file.suffix == ".py":
                spec.loader = Loader(fullname, str(file), self.project)
            return spec
        if spec and any(Path(p).is_relative_to(self.root) for p in spec.submodule_search_locations or ()):
            return spec  # a folder of theirs without __init__.py
        if top == "minbert":
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)
        if (top in ALWAYS or fullname in ALWAYS) and not (top in self.project.real and self._installed(top)):
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        if top in self.missing or (top in self.wanted and not self._installed(top)):
            self.missing |= {top} - KNOWN.keys()
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def _installed(self, top: str) -> bool:
        others = [finder for finder in sys.meta_path if finder is not self]
        return any(finder.find_spec(top, None) for finder in others)

    def create_module(self, spec: Any) -> ModuleType:
        module, known = ModuleType(spec.name), dict(KNOWN.get(spec.name, {}))
        if spec.name == "transformers":
            known |= dict.fromkeys(("BertModel", "AutoModel"), self.project.from_hub())
        package = spec.name.partition(".")[0]
        unknown = type("Anything", (Anything,), {"stands_for": package})
        module.__dict__.update(known, __all__=list(known), __path__=[], __version__="9.9")

        def offered(name: str) -> Any:
            if not is_magic(name) and name[:1].isupper() and not EXCEPTIONS.search(name):
                return type(name, (unknown,), {})
            return _offer(unknown, name)

        module.__getattr__ = offered
        return module

    def exec_module(self, module: ModuleType):
        pass


FUTURE = __future__.annotations.compiler_flag  # the only one that still changes anything


class Loader(importlib.machinery.SourceFileLoader):
    """Runs a module of theirs, statement by statement.

    A statement that fails for want of a file, a GPU or the like is left out, as in a notebook that begins to train;
    `Project.skips` decides. Definitions and imports must work.
    """

    def __init__(self, name: str, path: str, project: Any):
        super().__init__(name, path)
        self.project = project

    def exec_module(self, module: ModuleType):
        tree = parsed(Path(self.path))
        if not tree.body:
            tree = ast.parse(self.get_data(self.path), self.path)  # it is empty, or this says why it cannot be read
        future = FUTURE if any(isinstance(n, ast.ImportFrom) and n.module == "__future__" for n in tree.body) else 0
        for node in tree.body:
            try:
                code = compile(ast.Module([node], []), self.path, "exec", future, dont_inherit=True)
                exec(code, module.__dict__)
            except Exception as error:
                if not self.project.skips(node, error):
                    raise
        self.project.made(module)


def _needed(file: Path) -> Iterator[str]:
    """Top-level names of what a file imports without being ready for its absence (`try`)."""
    tries = (node for node in nodes(file) if isinstance(node, ast.Try))
    guarded = {id(below) for node in tries for statement in node.body for below in ast.walk(statement)}
    for node in nodes(file):
        if isinstance(node, ast.Import) and id(node) not in guarded:
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and id(node) not in guarded and not node.level:
            yield (node.module or "").partition(".")[0]
