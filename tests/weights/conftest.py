"""A local hub with a tiny model and an empty cache, for the tests that fetch."""

import tempfile
from pathlib import Path

import pytest
from huggingface_hub import constants

from tests.weights.local_hub import serve


@pytest.fixture
def files(tiny) -> dict[str, bytes]:
    """What the hub's model consists of, as for bert-base-uncased: both files of weights, and much else."""
    files = {path.name: path.read_bytes() for path in tiny.iterdir()}
    return files | {"pytorch_model.bin": b"not asked for", "tf_model.h5": b"nor this", "README.md": b"nor this"}


@pytest.fixture
def server(files):
    with serve(files) as server:
        yield server


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Point huggingface_hub, in this process, to a server and to an empty cache."""

    def point(url: str) -> Path:
        monkeypatch.setattr(constants, "ENDPOINT", url)
        template = url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        return tmp_path / "hub"

    return point
