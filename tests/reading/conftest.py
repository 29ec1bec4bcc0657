"""What the tests of the lesson share: weights whose dimensions all differ, and programs as users start them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from minbert.bert import BertModel
from minbert.config import BertConfig
from minbert.pretrained import save_pretrained
from minbert.tokenizer import SPECIAL, BertTokenizer

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def odd(tmp_path_factory) -> Path:
    """A weights directory: a random BERT whose layers, heads and widths all differ, with the vocabulary of letters."""
    letters = [chr(c) for c in range(33, 127)]
    vocab = [*SPECIAL, *letters, *(f"##{c}" for c in letters)]
    config = BertConfig(
        vocab_size=len(vocab), hidden_size=24, num_hidden_layers=5, num_attention_heads=6, intermediate_size=40,
        max_position_embeddings=128,
    )  # fmt: skip
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("odd")
    save_pretrained(BertModel(config), BertTokenizer(vocab), folder)
    return folder


@pytest.fixture(scope="session")
def program():
    """A function that runs `python -m MODULE …` in a folder (this project's) and returns status, stdout and stderr."""

    def run(*words: str, folder: Path = ROOT) -> tuple[int, str, str]:
        environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
        result = subprocess.run(
            [sys.executable, "-m", *map(str, words)], cwd=folder, env=environment, capture_output=True, encoding="utf-8"
        )
        return result.returncode, result.stdout, result.stderr

    return run
