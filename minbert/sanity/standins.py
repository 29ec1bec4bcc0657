"""What stands in the place of things that the check does not have: packages, files of the starter, a GPU, a tokenizer.

A stand-in does what the course promises of the thing, and no more: whoever asks for more gets `CannotCheck`, or an
`Anything`, which `evidence.Blame` recognises. `Importer` puts them where somebody's code imports them.
"""

import __future__

import argparse
import ast
import importlib.machinery
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.data import DataLoader

from minbert.sanity.evidence import TOUCHED, NoAttribute, NoKey
from minbert.sanity.source import is_magic, nodes, parsed

# ------------------------------------------------------------------------------------------------ packages


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
    """An attribute of a stand-in: an exception class where the name is one's, else more of the same."""
    if is_magic(name):
        raise AttributeError(name)
    if re.search(r"(Error|Exception|Warning|Timeout|Interrupt)$", name):
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
        """The names go into `hparams`, as there."""
        given = sys._getframe(1).f_locals
        values = {k: v for k, v in given.items() if k != "self" and not is_magic(k)}
        for value in [v for v in values.values() if isinstance(v, dict)]:
            values |= value
        self.hparams = SimpleNamespace(**values)

    def log(self, *args: Any, **options: Any):
        pass

    log_dict = log


# ------------------------------------------------------------------------------------------------ the starter's files


def extended_mask(attention_mask: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The starter's `utils.get_extended_attention_mask`: (B, T) of 1 and 0 → (B, 1, 1, T) of 0 and -10000."""
    mask = attention_mask[:, None, None, :] if attention_mask.dim() == 2 else attention_mask[:, None, :, :]
    return (1.0 - mask.to(dtype)) * -10000.0


class BertPreTrainedModel(nn.Module):
    """What a BertModel needs of the starter's base class."""

    def __init__(self, config: Any, *inputs: Any, **options: Any):
        super().__init__()
        self.config = config

    def init_weights(self):
        pass

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype


class Settings(SimpleNamespace):
    """A config."""


class Words:
    """Stands for the tokenizer: `w10` is number 10, every other word number 4; 2 is [CLS], 3 [SEP], 0 a pad."""

    pad_token_id, cls_token_id, sep_token_id, unk_token_id, mask_token_id = 0, 2, 3, 4, 5
    pad_token, cls_token, sep_token, unk_token, mask_token = "[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"
    vocab_size, model_max_length, padding_side = 20, 512, "right"

    @classmethod
    def from_pretrained(cls, *args: Any, **options: Any) -> "Words":
        return cls()

    def __getattr__(self, name: str) -> Any:
        if is_magic(name):
            raise AttributeError(name)
        raise NoAttribute(f"it asks the tokenizer for `{name}`, and the check's stand-in for it has none")

    def __len__(self) -> int:
        return self.vocab_size

    def tokenize(self, text: str, **options: Any) -> list[str]:
        return text.split()

    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        special = {self.pad_token: 0, self.cls_token: 2, self.sep_token: 3, self.mask_token: 5}
        if not isinstance(tokens, str):
            return [self.convert_tokens_to_ids(token) for token in tokens]
        return special.get(tokens) or (int(tokens[1:]) if re.fullmatch(r"w\d+", tokens) else 4)

    def __call__(self, text: Any, text_pair: Any = None, **options: Any) -> Any:
        """One text or a list, alone or in pairs, as the starter's tokenizer reads them."""
        one = isinstance(text, str)
        pairs = [text_pair] if one and text_pair is not None else text_pair
        rows = []
        for i, first in enumerate([text] if one else text):
            if pairs is None and isinstance(first, tuple | list) and not options.get("is_split_into_words"):
                first, second = first
            else:
                second = None if pairs is None else pairs[i]
            a, b = [self.convert_tokens_to_ids(t.split()) if t is not None else [] for t in (first, second)]
            rows.append(([2, *a, 3, *b, *([3] if b else [])], [0] * (len(a) + 2) + [1] * (len(b) + 1) * bool(b)))
        longest = max(len(ids) for ids, _ in rows)
        if options.get("padding") == "max_length":
            longest = max(longest, min(options.get("max_length") or 16, 32))
        pad = [0] * longest
        batch = {
            "input_ids": [(ids + pad)[:longest] for ids, _ in rows],
            "token_type_ids": [(types + pad)[:longest] for _, types in rows],
            "attention_mask": [([1] * len(ids) + pad)[:longest] for ids, _ in rows],
        }
        if options.get("return_tensors") == "pt":
            return Encoding({name: torch.tensor(value) for name, value in batch.items()})
        return Encoding({name: value[0] for name, value in batch.items()} if one else batch)

    encode_plus = batch_encode_plus = __call__

    def encode(self, text: str, text_pair: str | None = None, **options: Any) -> Any:
        return self(text, text_pair, **options)["input_ids"]


class Encoding(dict):
    """A tokenizer's answer: a dictionary whose keys are attributes too."""

    of = "the tokenizer's answer"

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        if is_magic(name):
            raise AttributeError(name)
        raise NoAttribute(f"it asks {self.of} for `{name}`, which the course does not put there")

    def __missing__(self, key: Any) -> Any:
        raise NoKey(f"it asks {self.of} for {key!r}, which the course does not put there")

    def to(self, device: Any) -> "Encoding":
        return self


# ------------------------------------------------------------------------------------------------ importing

# Never needed for a model's numbers, and slow or impossible to import: stood in for even where installed, or loaded.
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
    **dict.fromkeys(("pytorch_lightning", "lightning", "lightning.pytorch"), {"LightningModule": LightningModule}),
    "transformers": TOKENIZERS,
    # files of the course's starter, for somebody who hands in bert.py alone
    "utils": {"get_extended_attention_mask": extended_mask},
    "base_bert": {"BertPreTrainedModel": BertPreTrainedModel},
    "config": {"BertConfig": Settings, "PretrainedConfig": Settings},
    "tokenizer": TOKENIZERS,
}  # fmt: skip


