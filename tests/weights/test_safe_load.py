"""minbert/files.py, safe_load: plain data of every kind is read, nothing in a file is run, and all else is one line."""

import argparse
import collections
import datetime
import os
import pathlib
import pickle
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from torch import nn

from minbert.config import BertConfig
from minbert.errors import UserError
from minbert.files import Unread, safe_load
from minbert.pretrained import load_bert

HARMLESS = {
    "a namespace": argparse.Namespace(lr=1e-5, betas=(0.9, 0.999)),
    "another namespace": types.SimpleNamespace(hidden_size=768, num_labels={0: 0}),
    "a path": pathlib.Path("runs/best.pt"),
    "a Windows path": pathlib.PureWindowsPath("C:/runs/best.pt"),
    "a set": {1, 2},
    "a frozen set": frozenset([1]),
    "a dict with a default": collections.defaultdict(list, {"loss": [0.5]}),
    "a queue": collections.deque([1, 2], maxlen=5),
    "a counter": collections.Counter("abc"),
    "a date": datetime.datetime(2024, 3, 14, tzinfo=datetime.UTC),
    "a duration": datetime.timedelta(seconds=1),
    "a range": range(3),
    "bytes": b"x",
    "a type": argparse.Namespace(kind=int),
    "PyTorch's version": torch.__version__,
    "a device": torch.device("cpu"),
    "a number type": torch.float16,
    "transformers' config": transformers.BertConfig(num_attention_heads=6),
    "our config": BertConfig(num_attention_heads=6),
}
STAND_FOR = {"a queue": [1, 2], "a dict with a default": {"loss": [0.5]}, "PyTorch's version": str(torch.__version__)}


@pytest.mark.parametrize("kind", HARMLESS)
def test_plain_data_beside_the_weights_is_read(tmp_path, kind):
    value = HARMLESS[kind]
    torch.save({"w": torch.ones(2), "beside": value}, tmp_path / "x.pt")
    again = safe_load(tmp_path / "x.pt")["beside"]
    if "config" in kind:
        assert again.num_attention_heads == 6 and type(again) is types.SimpleNamespace
    elif isinstance(value, pathlib.PurePath):
        assert str(again) == str(value) and type(again).__name__.startswith("Pure")
    else:
        assert again == STAND_FOR.get(kind, value)


@pytest.mark.parametrize(
    "value",
    [
        np.float64(0.5), np.float32(0.5), np.int64(3), np.bool_(True), np.str_("x"), np.datetime64("2024-03-14"),
        np.arange(3.0), np.array(["a", "b"]), np.array([{"a": 1}], dtype=object), np.dtype("f4"), np.zeros(2, "i4,f8"),
    ],
    ids=repr,
)  # fmt: skip
def test_what_numpy_made_is_passed_over(tmp_path, value):
    """Nobody needs it. An array that is made as a file says can point anywhere in memory, so none is made."""
    torch.save({"w": torch.ones(2), "beside": value, "rng": np.random.get_state()}, tmp_path / "x.pt")
    saved = safe_load(tmp_path / "x.pt")
    assert torch.equal(saved["w"], torch.ones(2)) and type(saved["beside"]) is Unread
    assert saved["rng"][0] == "MT19937" and type(saved["rng"][1]) is Unread


@pytest.mark.parametrize("name", ["PosixPath", "WindowsPath"])
@pytest.mark.parametrize("module", ["pathlib", "pathlib._local"])
def test_a_path_of_another_system_and_of_a_later_python_is_read(tmp_path, monkeypatch, module, name):
    """A WindowsPath cannot be made here, and Python 3.13 keeps the classes in another module."""
    file, kind = tmp_path / "x.pt", type(name, (type(tmp_path),), {"__module__": module})
    monkeypatch.setitem(sys.modules, module, pathlib)
    monkeypatch.setattr(pathlib, name, kind)
    torch.save({"path": kind("a", "b")}, file)
    monkeypatch.undo()
    assert f"{module}\n{name}".encode() in file.read_bytes()
    assert safe_load(file)["path"].parts == ("a", "b")


# ---------------------------------------------------------------------------------------------- refused


