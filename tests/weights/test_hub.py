"""minbert/hub.py against a hub on this machine: what is fetched, in which order, and what every failure says."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from minbert.bert import BertModel
from minbert.errors import one_line_errors
from minbert.hub import find
from minbert.pretrained import load_bert, load_tokenizer
from tests.weights.local_hub import REPO, serve
from tests.weights.oracle_bert import refusal

ROOT = Path(__file__).resolve().parents[2]
BASIS = {"config.json", "vocab.txt", "tokenizer_config.json"}


def same_weights(one: BertModel, other: BertModel) -> bool:
    return all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())


# ---------------------------------------------------------------------------------------------- what is fetched


def test_what_the_hub_holds_is_what_is_loaded_and_the_cache_answers_next(server, here, tiny):
    here(server.url)
    assert same_weights(load_bert(REPO), load_bert(tiny))
    assert server.fetched() == {*BASIS, "model.safetensors"}  # and nothing else
    asked = len(server.seen)
    assert load_tokenizer(REPO).vocab == load_tokenizer(tiny).vocab
    assert load_bert(REPO, local_files_only=True) and len(server.seen) == asked


CHILD = f"""
from minbert.errors import one_line_errors
from minbert.pretrained import load_bert, load_tokenizer
with one_line_errors():
    print(load_bert({REPO!r}).config.vocab_size, load_tokenizer({REPO!r}).vocab_size)
