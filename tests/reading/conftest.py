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
from tests.run.crashes import script_in_a_process

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
    """A function that runs `python -m MODULE …` and returns status, stdout and stderr.

    In a copy of this process, which has PyTorch loaded, and where there is no fork, in a new one.
    """

    def run(module: str, *words: str) -> tuple[int, str, str]:
        if not hasattr(os, "fork"):
            return in_a_new_process(module, *words)
        return script_in_a_process(ROOT, module, [*map(str, words)])

    return run


def in_a_new_process(module: str, *words: str, folder: Path = ROOT) -> tuple[int, str, str]:
    """`python -m MODULE …` as a user starts it, with the sources in `folder`: status, stdout and stderr."""
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-m", module, *map(str, words)]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8")
    return result.returncode, result.stdout, result.stderr