class Importer:
    """An import hook: theirs come first, then stand-ins, then what is installed; our own minbert never.

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
            if not is_magic(name) and name[:1].isupper() and not re.search(r"(Error|Exception)$", name):
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
    `skip` decides. Definitions and imports must work.
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


# ------------------------------------------------------------------------------------------------ the machine


class OnTheCPU(TorchFunctionMode):
    """Lets code that asks for a GPU run on the CPU. asked: how often it asked."""

    def __init__(self):
        super().__init__()
        self.asked = 0

    def __torch_function__(self, function: Callable, types: Any, args: tuple = (), options: dict | None = None) -> Any:
        options = options or {}
        if function is Tensor.cuda:
            self.asked += 1
            return args[0]
        if _is_gpu(options.get("device")) or (function is Tensor.to and any(map(_is_gpu, args[1:]))):
            self.asked += 1
            options = {**options, **({"device": "cpu"} if "device" in options else {})}
            args = tuple("cpu" if _is_gpu(a) else a for a in args)
        return function(*args, **options)


def _is_gpu(device: Any) -> bool:
    return isinstance(device, str | torch.device) and str(device).startswith(("cuda", "mps", "xpu"))


class Flags(argparse.Namespace):
    """What a parser of theirs gives without arguments, with what the course's parsers have; no more is promised."""

    def __getattr__(self, name: str) -> Any:
        if is_magic(name):
            raise AttributeError(name)
        raise NoAttribute(
            f"it reads `args.{name}`, for which the check finds no default in your parser",
            f"Give the parser a flag --{name} with a default.",
        )


def settle():
    """From now on in this process: no workers, no compiler, no half precision, no warnings, parsers give defaults."""
    warnings.simplefilter("ignore")
    real = torch.autocast.__init__

    def autocast(self: Any, device_type: str = "cpu", *args: Any, **options: Any):
        real(self, "cpu", enabled=False)

    def parse_known_args(self: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> tuple:
        lacking = [a.dest for a in self._actions if a.required and a.default in (None, argparse.SUPPRESS)]
        for action in self._actions:
            action.required = False
            if not action.option_strings:
                action.nargs = "?"
        given, _ = parse(self, [] if args is None else args, None)
        return Flags(**{k: v for k, v in vars(given).items() if k not in lacking}), []

    def loader(self: Any, dataset: Any, *args: Any, **options: Any):
        for name in ("num_workers", "pin_memory", "persistent_workers", "prefetch_factor", "multiprocessing_context"):
            options.pop(name, None)
        load(self, dataset, *args, **options)

    parse, load = argparse.ArgumentParser.parse_known_args, DataLoader.__init__
    argparse.ArgumentParser.parse_known_args = parse_known_args
    argparse.ArgumentParser.parse_args = lambda self, *args, **options: self.parse_known_args(*args, **options)[0]
    DataLoader.__init__ = loader
    torch.autocast.__init__ = autocast
    for owner, name in ((torch, "set_default_device"), (torch, "set_default_tensor_type"), (torch.cuda, "set_device")):
        setattr(owner, name, lambda *args, owner=owner, name=name: None)
    for owner, name in ((torch, "compile"), (torch.jit, "script")):  # each its own function, or PyTorch complains
        setattr(owner, name, _unchanged(name))


def _unchanged(name: str) -> Callable:
    """A decorator, with arguments or without, that changes nothing."""

    def decorate(model: Any = None, *args: Any, **options: Any) -> Any:
        return (lambda m: m) if model is None else model

    decorate.__name__ = name
    return decorate