"""


def child(**settings: str) -> subprocess.CompletedProcess:
    """Load REPO in a process of its own."""
    env = {key: value for key, value in os.environ.items() if key != "HF_TOKEN"} | settings
    return subprocess.run([sys.executable, "-c", CHILD], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)


def test_a_fetched_model_is_there_when_the_hub_is_gone(files, tmp_path):
    settings = {"HF_HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path)}
    with serve(files) as server:
        settings["HF_ENDPOINT"] = server.url
        first = child(**settings)
    second = child(**settings)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert first.stdout == second.stdout != ""


@pytest.mark.parametrize("name", ["model.safetensors", "vocab.txt", "config.json"])
def test_a_cached_file_that_changed_on_disk_is_refused_and_the_advice_works(server, here, tiny, name):
    here(server.url)
    folder = find(REPO)
    blob = (folder / name).resolve()
    os.utime(blob)  # without a change of the content, nothing happens
    assert find(REPO) == folder
    blob.write_bytes(server.files[name][:-2] + b"  ")
    message = refusal(lambda: find(REPO))
    assert str(folder / name) in message
    shutil.rmtree(re.search(r"remove (\S+) and", message)[1])
    expected = load_bert(tiny).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in load_bert(REPO).state_dict().items())


def test_a_model_whose_files_are_only_pickles(server, here, tiny, tmp_path):
    here(server.url)
    del server.files["model.safetensors"]
    torch.save(load_file(tiny / "model.safetensors"), tmp_path / "weights.bin")
    server.files["pytorch_model.bin"] = (tmp_path / "weights.bin").read_bytes()
    assert same_weights(load_bert(REPO), load_bert(tiny))


def test_weights_in_several_files(server, here, tiny, tmp_path):
    here(server.url)
    del server.files["model.safetensors"], server.files["pytorch_model.bin"]
    weights = load_file(tiny / "model.safetensors")
    index = {}
    for number, name in enumerate(sorted(weights)):
        index[name] = f"model-0000{number % 3}.safetensors"
    for file in set(index.values()):
        save_file({name: weights[name] for name in index if index[name] == file}, tmp_path / file)
        server.files[file] = (tmp_path / file).read_bytes()
    server.files["model.safetensors.index.json"] = json.dumps({"weight_map": index}).encode()
    assert same_weights(load_bert(REPO), load_bert(tiny))
    assert server.fetched() == {*BASIS, "model.safetensors.index.json", *index.values()}
    asked = len(server.seen)
    assert load_bert(REPO) and len(server.seen) == asked
    (find(REPO) / "model-00001.safetensors").resolve().unlink()  # then the cache is not complete
    assert same_weights(load_bert(REPO), load_bert(tiny)) and len(server.seen) > asked


@pytest.mark.parametrize("inner", ["", "0_BERT"])
def test_a_sentence_transformers_model_has_its_bert_where_modules_json_says(server, here, tiny, inner):
    here(server.url)
    module = {"idx": 0, "name": "0", "path": inner, "type": "sentence_transformers.models.BERT"}
    pooling = {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
    if inner:
        for name in (*BASIS, "model.safetensors"):
            server.files[f"{inner}/{name}"] = server.files.pop(name)
        server.files["config.json"] = b'{"__version__": "0.2.0"}'  # sentence-transformers' own, of 2019
    server.files["modules.json"] = json.dumps([module, pooling]).encode()
    assert same_weights(load_bert(REPO), load_bert(tiny))
    assert load_tokenizer(REPO).vocab == load_tokenizer(tiny).vocab
    assert "pytorch_model.bin" not in server.fetched()


# ---------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("entry", [{"model_type": "distilbert"}, {"hidden_act": "relu"}, {"is_decoder": True}])
def test_another_architecture_is_refused_before_its_weights_are_fetched(server, here, entry):
    here(server.url)
    server.files["config.json"] = json.dumps(json.loads(server.files["config.json"]) | entry).encode()
    assert next(iter(entry)) in refusal(lambda: find(REPO))
    assert server.fetched() == {"config.json"}


@pytest.mark.parametrize(
    ("absent", "said"),
    [
        (["model.safetensors", "pytorch_model.bin"], "tf_model.h5 (TensorFlow's), which this program does not read"),
        (["vocab.txt"], "holds no vocabulary"),
        (["config.json"], "has no config.json"),
    ],
)
def test_a_model_that_lacks_something_is_refused_before_its_weights_are_fetched(server, here, absent, said):
    here(server.url)
    for name in absent:
        del server.files[name]
    assert said in refusal(lambda: find(REPO))
    assert server.fetched() <= {"config.json"}


def test_a_wrong_digest(server, here):
    cache = here(server.url)
    content, claimed = server.files["model.safetensors"], "ab" * 32
    server.claims["model.safetensors"] = claimed
    message = refusal(lambda: find(REPO))
    assert hashlib.sha256(content).hexdigest() in message and claimed in message and "model.safetensors" in message
    assert len(content) not in {path.stat().st_size for path in cache.rglob("*") if path.is_file()}  # nothing stays
    del server.claims["model.safetensors"]
    assert (find(REPO) / "model.safetensors").exists()  # so the next try is a fresh one


def test_a_download_cut_short(server, here, monkeypatch):
    here(server.url)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between the retries
    server.cut = True
    message = refusal(lambda: find(REPO))
    assert REPO in message and "broke off" in message and "try again" in message
    server.cut = False
    assert (find(REPO) / "model.safetensors").read_bytes() == server.files["model.safetensors"]


def test_a_name_that_the_hub_does_not_know(server, here):
    here(server.url)
    message = refusal(lambda: find("someone/unknown"))
    assert "someone/unknown" in message and "no model of that name" in message


def test_a_private_model(server, here):
    here(server.url)
    server.private = True
    assert "keeps it private" in refusal(lambda: find(REPO))


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
    line = left.value.code
    assert line.startswith("error: --pretrained bert-base-uncased") and "\n" not in line
    assert "--pretrained minilm" in line and "--pretrained DIR" in line


def test_local_files_only_asks_nobody(server, here):
    here(server.url)
    for name in (REPO, "minilm"):
        assert "local_files_only" in refusal(lambda name=name: load_bert(name, local_files_only=True))
        assert "local_files_only" in refusal(lambda name=name: load_tokenizer(name, local_files_only=True))
    assert server.seen == []


@pytest.mark.parametrize(("status", "said"), [(429, "too many requests"), (503, "503"), (403, "403")])
def test_what_the_hub_answers_is_said_in_one_line(server, here, status, said):
    here(server.url)
    server.status = status
    assert said in refusal(lambda: find(REPO))


# ---------------------------------------------------------------------------------------------- tokens, certificates


def test_a_token_that_the_hub_refuses_does_not_keep_a_public_model_away(server, here, monkeypatch, capsys):
    here(server.url)
    server.refuses_tokens = True
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    assert (find(REPO) / "model.safetensors").exists()
    assert "refuses the token of HF_TOKEN" in capsys.readouterr().err


def test_a_token_that_the_hub_refuses_is_named_where_a_model_is_private(server, here, monkeypatch, capsys):
    here(server.url)
    server.refuses_tokens = server.private = True
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    assert "keeps it private" in refusal(lambda: find(REPO))
    assert "refuses the token of HF_TOKEN" in capsys.readouterr().err


@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl to make a certificate with")
def test_a_certificate_that_is_not_trusted_and_the_advice_for_it(files, tmp_path):
    pem = tmp_path / "both.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    )
    command += f" -keyout {pem} -out {tmp_path / 'certificate.pem'}"
    subprocess.run(command.split(), check=True, capture_output=True)
    pem.write_text(pem.read_text() + (tmp_path / "certificate.pem").read_text())
    with serve(files, pem) as server:
        settings = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
        distrusted = child(**settings)
        assert distrusted.returncode == 1 and distrusted.stderr.count("\n") == 1, distrusted.stderr
        variable = "SSL_CERT_FILE" if huggingface_hub.__version__ >= "1" else "REQUESTS_CA_BUNDLE"
        assert "certificate is not trusted" in distrusted.stderr and variable in distrusted.stderr
        trusted = child(**settings, **{variable: str(tmp_path / "certificate.pem")})
        assert trusted.returncode == 0, trusted.stderr


def test_a_certificate_file_that_is_not_there_is_named(files, tmp_path):
    settings = {"HF_HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "HF_ENDPOINT": "https://127.0.0.1:1"}
    result = child(**settings, SSL_CERT_FILE="/absent.pem", REQUESTS_CA_BUNDLE="/absent.pem")
    assert result.returncode == 1 and result.stderr.count("\n") == 1 and "/absent.pem" in result.stderr


def test_a_socks_proxy_without_its_package_is_one_line(tmp_path):
    result = child(ALL_PROXY="socks5://127.0.0.1:9", HF_HOME=str(tmp_path), XDG_CACHE_HOME=str(tmp_path))
    assert result.returncode == 1 and result.stderr.count("\n") == 1 and "Traceback" not in result.stderr


def test_hf_transfer_that_is_asked_for_but_not_installed_is_done_without(server, here, monkeypatch):
    here(server.url)
    monkeypatch.setattr(constants, "HF_HUB_ENABLE_HF_TRANSFER", True, raising=False)  # read by huggingface_hub below 1
    assert (find(REPO) / "model.safetensors").exists()
    assert constants.HF_HUB_ENABLE_HF_TRANSFER is False
