"""Somebody's project, in the child process, where its code may run: its classes by name, its config, its flags.

What the check cannot know is taken from their own code where possible: their parser's defaults, their config class,
what their scripts assign. What remains a guess is noted in `Project.notes`.
"""

import ast
import builtins
import contextlib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from minbert.sanity.core import Absent, CannotCheck
from minbert.sanity.evidence import Blame, NoAttribute, stands_for
from minbert.sanity.layout import Imports, Layout
from minbert.sanity.machine import OnTheCPU, settle
from minbert.sanity.models import pretrained
from minbert.sanity.replay import Replay
from minbert.sanity.source import definitions, is_magic, nodes, unfilled
from minbert.sanity.standins import ALWAYS, TOKENIZERS, Anything, Importer
from minbert.sanity.starter import Flags, Settings, Words

SHAPE = {  # what every config is asked for, unless a part wants another
    "vocab_size": 11, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12,
    "hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.5, "max_position_embeddings": 512,
    "type_vocab_size": 2, "initializer_range": 0.02, "layer_norm_eps": 1e-12, "pad_token_id": 0,
}  # fmt: skip
OTHERS = {  # what else the starter's config has
    "model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute", "name_or_path": "",
    "use_cache": True, "gradient_checkpointing": False, "output_attentions": False, "output_hidden_states": False,
    "chunk_size_feed_forward": 0, "is_decoder": False, "return_dict": True, "option": "finetune",
    "fine_tune_mode": "full-model", "num_labels": 5, "data_dir": ".",
}  # fmt: skip
SAME = {  # the same in other words, as configs of one's own have it
    "hidden_size": r"(hidden|d|n|embed(ding)?|model)_?(dim|size|model|embd|embed|hidden)?|width|dim",
    "num_attention_heads": r"(n|num|nb)_?(attn_|attention_|self_attention_)?heads?|heads|nhead",
    "num_hidden_layers": r"(n|num|nb)_?(hidden_|encoder_|bert_)?layers?|layers|depth",
    "intermediate_size": r"(intermediate|ffn?|feed_?forward|mlp)_?(dim|size|hidden|width)|d_ff|dim_feedforward",
    "vocab_size": r"(n_?|num_?)?(vocab|vocabulary|words|tokens)(_?(size|len))?",
    "max_position_embeddings": r"max_?(seq|sequence|position|len|length|tokens)\w*|block_size|(n|num)_positions",
    "type_vocab_size": r"(n|num)_?(types|segments|token_types)|type_vocabulary_size",
    "layer_norm_eps": r"(ln|norm|layernorm)?_?eps(ilon)?",
    "attention_probs_dropout_prob": r"(attn|attention|att)\w*(drop|dropout)\w*",
    "hidden_dropout_prob": r"(hidden_|resid_|residual_|embd_)?(drop|dropout)(_?(rate|prob|p))?|p_drop(out)?",
    "pad_token_id": r"pad(ding)?_?(id|idx|index|token)?",
}
WRITTEN = ("attention", "forward", "add_norm", "embed", "encode", "step", "__init__")  # what students write


