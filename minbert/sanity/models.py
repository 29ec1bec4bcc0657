"""Their models for the tasks: which class it is, and how their own script builds it.

Each has a BERT inside that needs no download: theirs with seeded weights if it gives what the right one gives, else
the right one. It is as wide as bert-base, because the starter writes 768 here and there, and has 12 layers, of which
11 return their input.
"""

import inspect
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from minbert.config import BertConfig
from minbert.sanity.core import CannotCheck, copy_by_name, fill
from minbert.sanity.evidence import NoAttribute
from minbert.sanity.forms import COURSE, Forms, Instead, both
from minbert.sanity.library import BertModel
from minbert.sanity.source import called, definitions, is_magic
from minbert.sanity.starter import Encoding, Settings

METHODS = {"sst": "predict_sentiment", "para": "predict_paraphrase", "sts": "predict_similarity"}
SINGLE = ("BertSentimentClassifier", "BertSentClassifier")
SIZES = {"bert-large": (1024, 16)}  # (width, heads); all others are as bert-base, 768 and 12
GUESSES = ((None, 8), (8, 24))  # for a config's field that the check cannot know; the second pair tests the first
TRAINED = {"pretrain": "finetune", "freeze": "finetune", "last-linear-layer": "full-model"}
NUM_LABELS = {k: k for k in range(5)}  # as load_multitask_data gives it

# ------------------------------------------------------------------------------------------------ the BERT inside


class Output(Encoding):
    """What BERT returns: by key as the course's, by attribute and by number as that of `transformers`."""

    of = "BERT's output"

    def __missing__(self, key: Any) -> Any:
        return self[("last_hidden_state", "pooler_output")[key]] if key in (0, 1) else super().__missing__(key)


class RightBert(BertModel):
    """The right BERT. It raises CannotCheck where code asks it for what the course's does not have."""

    dtype, device = torch.float32, torch.device("cpu")

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if is_magic(name):
                raise
        raise NoAttribute(f"it asks BERT for `{name}`, which the course's BertModel does not have")

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, *types: Any, **options: Any) -> Output:
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        known = {k: v for k, v in options.items() if k == "token_type_ids"}
        if any(not isinstance(value, Tensor) for value in types):
            raise CannotCheck("it calls BERT with a third argument, which the course's BertModel does not take")
        if unknown := [k for k in options if k not in ("token_type_ids", "return_dict", "output_hidden_states")]:
            raise CannotCheck(f"it calls BERT with `{unknown[0]}`, which the course's BertModel does not take")
        return Output(super().forward(input_ids, mask, *types, **known))


class Through(Instead, nn.Module):
    """A layer that returns its input; its other attributes are those of the layer that it stands for."""

    def forward(self, *args: Any, **options: Any) -> Any:
        return self.form.like(self.form.taken(args, options)[0])


def little(C: int, H: int, layers: int = 1) -> RightBert:
    """A right BERT with seeded weights, of which only the first layer does anything."""
    config = BertConfig(
        vocab_size=20, hidden_size=C, num_hidden_layers=layers, num_attention_heads=H, intermediate_size=16,
        max_position_embeddings=64, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1,
    )  # fmt: skip
    with uninitialised():
        model = RightBert(config)
    for number in range(1, layers):
        model.bert_layers[number] = Through().stand_for(model.bert_layers[number], COURSE)
    return fill(model, scale=0.05).eval()


@contextmanager
def uninitialised():
    """Inside, weights cost no time to make: they are zeros, for which the system needs memory only when used."""
    real = [(owner, "reset_parameters", owner.reset_parameters) for owner in (nn.Linear, nn.Embedding)]
    real += [(Tensor, name, getattr(Tensor, name)) for name in ("normal_", "uniform_")]

    kept = []  # freed memory would be given out again, and would have to be set to zero first

    def zeros(tensor: Any, *args: Any, **options: Any) -> Any:
        if isinstance(tensor, nn.Parameter) and tensor.dtype == torch.float32:
            kept.append(tensor.data)
            tensor.data = torch.from_numpy(np.zeros(tuple(tensor.shape), np.float32))
        elif isinstance(tensor, Tensor):
            tensor.zero_()
        return tensor

    try:
        for owner, name, _ in real:
            setattr(owner, name, zeros)
        yield
    finally:
        for owner, name, function in real:
            setattr(owner, name, function)