class Hostile:
    """Unpickled carelessly, it makes a file."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_hostile_pickle_is_refused_and_not_run(tmp_path, zipped):
    path, trace = tmp_path / "model.pt", tmp_path / "trace"
    torch.save({"model": Hostile(trace)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"model\.pt: refused.*system") as caught:
        safe_load(path)
    assert "\n" not in str(caught.value) and not trace.exists()
    torch.load(path, weights_only=False)  # the trap works
    assert trace.exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_plain_pickle_is_refused(tmp_path):
    (tmp_path / "model.pt").write_bytes(pickle.dumps({"model": Hostile(tmp_path / "trace")}))
    with pytest.raises(UserError, match="refused"):
        safe_load(tmp_path / "model.pt")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_cut_anywhere_is_one_line(tmp_path, zipped):
    path = tmp_path / "model.pt"
    torch.save({"a": torch.ones(3, 4), "b": torch.zeros(5)}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    assert set(safe_load(path)) == {"a", "b"}
    for length in range(0, len(whole) - 1, 9):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"model\.pt") as caught:
            safe_load(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"hello", b"<!DOCTYPE html>", b"PK\3\4" + b"x" * 99, bytes(range(256))])
def test_what_is_no_checkpoint_is_one_line(tmp_path, content):
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(UserError, match=r"model\.pt") as caught:
        safe_load(tmp_path / "model.pt")
    assert "\n" not in str(caught.value)


def test_a_lone_tensor_is_no_table_of_weights(tmp_path):
    torch.save(torch.ones(3), tmp_path / "model.pt")
    with pytest.raises(UserError, match="holds a Tensor"):
        safe_load(tmp_path / "model.pt")


class Mine:
    """A class of a student's own, among what is saved."""


@pytest.mark.parametrize(
    "value",
    [
        Mine(),
        nn.Linear(2, 2),
        os.system,
        getattr,
        eval,
        subprocess.Popen,
        pathlib.Path.read_text,
        np.random.default_rng(0),
    ],
    ids=["an object", "a module", "os.system", "getattr", "eval", "Popen", "a method", "a generator"],
)
def test_what_could_run_code_is_refused_by_name(tmp_path, value):
    torch.save({"w": torch.ones(2), "beside": value}, tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"x\.pt: refused, it holds \S+, which could run code") as caught:
        safe_load(tmp_path / "x.pt")
    assert "\n" not in str(caught.value)


class Student(nn.Module):
    def __init__(self, bert: nn.Module):
        super().__init__()
        self.bert, self.head = bert, nn.Linear(16, 5)


def test_a_whole_model_is_refused_and_the_advice_works(tiny, tmp_path):
    """torch.save(model) instead of torch.save(model.state_dict()): the commonest mistake of all."""
    model = Student(load_bert(tiny))
    torch.save(model, tmp_path / "model.pt")
    with pytest.raises(
        UserError, match=r"holds \S*Student, which could run code; save the weights alone, by torch\.save"
    ):
        safe_load(tmp_path / "model.pt")
    torch.save(model.state_dict(), tmp_path / "model.pt")
    bert = load_bert(tmp_path / "model.pt", num_attention_heads=2)
    assert torch.equal(bert.word_embedding.weight, model.bert.word_embedding.weight)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_torchscript_program_is_refused(tmp_path):
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), tmp_path / "x.pt")
    with pytest.raises(UserError, match="a TorchScript program"):
        safe_load(tmp_path / "x.pt")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_another_pickle_protocol_is_refused_and_the_advice_named(tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "x.pt", pickle_protocol=4)
    with pytest.raises(UserError, match=r"refused.*torch\.save\(model\.state_dict\(\), PATH\)"):
        safe_load(tmp_path / "x.pt")


def test_one_flipped_bit_in_a_checkpoint_is_noticed(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"model": {"w": torch.arange(1000.0)}}, path)
    whole = path.read_bytes()
    middle = whole.index(torch.arange(500.0, 510.0).numpy().tobytes())
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 0x40]) + whole[middle + 1 :])
    with pytest.raises(UserError, match="checksum"):
        safe_load(path)
    path.write_bytes(whole)
    assert "model" in safe_load(path)
