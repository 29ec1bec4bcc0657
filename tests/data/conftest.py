"""data/download.py as a module, and the file that it is to fetch in the tests."""

import hashlib
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "data" / "download.py"
NAME = "sts-dev.csv"
BODY = "".join(f"{i}\té{i * i}\n" for i in range(40_000)).encode()  # several chunks long


def blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@pytest.fixture
def download(monkeypatch) -> ModuleType:
    """The script as a module, which wants BODY for NAME and does not wait between its tries."""
    spec = importlib.util.spec_from_file_location("download", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "PAUSE", 0)
    monkeypatch.setitem(module.BLOB_IDS, NAME, blob_id(BODY))
    return module
