"""Whole pre-training runs: what they learn, and what each flag changes."""

import json
import re
from pathlib import Path

import pytest
import torch

import multitask_classifier
from minbert.pretrained import load_bert, load_tokenizer
from minbert.pretraining import script as pretraining
from minbert.pretraining.lessons import Learner
from tests.pretraining.runs import run, same, weights


@pytest.mark.parametrize(
    ("lessons", "pairs"), [("mlm", "joint"), ("nli", "joint"), ("nli", "separate"), ("mlm,nli", "separate")]
)
def test_a_run_learns_and_its_weights_go_on(tmp_path, tiny, sample, capsys, lessons, pairs):
    flags = ("--steps_per_epoch", "25", "--tasks", lessons, "--pairs", pairs, "--head_lr", "1e-2", "--lr", "3e-3")
    if lessons == "nli":
        flags += ("--limit", "24", "--steps_per_epoch", "50")  # few pairs, to be learned by heart
    before, *_, after = run(tmp_path / "out", tiny, sample, *flags)
    out = capsys.readouterr().out
    assert ("fresh: the weights came without one" in out) == ("mlm" in lessons)
    if "mlm" in lessons:
        assert after["mlm_loss"] < before["mlm_loss"] - 0.5
        assert after["masked_word_accuracy"] > before["masked_word_accuracy"] + 0.03
    if "nli" in lessons:
        assert "nli" in before and "nli" in after
    if lessons == "nli":
        assert after["loss"]["nli"] < 0.9  # ln 3 = 1.099 is knowing nothing
    assert set(after["loss"]) == set(lessons.split(","))
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == ["BertForMaskedLM" if "mlm" in lessons else "BertModel"]
    assert not torch.equal(load_bert(tmp_path / "out").word_embedding.weight, load_bert(tiny).word_embedding.weight)
    multitask_classifier.main(
        ["--pretrained", str(tmp_path / "out"), "--data", str(sample), "--out", str(tmp_path / "tuned"),
         "--epochs", "1", "--limit", "16", "--skip_predictions"]
    )  # fmt: skip
    assert (tmp_path / "tuned" / "best").exists()


def masks_of(folder: Path, tiny: Path, sample: Path, monkeypatch, epochs: int = 2) -> dict[tuple, list[tuple]]:
    """The places that were chosen in each sentence of a run, a list of one entry each time that the sentence came."""
    found: dict[tuple, list[tuple]] = {}
    loss = Learner.mlm_loss

    def spy(self, batch, seen, chosen):
        for ids, row in zip(batch.input_ids.tolist(), chosen.tolist(), strict=True):
            found.setdefault(tuple(id for id in ids if id), []).append(tuple(i for i, c in enumerate(row) if c))
        return loss(self, batch, seen, chosen)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "mlm_loss", spy)
        pretraining.main(
            ["--pretrained", str(tiny), "--data", str(sample), "--out", str(folder), "--tasks", "mlm",
             "--corpus", "sst", "--epochs", str(epochs), "--limit", "100", "--batch_size", "25"]
        )  # fmt: skip
    return found


def test_a_run_masks_anew_in_every_epoch_and_batch_and_alike_in_every_run(tmp_path, tiny, sample, monkeypatch):
    found = masks_of(tmp_path / "a", tiny, sample, monkeypatch)
    long = {ids: masks for ids, masks in found.items() if len(ids) > 12}
    assert len(long) > 20 and all(len(masks) == 2 for masks in long.values())
    assert sum(first != second for first, second in long.values()) > 0.6 * len(long)
    assert len({masks[0] for masks in long.values()}) > 0.6 * len(long)  # nor are all batches' masks the same
    assert masks_of(tmp_path / "b", tiny, sample, monkeypatch) == found


def test_rows_are_cut_in_the_run_and_not_by_its_weights(tmp_path, tiny, sample, monkeypatch):
    lengths, loss = [], Learner.mlm_loss

    def spy(self, batch, seen, chosen):
        lengths.append(batch.input_ids.shape[1])
        return loss(self, batch, seen, chosen)

    monkeypatch.setattr(Learner, "mlm_loss", spy)
    flags = ("--max_length", "12", "--tasks", "mlm", "--epochs", "1", "--corpus", "sst", "--limit", "20")
    run(tmp_path / "out", tiny, sample, *flags)
    assert max(lengths) == 12
    assert json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())["model_max_length"] == 128
    assert load_tokenizer(tmp_path / "out").max_length == load_tokenizer(tiny).max_length == 128


def test_the_same_seed_gives_the_same_weights(tmp_path, tiny, sample, plain):
    run(tmp_path / "out", tiny, sample)
    assert same(tmp_path / "out", plain[0])


FLAGS = [
    ["--seed", "1"], ["--weights", "0.5,0.5"], ["--whole_words"], ["--mask_rate", "0.3"], ["--mask_shares", "0.8,0.2"],
    ["--mask_shares", "1,0"], ["--lr", "1e-3"], ["--head_lr", "1e-3"], ["--warmup", "0.5"], ["--lr_decay", "linear"],
    ["--weight_decay", "0.1"], ["--clip", "0.01"], ["--batch_size", "8"], ["--epochs", "1"], ["--steps_per_epoch", "3"],
    ["--held_out", "20"], ["--limit", "100"], ["--limit", "100,100,100,50"], ["--corpus", "sst"], ["--max_length", "8"],
    ["--pairs", "separate"], ["--pooling", "mean"], ["--hidden_dropout_prob", "0.5"], ["--bert_dropout", "0"],
    ["--weights", "0.7,0.9"], ["--tasks", "mlm"], ["--tasks", "nli"], ["--precision", "bf16"],
]  # fmt: skip


@pytest.mark.parametrize("flags", FLAGS, ids=lambda flags: " ".join(flags))
def test_every_flag_changes_the_result(tmp_path, tiny, sample, plain, flags):
    run(tmp_path / "out", tiny, sample, *flags)
    assert not same(tmp_path / "out", plain[0])


def test_attention_kernels_agree(tmp_path, tiny, sample):
    for kernel in ("plain", "sdpa"):
        run(tmp_path / kernel, tiny, sample, "--bert_dropout", "0", "--attention", kernel, "--lr", "1e-4")
    one, other = weights(tmp_path / "plain"), weights(tmp_path / "sdpa")
    assert all(torch.allclose(one[name], other[name], atol=1e-4) for name in one)


def test_every_flag_has_a_case(capsys):
    known = {"-h", "--help", "--data", "--pretrained", "--out", "--overwrite", "--resume", "--save_every", "--use_gpu",
             "--local_files_only", "--recipe", "--list_recipes",
             "--attention"}  # fmt: skip
    with pytest.raises(SystemExit):
        pretraining.main(["--help"])
    shown = set(re.findall(r"(?<=[\s\[])--[a-z]\w*", capsys.readouterr().out))
    assert "--whole_words" in shown
    assert shown - known == {flags[0] for flags in FLAGS}
