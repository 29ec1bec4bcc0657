"""The small programs in `examples/` run as they stand, in an empty folder, and are short."""

import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent / "examples").glob("*.py"))


def run(name: str, monkeypatch, capsys, *arguments: str) -> str:
    """What a program prints."""
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(Path(__file__).parent / "examples" / f"{name}.py"), run_name="__main__")
    return capsys.readouterr().out


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_program_has_at_most_twelve_lines_of_code(path):
    lines = [
        line for line in path.read_text("utf-8").splitlines() if line.strip() and not line.startswith(('"""', "#"))
    ]
    assert len(lines) <= 12


SAID = {  # what a program prints, among other things
    "attention_maps": "river",
    "similarity": "tensor([1.0000",
    "own_classes": "{'topic':",
    "lora": "numbers trained",
    "smart_mlp": "after",
    "pcgrad": "tensor([[",
    "pals": "tensor(True)",
    "train": "{'sst':",
}


TRAIN = ("own_classes", "train")  # these train all weights of a BERT; without --slow, of a tiny one that has its name


@pytest.mark.parametrize(
    "name", [*SAID, *(pytest.param(f"{name} as it stands", marks=pytest.mark.slow) for name in TRAIN)]
)
def test_a_program_runs(name, tmp_path, sample, tiny, monkeypatch, capsys):
    if name in TRAIN:
        monkeypatch.setattr("minbert.hub.find_minilm", lambda *_: tiny)
    name = name.removesuffix(" as it stands")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(sample.parent)
    assert SAID[name] in run(name, monkeypatch, capsys)


def test_the_search_of_smart_makes_the_difference_larger(monkeypatch, capsys):
    words = run("smart_mlp", monkeypatch, capsys).replace(",", "").split()
    before, after = (float(word) for word in words if word[0].isdigit())
    assert after > before >= 0


def test_a_trained_model_gives_sentence_vectors(tmp_path, tiny, sample, monkeypatch, capsys):
    from multitask_classifier import run as train

    train(pretrained=str(tiny), data=str(sample), limit=8, epochs=1, out=str(tmp_path / "run"))
    assert "torch.Size([2, 16])" in run("embed", monkeypatch, capsys, str(tmp_path / "run" / "best"))


def test_fill_mask_gives_the_likeliest_words(tmp_path, tiny, sample, monkeypatch, capsys):
    from minbert.pretraining.script import main

    flags = f"--pretrained {tiny} --data {sample} --tasks mlm --limit 60 --epochs 1 --out {tmp_path / 'read'}"
    main(flags.split())
    capsys.readouterr()
    lines = run("fill_mask", monkeypatch, capsys, str(tmp_path / "read")).splitlines()
    assert len(lines) == 5 and all(line.endswith("%") for line in lines)