class Project:
    """Somebody's project. judged: qualified name → file of every class or function that was found by name."""

    def __init__(self, layout: Layout):
        self.layout, self.root, self.home = layout, layout.root, layout.home
        self.imports = Imports(layout)
        self.sources = self.imports.sources
        self.notes: list[CannotCheck] = []
        self.missing: set[str] = set()
        self.real: set[str] = set()  # packages that are used themselves where they are installed
        self.skipped: dict[str, str] = {}
        self.judged: dict[str, str] = {}
        self.renamed: dict[str, str] = {}  # the course's name → theirs
        self.choices: dict[str, str] = {}  # what was judged where several could be meant, a sentence a name
        self.replay = Replay(self)
        self.cpu: OnTheCPU | None = None
        self.guess = 0  # which round of guesses this is
        self.berts: list[nn.Module] = []  # those that stand for a BERT with weights
        self.read: list[Tensor] = []  # the ids that these were given

    def enter(self):
        """Prepare this process for their code: from now on `import` finds their modules, not ours."""
        settle()
        for name in [n for n in sys.modules if n.partition(".")[0] in ALWAYS | {"minbert"}]:
            del sys.modules[name]
        builtins.get_ipython = Anything  # a notebook's, in what was exported from one
        theirs = {self.imports.dotted(file)[1].partition(".")[0] for file in self.sources}
        for name in [n for n in sys.modules if n.partition(".")[0] in theirs]:
            del sys.modules[name]  # a `utils` or `config` that something else brought along is not theirs
        ours = Path(__file__).resolve().parents[2]
        sys.path[:] = [*self.imports.path(), *(p for p in sys.path if Path(p or ".").resolve() != ours)]
        sys.argv = [str(next(iter(self.imports.entries), self.root / "a.py"))]
        sys.meta_path.insert(0, Importer(self))
        importlib.invalidate_caches()
        if any(re.search("cuda|mps", file.read_text("utf-8", errors="replace")) for file in self.sources):
            self.cpu = OnTheCPU()
            self.cpu.__enter__()

    # -------------------------------------------------------------------------------------------- importing

    def load(self, file: Path) -> ModuleType:
        """Import a file of theirs."""
        _, dotted = self.imports.dotted(file)
        for name in (dotted, dotted.replace(".", "_") + "_of_" + re.sub(r"\W", "_", str(file.relative_to(self.root)))):
            if name not in sys.modules and name != dotted:
                spec = importlib.util.spec_from_file_location(name, file)
                sys.modules[name] = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(sys.modules[name])
            module = sys.modules.get(name) or importlib.import_module(name)
            if Path(getattr(module, "__file__", None) or "").resolve() == file:
                return module
        raise CannotCheck(f"{file.relative_to(self.root)} cannot be imported by its name")

    def made(self, module: ModuleType):
        """Called when a module of theirs has run; puts stand-ins for what loads files from the hub."""
        for name, value in list(vars(module).items()):
            if not inspect.isclass(value) or value.__module__ != module.__name__:
                continue
            if name in TOKENIZERS:
                setattr(module, name, Words)
            elif name.endswith("Tokenizer") and hasattr(value, "from_pretrained"):
                value.from_pretrained = Words.from_pretrained
            elif name == "BertModel" or (issubclass(value, nn.Module) and hasattr(value, "from_pretrained")):
                value.from_pretrained = classmethod(lambda cls, *args, **options: self.pretrained(cls, *args))
        for name, value in self.replay.of_main(module).items():
            vars(module).setdefault(name, value)

    def pretrained(self, cls: type, name: str = "bert-base-uncased", *others: Any) -> nn.Module:
        """What stands where theirs would load weights."""
        return pretrained(self, cls, str(name))

    def from_hub(self) -> type:
        """What stands for the BertModel of `transformers`."""
        load = classmethod(lambda cls, *args, **options: self.pretrained(cls, *args))
        return type("BertModel", (), {"from_pretrained": load})

    def skips(self, statement: ast.stmt, error: Exception) -> bool:
        """Whether a statement of a module of theirs may be left out because the check cannot run it."""
        if isinstance(statement, ast.Import | ast.ImportFrom | ast.ClassDef | ast.FunctionDef):
            return False
        outcome = Blame(self)(error)
        if "unknown" not in outcome:
            return False
        names = {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        self.skipped |= dict.fromkeys(names, outcome["unknown"])
        return True

    def module(self, name: str) -> ModuleType:
        """Their module of that name, the one in use. Raises Absent if they have none."""
        files = [f for f in self.sources if f.stem == name]
        if not files:
            raise Absent(f"no {name}.py")
        reached = self.imports.reached
        return self.load(min(files, key=lambda f: (f not in reached, f.parent != self.home)))

    def get(self, module: str, name: str) -> Any:
        """Their class or function: the one in use, else that of the usual module. Raises Absent or CannotCheck."""
        places = self.imports.defining(name, module)
        if not places:  # but it may be there, in a file that cannot be read
            there = getattr(self.module(module), name, None)
            if there is None:
                raise Absent(f"no {name}, in {module}.py or elsewhere")
            return there
        file, there = places[0]
        value = getattr(self.load(file), there)
        self.judged[name] = str(file.relative_to(self.root))
        if there != name:
            self.renamed[name] = there
        others = [str(f.relative_to(self.root)) for f, n in places[1:] if any(n == d for d, _ in definitions(f))]
        if others:
            used, unused = self.judged[name], ", ".join(others[:2])
            self.choices[name] = f"{name} is judged as {used} has it, which your scripts use, not as {unused}"
        for base in getattr(value, "__mro__", ())[1:]:
            if stands_for(base) in self.missing:
                raise CannotCheck(
                    f"{name} is built on `{base.__name__}` of `{stands_for(base)}`, which is neither in this folder "
                    "nor installed here",
                    f"Put {stands_for(base)}.py beside it.",
                )
        return value

    def used(self, name: str, seen: type | None) -> type:
        """The class that their model was seen to have in a place, else the one that has its name."""
        if seen is None or seen.__name__ == name:
            return self.get("bert", name)
        file = Path(inspect.getfile(seen))
        if not file.is_relative_to(self.root):
            raise CannotCheck(f"{name} is a {seen.__name__}, which is not code of this project")
        self.judged[name] = str(file.relative_to(self.root))
        self.renamed[name] = seen.__name__
        self.choices[name] = f"in the place of {name} is judged {seen.__name__}, which your model uses there"
        return seen

    # -------------------------------------------------------------------------------------------- what is unwritten

    def unfilled(self) -> Iterator[tuple[str, str, int, str]]:
        """(name, file, line, how) of every method that is still to be written, as far as its source tells.

        how: "raises" NotImplementedError, "empty", or "placeholder": a name that is None and never anything else.
        """
        for file in self.sources:
            for name, node in definitions(file):
                if isinstance(node, ast.FunctionDef) and (how := unfilled(node)):
                    yield name, str(file.relative_to(self.root)), node.lineno, how

    def unwritten(self, owns: Iterable[str]) -> list[tuple[str, str, int]]:
        """(name, file, line) of the methods of a part that are still to be written, in the order of `owns`.

        owns: qualified names, in the files that are judged; or in a file of their own, "bert.py:plain_attention".
        """
        judged, owners, methods = set(self.judged.values()), [o.rpartition(":") for o in owns], []
        for name, file, line, how in self.unfilled():
            mine = (
                number for number, (there, _, own) in enumerate(owners)
                if (name == own or name.startswith(f"{own}."))
                and (Path(file).name == there if there else file in judged or not judged)
            )  # fmt: skip
            number = next(mine, None)
            if number is not None and (how != "empty" or name.split(".")[-1] in WRITTEN or "predict" in name):
                methods.append((number, (name, file, line)))
        return [method for _, method in sorted(methods, key=lambda pair: pair[0])]

    def place(self, name: str) -> tuple[str, int]:
        there = self.layout.locate([name], self.judged.values())
        return there[1:] if there else ("", 0)

    # -------------------------------------------------------------------------------------------- config and flags

    def config(self, rate: str = "hidden_dropout_prob", **sizes: Any) -> Any:
        """A config of these sizes with every name that BERTs ask for: their own BertConfig where it takes them.

        rate: which of the two dropout rates goes into a config with only one (bert-base's two are the same).
        """
        sizes = {**SHAPE, **sizes}
        values = {**OTHERS, **sizes}
        try:
            cls = self.get("config", "BertConfig")
            names = inspect.signature(cls).parameters
            same = {n: k for k, form in SAME.items() for n in names if re.fullmatch(form, n) and n not in sizes}
            if "attention_probs_dropout_prob" not in {*names, *same.values()}:
                same |= {n: rate for n, k in same.items() if k == "hidden_dropout_prob"}
            own = {n: sizes[k] for n, k in same.items()}
            takes_all = any(p.kind is p.VAR_KEYWORD for p in names.values())
            config = cls(**own, **{k: v for k, v in sizes.items() if takes_all or k in names})
        except Exception:  # absent, unfinished, or of another kind
            config = Settings(**values)
        for name, value in values.items():
            if name in sizes or not hasattr(config, name):
                with contextlib.suppress(AttributeError):  # a frozen config of theirs has all that theirs asks for
                    setattr(config, name, value)
        return self.answering(config)

    def answering(self, config: Any) -> Any:
        """The same config, which looks in their sources for a name that it lacks; NoAttribute where none sets it."""
        known, project = type(config), self
        if not hasattr(known, "__getattr__"):

            def __getattr__(self: Any, name: str) -> Any:
                return project.setting(name)

            answering = type(known.__name__, (known,), {"__getattr__": __getattr__, "__module__": __name__})
            with contextlib.suppress(TypeError):  # one with slots
                object.__setattr__(config, "__class__", answering)
        return config

    def setting(self, name: str) -> Any:
        """The value of a config's field that their sources set somewhere, or that is a flag of theirs."""
        if is_magic(name):
            raise AttributeError(name)
        for file, value in self._assigned(name):
            try:
                return eval(compile(ast.Expression(value), str(file), "eval"), vars(self.load(file)))
            except Exception:
                continue
        if (value := getattr(self.flags(), name, self)) is not self:
            return value
        raise NoAttribute(
            f"it reads `config.{name}`, which the course's config does not have and no line of yours sets",
            f"Give `{name}` a default in the config's class.",
        )

    def _assigned(self, name: str) -> Iterator[tuple[Path, ast.expr]]:
        """(file, expression) of what is assigned to a config's field of that name."""
        for file in self.imports.reached or self.sources:
            for node in nodes(file):
                if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
                    if node.targets[0].attr == name and re.search(r"(?i)conf|cfg", ast.unparse(node.targets[0].value)):
                        yield file, node.value
                elif isinstance(node, ast.Call) and re.search(r"(?i)conf|namespace|dict", ast.unparse(node.func)):
                    yield from ((file, k.value) for k in node.keywords if k.arg == name)
                elif isinstance(node, ast.Dict):
                    pairs = zip(node.keys, node.values, strict=True)
                    yield from ((file, v) for k, v in pairs if isinstance(k, ast.Constant) and k.value == name)

    def flags(self, file: Path | None = None) -> Flags:
        """What the parser of a script of theirs gives without arguments, with the course's flags beside it."""
        course = {
            "seed": 11711, "epochs": 1, "option": "finetune", "fine_tune_mode": "full-model", "use_gpu": False,
            "batch_size": 2, "hidden_dropout_prob": 0.3, "lr": 1e-5, "filepath": "model.pt", "local_files_only": True,
        }  # fmt: skip
        values: dict[str, Any] = {}
        scripts = [file] if file else []
        for script in [*scripts, *(f for f in self.imports.entries if f not in scripts)]:
            values = {**vars(self.replay.parser(script)), **values}
        choice = {"option": "finetune", "fine_tune_mode": "full-model", "use_gpu": False, "batch_size": 2}
        return Flags(**{**course, **values, **{k: v for k, v in choice.items() if k in values}})
