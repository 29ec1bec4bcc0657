"""--resume needs the weights, the sizes and the tokenizer that a run began with; other files beside them may differ."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertTokenizerFast

import multitask_classifier
from minbert.pretrained import load_tokenizer
from tests.cli.runs import FULL

main = multitask_classifier.main


def begin(weights: Path, data: Path, out: Path) -> Path:
    argv = f"--pretrained {weights} --data {data} --out {out} --tasks sst --limit 8 --steps_per_epoch 1 --epochs 1"
    main([*argv.split(), "--skip_predictions", *FULL])
    return out


@pytest.fixture(scope="module")
def first(tiny, few, tmp_path_factory) -> Path:
    """A folder with a run and its weights, which were in the form of this program."""
    folder = tmp_path_factory.mktemp("first")
    shutil.copytree(tiny, folder / "weights")
    begin(folder / "weights", few, folder / "out")
    return folder


@pytest.fixture
def begun(first, tmp_path) -> Path:
    """A copy of that run; the weights, of which a test may change a file, are beside it."""
    shutil.copytree(first / "weights", tmp_path / "weights")
    return Path(shutil.copytree(first / "out", tmp_path / "out"))


def resume(out: Path) -> list[str]:
    return ["--out", str(out), "--resume", "--pretrained", str(out.parent / "weights")]


def as_the_hub_has_it(weights: Path):
    """The same tokenizer in the files of `transformers`, the same sizes in another order, and a second format."""
    BertTokenizerFast.from_pretrained(weights).save_pretrained(weights)
    config = json.loads((weights / "config.json").read_text())
    (weights / "config.json").write_text(json.dumps({"_name_or_path": "x", **dict(reversed(config.items()))}))
    torch.save({}, weights / "pytorch_model.bin")  # which is not read beside model.safetensors


def test_a_run_goes_on_with_the_same_weights_among_other_files(begun, tiny, few, tmp_path, capsys):
    """In both directions: from a machine without the hub to one with it, and back."""
    weights = tmp_path / "weights"
    as_the_hub_has_it(weights)
    assert (weights / "tokenizer.json").exists() and not (tiny / "tokenizer.json").exists()
    main(resume(begun))
    out = begin(weights, few, tmp_path / "other")
    shutil.rmtree(weights)
    shutil.copytree(tiny, weights)
    main(resume(out))
    assert capsys.readouterr().out.count("resumed after epoch 1") == 2


def longer_rows(weights: Path):
    path = weights / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": 77}))


def accents_stay(weights: Path):
    path = weights / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"strip_accents": False}))


def a_token_more(weights: Path):
    """[NAME] takes the place of the last piece, so that the number of rows stays."""
    vocab = load_tokenizer(weights).vocab
    (weights / "vocab.txt").write_text("\n".join(vocab[:-1]))
    path = weights / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings["added_tokens_decoder"][str(len(vocab) - 1)] = {"content": "[NAME]", "special": True}
    path.write_text(json.dumps(settings))


def another_epsilon(weights: Path):
    path = weights / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"layer_norm_eps": 1e-5}))


def another_format(weights: Path):
    torch.save(load_file(weights / "model.safetensors"), weights / "pytorch_model.bin")
    (weights / "model.safetensors").unlink()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (longer_rows, "its tokenizer has changed since"),
        (accents_stay, "its tokenizer has changed since"),
        (a_token_more, "its tokenizer has changed since"),
        (another_epsilon, "its config has changed since"),
        (another_format, "its model.safetensors is not read now, but was when"),
    ],
)
def test_another_tokenizer_or_other_sizes_are_named(begun, tmp_path, refusal, change, words):
    change(tmp_path / "weights")
    line = refusal(main, resume(begun))
    assert f"{words} the run in {begun} began; --resume needs the same weights" in line


def test_a_run_of_a_version_that_named_the_files_alone_goes_on(begun, tmp_path, refusal):
    path = begun / "run.json"
    description = json.loads(path.read_text())
    del description["read"]
    path.write_text(json.dumps(description))
    main(resume(begun))
    longer_rows(tmp_path / "weights")
    assert "its tokenizer_config.json has changed since" in refusal(main, resume(begun))


def test_a_model_of_this_program_and_a_checkpoint_are_compared_by_their_content(begun, few, tmp_path, refusal):
    tensors, path = load_file(tmp_path / "weights" / "model.safetensors"), tmp_path / "weights" / "bert.pt"
    torch.save(tensors, path)
    of_model, of_file = begin(begun, few, tmp_path / "of-model"), begin(path, few, tmp_path / "of-file")
    for out in (of_model, of_file):
        main(["--out", str(out), "--resume"])
    shutil.rmtree(begun / "best")
    shutil.copytree(of_model / "best", begun / "best")  # the model of another run
    torch.save(tensors | {"pooler.dense.bias": tensors["pooler.dense.bias"] + 1e-3}, path)
    for out, name in ((of_model, "tensors.safetensors"), (of_file, "checkpoint")):
        assert f"its {name} has changed since the run in" in refusal(main, ["--out", str(out), "--resume"])
