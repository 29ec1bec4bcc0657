"""What several tests share: the real data where they are, the sample data, and a tiny BERT with real files."""

import gc
import os
from pathlib import Path

import pytest
import torch

from minbert.bert import BertModel
from minbert.config import BertConfig
from minbert.data import read_examples
from minbert.errors import UserError
from minbert.pretrained import save_pretrained
from minbert.tasks import TASKS
from minbert.tokenizer import SPECIAL, BertTokenizer

ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TQDM_DISABLE", "1")

torch.set_num_threads(1)  # the models here are tiny; more threads only wait for one another


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also the tests marked slow, which are left out otherwise")


def pytest_collection_modifyitems(config, items):
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow and not config.getoption("--slow"):
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in set(slow)]


def pytest_collection_finish():
    gc.collect()
    gc.freeze()  # the modules: neither this process nor a copy of it looks through them again


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the course's files, named by the environment variable MINBERT_DATA."""
    folder = os.environ.get("MINBERT_DATA")
    if not folder:
        pytest.skip("MINBERT_DATA does not name a folder of the course's files")
    return Path(folder)


@pytest.fixture(scope="session")
def sample() -> Path:
    """The folder of our own small files."""
    return ROOT / "data" / "sample"


@pytest.fixture(scope="session")
def few(sample, tmp_path_factory) -> Path:
    """The same files with their first 20 rows: a run has soon read them and predicted them."""
    folder = tmp_path_factory.mktemp("few")
    for file in sample.glob("*.csv"):
        lines = file.read_text("utf-8").splitlines(keepends=True)
        (folder / file.name).write_text("".join(lines[:21]), "utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory, sample) -> Path:
    """A weights directory: a random BERT of 2 layers, 16 wide, whose vocabulary is the sample data's words."""
    folder = tmp_path_factory.mktemp("tiny")
    words = set()
    for file in sorted(sample.glob("*.csv")):
        words |= set("".join(c if c.isalnum() else " " for c in file.read_text("utf-8").lower()).split())
    letters = [chr(c) for c in range(33, 127)]
    vocab = [*SPECIAL, *letters, *(f"##{c}" for c in letters), *sorted(w for w in words if len(w) > 1)]
    config = BertConfig(
        vocab_size=len(vocab), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=128,
    )  # fmt: skip
    torch.manual_seed(1)
    save_pretrained(BertModel(config), BertTokenizer(vocab), folder)
    return folder


@pytest.fixture
def refusal(capsys):
    """A function that runs a script's `main`, which must fail, and returns its one line of complaint."""

    def refuse(main, argv: list[str]) -> str:
        with pytest.raises(SystemExit) as stop:
            main(argv)
        text = stop.value.code if isinstance(stop.value.code, str) else capsys.readouterr().err
        assert stop.value.code not in (0, None)
        lines = text.strip().splitlines()
        assert len(lines) == 1 and lines[0].startswith("error: "), text
        return lines[0]

    return refuse


@pytest.fixture
def read(tmp_path):
    """Write a text or bytes to bad.csv, and read it as a task's file (SST's unless said)."""

    def read(content: bytes | str, task=TASKS["sst"], **options):
        path = tmp_path / "bad.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_examples(path, task, **options)

    return read


@pytest.fixture
def refused(read):
    """Read as `read` does a file that must be refused; the message, which is one line and names the file."""

    def refused(content: bytes | str, task=TASKS["sst"], **options) -> str:
        with pytest.raises(UserError) as caught:
            read(content, task, **options)
        message = str(caught.value)
        assert "\n" not in message and "bad.csv" in message and len(message) < 600
        return message

    return refused