@torch.no_grad()
def pretrained(project: Any, cls: type, name: str) -> nn.Module:
    """What stands where theirs would load weights: their own class if it is right, else the right one."""
    C, H = next((sizes for start, sizes in SIZES.items() if name.startswith(start)), (768, 12))
    right = little(C, H, layers=12)
    with suppress(Exception):  # still to be written, or wrong, which is another part's matter
        with uninitialised():
            theirs = cls(project.config(**vars(right.config)))
        seen = Forms(theirs)
        for number in range(1, 12):
            theirs.bert_layers[number] = Through().stand_for(theirs.bert_layers[number], seen.layer)
        copy_by_name(right, fill(theirs, scale=0.05)).eval()
        ids, mask = torch.tensor([[2, 7, 8, 3], [2, 9, 3, 0]]), torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
        (hidden, pooled), (a, b) = both(right(ids, mask)), both(theirs(ids, mask))
        if torch.allclose(hidden[mask.bool()], a[mask.bool()], atol=1e-4) and torch.allclose(pooled, b, atol=1e-4):
            right = theirs
    project.berts.append(right)
    right.register_forward_pre_hook(lambda module, args, options: _note_ids(project, args, options), with_kwargs=True)
    return right


def _note_ids(project: Any, args: tuple, options: dict[str, Any]):
    ids = next((v for v in (*args, *options.values()) if isinstance(v, Tensor) and v.dim() == 2), None)
    if ids is not None:
        project.read.append(ids)


# ------------------------------------------------------------------------------------------------ which class it is


def multitask_class(project: Any) -> type:
    """The class with the three predict_… methods that their script builds, else MultitaskBERT. Raises Absent."""
    names = {
        name.rpartition(".")[0] for file in project.sources for name, _ in definitions(file)
        if name.rpartition(".")[2] in METHODS.values() and name.count(".") == 1
    }  # fmt: skip
    built = [called(call) for file in project.imports.reached for call, _ in project.replay.calls(file, lambda c: True)]
    chosen = next((name for name in built if name in names), None)
    if chosen is None:
        chosen = "MultitaskBERT" if "MultitaskBERT" in names else next(iter(sorted(names)), "MultitaskBERT")
    project.renamed["MultitaskBERT"] = chosen
    return project.get("multitask_classifier", chosen)


def single_class(project: Any) -> type:
    """classifier.py's class for one data set. Raises Absent."""
    name = next((name for name in SINGLE if project.imports.defining(name)), SINGLE[0])
    return project.get("classifier", name)


# ------------------------------------------------------------------------------------------------ building it


class Config(Settings):
    """A config for their model. A field that no line sets is `_other`, or a rate if its name says so, with a note."""

    __slots__ = ("_other", "_project")  # not among its fields

    def __getattr__(self, name: str) -> Any:
        if is_magic(name) or name.startswith("_"):
            raise AttributeError(name)
        try:
            return self._project.setting(name)
        except NoAttribute as reason:
            self._project.notes.append(reason)
            return 0.3 if "drop" in name else self._other

    def __deepcopy__(self, memo: dict) -> "Config":
        return _config_of(self._project, self._other, **vars(self))

    __copy__ = __deepcopy__


def _config_of(project: Any, other: Any, **fields: Any) -> Config:
    config = Config(**fields)
    config._project, config._other = project, other
    return config


def build(project: Any, cls: type, labels: tuple) -> nn.Module:
    """Their module, built as their own script builds it. labels: what num_labels may be, one after the other."""
    failed: Exception | None = None
    takes = [p for p in inspect.signature(cls).parameters.values() if p.default is p.empty and p.kind < 2]
    for file in project.imports.reached:
        for call, path in project.replay.calls(file, lambda c: called(c) == cls.__name__):
            try:
                args, options = project.replay.arguments(file, call, path, project.replay.known(file))
            except Exception:
                continue
            try:
                return cls(*[_config(project, a) for a in args], **{k: _config(project, v) for k, v in options.items()})
            except NotImplementedError:
                raise
            except Exception as error:
                failed = error
    if not takes and failed is None:
        return cls()
    for other in GUESSES[min(project.guess, 1)]:
        for num_labels in labels:
            before = len(project.notes)
            config = _course_config(project, num_labels, other)
            try:
                return cls(config)
            except NotImplementedError:
                raise
            except Exception as error:
                failed = failed or error
                if len(project.notes) == before and num_labels is labels[-1]:
                    raise failed from None
                if other is not GUESSES[min(project.guess, 1)][-1] or num_labels is not labels[-1]:
                    del project.notes[before:]
    raise failed


def _course_config(project: Any, num_labels: Any, other: Any) -> Config:
    return _config_of(
        project, other, hidden_dropout_prob=0.3, num_labels=num_labels, hidden_size=768, data_dir=".",
        option="finetune", fine_tune_mode="full-model",
    )  # fmt: skip


def _config(project: Any, value: Any) -> Any:
    """An argument of theirs: a namespace as a config that answers, BERT to be trained rather than frozen."""
    if not isinstance(value, dict) and type(value).__name__ not in ("SimpleNamespace", "Namespace", "Flags"):
        return value
    fields = value if isinstance(value, dict) else vars(value)
    fields = {k: TRAINED.get(v, v) if isinstance(v, str) else v for k, v in fields.items()}
    if isinstance(value, dict):
        return fields
    config = _course_config(project, NUM_LABELS, GUESSES[min(project.guess, 1)][0])
    vars(config).update(fields)
    return config
