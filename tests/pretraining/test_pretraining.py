"""minbert/pretraining.py: masks by statistics, the loss by transformers, what is read, and going on after a stop."""

import csv
import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import BertConfig as TheirConfig
from transformers import BertForMaskedLM
from transformers import BertModel as TheirBert

import multitask_classifier
from minbert.bert import BertModel
from minbert.config import BertConfig
from minbert.data import Batches, Dataset, Example, read_examples
from minbert.errors import UserError
from minbert.pretrained import load_bert, load_tokenizer, mlm_weights, save_pretrained
from minbert.pretraining import script as pretraining
from minbert.pretraining.corpus import read_corpus
from minbert.pretraining.lessons import SENTENCES, Learner, load_learner, score_masked
from minbert.pretraining.masking import Masker, Masking, generator_for
from minbert.tasks import TASKS
from minbert.tokenizer import SPECIAL, BertTokenizer

WORDS = [f"w{i}" for i in range(900)]
TOKENIZER = BertTokenizer([*SPECIAL, *WORDS, *(f"##p{i}" for i in range(100))])


# ---------------------------------------------------------------------------------------------- masking


def rows_of_tokens(rows: int = 20_000, T: int = 64) -> torch.Tensor:
    """(rows, T) random ids as a tokenizer makes them: [CLS], 40 to 61 pieces, [SEP], pads; now and then an [UNK]."""
    random = torch.Generator().manual_seed(1)
    ids = torch.randint(len(SPECIAL), TOKENIZER.vocab_size, (rows, T), generator=random)
    ids[torch.rand(ids.shape, generator=random) < 0.01] = TOKENIZER.unk_id
    lengths = torch.randint(42, T, (rows, 1), generator=random)
    places = torch.arange(T)
    ids = torch.where(places == lengths - 1, TOKENIZER.sep_id, ids)
    ids = torch.where(places >= lengths, TOKENIZER.pad_id, ids)
    ids[:, 0] = TOKENIZER.cls_id
    return ids


IDS = rows_of_tokens()
ORDINARY = IDS >= len(SPECIAL)


def near(share: float, expected: float, n: int) -> bool:
    """Within five standard deviations of a share of `n` independent draws."""
    return abs(share - expected) < 5 * (expected * (1 - expected) / n) ** 0.5


@pytest.mark.parametrize(
    "masking", [Masking(), Masking(0.3, 0.8, 0.2), Masking(0.15, 1.0, 0.0), Masking(whole_words=True)]
)
def test_masking_statistics_over_a_million_tokens(masking):
    seen, chosen = Masker(TOKENIZER, masking)(IDS, generator_for(1))
    n = int(ORDINARY.sum())
    assert n > 1_000_000
    assert not chosen[~ORDINARY].any()  # no special token, no pad
    assert torch.equal(seen[~chosen], IDS[~chosen])
    spread = 1 if not masking.whole_words else 0.5  # words of several pieces come together: fewer independent draws
    assert near(chosen.sum().item() / n, masking.rate, n * spread)

    N = int(chosen.sum())
    masked = chosen & (seen == TOKENIZER.mask_id)
    kept = chosen & (seen == IDS)
    other = chosen & ~masked & ~kept
    V = TOKENIZER.vocab_size - len(SPECIAL)
    by_chance = masking.random / V  # the random token may be the very one
    assert near(masked.sum().item() / N, masking.mask, N) or masking.mask == 1.0 == masked.sum().item() / N
    assert near(other.sum().item() / N, masking.random - by_chance, N) or masking.random == 0.0 == other.sum().item()
    rest = 1 - masking.mask - masking.random
    assert abs(kept.sum().item() / N - rest - by_chance) < 5 * (0.1 / N) ** 0.5 and (rest > 0 or kept.sum() / N < 0.001)
    assert not masking.random or (seen[other] >= len(SPECIAL)).all()  # no [PAD] or [CLS] is put in
    if masking.random:
        counts = torch.bincount(seen[other], minlength=TOKENIZER.vocab_size)[len(SPECIAL) :].double()
        chi2 = ((counts - counts.mean()) ** 2 / counts.mean()).sum().item()
        assert abs(chi2 - V) < 6 * (2 * V) ** 0.5  # all tokens alike


def test_same_numbers_same_masks_other_pass_other_masks():
    masker = Masker(TOKENIZER)
    first, again, other = (masker(IDS[:200], generator_for(7, 1, n, 3)) for n in (0, 0, 1))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    both = (first[1] & other[1]).sum() / ORDINARY[:200].sum()
    assert abs(both.item() - 0.15**2) < 0.01  # they fall together as often as independent ones do


def test_whole_words_are_chosen_with_all_their_pieces():
    goes_on = torch.tensor([piece.startswith("##") for piece in TOKENIZER.vocab])[IDS]
    for whole, expected in ((True, 1.0), (False, 0.7450)):  # .15² + .85²
        _, chosen = Masker(TOKENIZER, Masking(whole_words=whole))(IDS, generator_for(2))
        pairs = goes_on[:, 1:] & ORDINARY[:, :-1]
        same = (chosen[:, 1:] == chosen[:, :-1])[pairs].double().mean().item()
        assert abs(same - expected) < 0.005


# ---------------------------------------------------------------------------------------------- the loss


def their_model(folder: Path, **options) -> BertForMaskedLM:
    """A random BertForMaskedLM, saved in `folder` with a vocabulary of its size."""
    torch.manual_seed(3)
    config = TheirConfig(
        vocab_size=TOKENIZER.vocab_size, hidden_size=24, num_hidden_layers=2, num_attention_heads=3,
        intermediate_size=48, max_position_embeddings=64, initializer_range=0.2, **options,
    )  # fmt: skip
    theirs = BertForMaskedLM(config).eval()
    torch.nn.init.normal_(theirs.cls.predictions.bias)
    torch.nn.init.normal_(theirs.cls.predictions.transform.LayerNorm.bias)
    theirs.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(TOKENIZER.vocab) + "\n")
    return theirs


@pytest.fixture
def masked_batch():
    """Twenty sentences of several lengths, masked."""
    texts = [" ".join(WORDS[(7 * i + k) % 900] for k in range(4 + i % 9)) for i in range(20)]
    batch = Dataset(SENTENCES, [Example(None, (text,), None) for text in texts], TOKENIZER).batch(range(20))
    return batch, *Masker(TOKENIZER, Masking(0.3))(batch.input_ids, generator_for(5))


def edit(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]):
    """Let `change` do something to the tensors of a weights directory."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def add_pooler(folder: Path):
    """transformers' BertForMaskedLM has no pooler; a BERT of ours has one, and real checkpoints hold it."""
    edit(
        folder,
        lambda x: x.update({"bert.pooler.dense.weight": torch.eye(24), "bert.pooler.dense.bias": torch.zeros(24)}),
    )


def test_loss_and_gradients_are_transformers(tmp_path, masked_batch):
    theirs = their_model(tmp_path).double()
    add_pooler(tmp_path)
    learner, known = load_learner(tmp_path, "plain", 0.0, None)
    assert known
    learner.double()
    batch, seen, chosen = masked_batch
    assert 10 < chosen.sum() < 100
    labels = torch.where(chosen, batch.input_ids, -100)
    expected = theirs(seen, batch.attention_mask, batch.token_type_ids, labels=labels)
    loss = learner.mlm_loss(batch, seen, chosen)
    assert abs(loss.item() - expected.loss.item()) < 1e-9
    torch.testing.assert_close(learner.mlm_logits(batch, seen, chosen), expected.logits[chosen], atol=1e-9, rtol=0)

    loss.backward()
    expected.loss.backward()
    pairs = {
        learner.mlm.dense.weight: theirs.cls.predictions.transform.dense.weight,
        learner.mlm.layer_norm.weight: theirs.cls.predictions.transform.LayerNorm.weight,
        learner.mlm.layer_norm.bias: theirs.cls.predictions.transform.LayerNorm.bias,
        learner.mlm.bias: theirs.cls.predictions.bias,
        learner.bert.word_embedding.weight: theirs.bert.embeddings.word_embeddings.weight,  # from both of its ends
        learner.bert.bert_layers[0].out_dense.weight: theirs.bert.encoder.layer[0].output.dense.weight,
        learner.bert.bert_layers[1].self_attention.query.weight: theirs.bert.encoder.layer[
            1
        ].attention.self.query.weight,
    }
    for ours, other in pairs.items():
        assert other.grad.abs().max() > 1e-6
        torch.testing.assert_close(ours.grad, other.grad, atol=1e-9, rtol=0)
    assert learner.bert.pooler_dense.weight.grad is None

    no_mask = learner.mlm_loss(batch, batch.input_ids, chosen)  # the check has a way to fail
    assert abs(no_mask.item() - expected.loss.item()) > 1e-3


def test_logits_are_computed_at_the_chosen_places_alone(tmp_path, masked_batch):
    batch, seen, chosen = masked_batch
    learner = Learner(BertModel(BertConfig(TOKENIZER.vocab_size, 16, 1, 2, 32)))
    shapes = []
    learner.mlm.register_forward_hook(lambda module, args, out: shapes.append(tuple(out.shape)))
    learner.mlm_loss(batch, seen, chosen)
    assert shapes == [(int(chosen.sum()), TOKENIZER.vocab_size)]
    assert learner.mlm_loss(batch, seen, torch.zeros_like(chosen)).item() == 0.0  # not NaN


def test_scores_are_the_definition_and_leave_no_trace(masked_batch):
    torch.manual_seed(0)
    config = BertConfig(TOKENIZER.vocab_size, 16, 1, 2, 32, initializer_range=0.5)
    learner = Learner(BertModel(config)).train()
    data = Dataset(SENTENCES, [Example(None, (f"w{i} w{i + 1} w{i + 2}",), None) for i in range(300)], TOKENIZER)
    masker = Masker(TOKENIZER, Masking(0.5))
    state = torch.get_rng_state()
    found = score_masked(learner, data, masker)
    assert found == score_masked(learner, data, masker)  # the same masks, no dropout
    assert learner.training and torch.equal(torch.get_rng_state(), state)

    batch = data.batch(range(300))  # all rows are of one length, so this is the one batch of the evaluation
    seen, chosen = masker(batch.input_ids, generator_for(2, 0))
    learner.eval()
    logits = learner.mlm_logits(batch, seen, chosen)
    targets = batch.input_ids[chosen]
    assert found["mlm_loss"] == pytest.approx(F.cross_entropy(logits, targets).item(), rel=1e-5)
    assert found["masked_word_accuracy"] == pytest.approx((logits.argmax(-1) == targets).double().mean().item())


# ---------------------------------------------------------------------------------------------- weights


def test_the_head_of_a_checkpoint_is_found_under_all_its_names(tmp_path):
    theirs = their_model(tmp_path)
    expected = {
        "dense.weight": theirs.cls.predictions.transform.dense.weight,
        "dense.bias": theirs.cls.predictions.transform.dense.bias,
        "layer_norm.weight": theirs.cls.predictions.transform.LayerNorm.weight,
        "layer_norm.bias": theirs.cls.predictions.transform.LayerNorm.bias,
        "bias": theirs.cls.predictions.bias,
    }

    def check():
        found = mlm_weights(tmp_path)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())

    check()
    old = {n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): t
           for n, t in theirs.state_dict().items()}  # fmt: skip
    (tmp_path / "model.safetensors").unlink()
    torch.save(old, tmp_path / "pytorch_model.bin")
    check()
    google = {n.replace(".", "/").replace("dense/weight", "dense/kernel"): t.T if "dense.weight" in n else t
              for n, t in theirs.state_dict().items()}  # fmt: skip
    google["cls/predictions/output_bias"] = google.pop("cls/predictions/bias")
    torch.save(google, tmp_path / "pytorch_model.bin")
    check()


def test_what_is_written_transformers_loads_with_its_head(tmp_path, masked_batch):
    batch, seen, _ = masked_batch
    torch.manual_seed(4)
    learner = Learner(BertModel(BertConfig(TOKENIZER.vocab_size, 16, 2, 2, 32, initializer_range=0.2))).eval()
    torch.nn.init.normal_(learner.mlm.bias)
    save_pretrained(learner.bert, TOKENIZER, tmp_path, learner.mlm)
    theirs, info = BertForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["mismatched_keys"]
    assert all("pooler" in key for key in info["unexpected_keys"])
    everywhere = batch.attention_mask.bool()
    with torch.no_grad():
        logits = theirs.eval()(seen, batch.attention_mask, batch.token_type_ids).logits[everywhere]
        torch.testing.assert_close(learner.mlm_logits(batch, seen, everywhere), logits, atol=1e-5, rtol=0)

    _, info = TheirBert.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and all(key.startswith("cls.") for key in info["unexpected_keys"])
    for name, tensor in load_bert(tmp_path).state_dict().items():
        assert torch.equal(tensor, learner.bert.state_dict()[name])
    again, known = load_learner(tmp_path, "plain", None, None)
    assert known and all(
        torch.equal(a, b) for a, b in zip(again.mlm.parameters(), learner.mlm.parameters(), strict=True)
    )


# ---------------------------------------------------------------------------------------------- what is read


def keys_of(folder: Path, splits: tuple[str, ...], tokenizer: BertTokenizer) -> set[tuple[int, ...]]:
    """The word pieces of every sentence in the files of these splits, read with nothing of ours."""
    texts = []
    for task in TASKS.values():
        for split in splits:
            path = folder / task.file.format({"test": "test-student"}.get(split, split))
            if path.exists():
                with open(path, encoding="utf-8", newline="") as file:
                    rows = list(csv.DictReader(file, delimiter="\t"))
                texts += [row[column].strip() for row in rows for column in task.texts if row[column]]
    return set(map(tuple, tokenizer.encode([text for text in texts if text])))


def stream(data: Dataset) -> list[tuple[int, ...]]:
    """Every sentence of two passes of training batches, as it comes out of them: between [CLS] and [SEP]."""
    batches, found = Batches(data, 32, 1), []
    for _ in range(2 * len(batches)):
        for row in batches.next().input_ids.tolist():
            pieces = [id for id in row if id not in (data.tokenizer.cls_id, data.tokenizer.pad_id)]
            end = data.tokenizer.sep_id
            while pieces:
                cut = pieces.index(end)
                found.append(tuple(pieces[:cut]))
                pieces = pieces[cut + 1 :]
    return found


@pytest.fixture
def leaky(tmp_path, sample):
    """The sample data with dev and test sentences planted in the training files, and a folder without its dev files."""
    folder, blind = tmp_path / "leaky", tmp_path / "blind"
    for place in (folder, blind):
        place.mkdir()
        for file in sample.glob("*.csv"):
            if place == folder or "train" in file.name or file.name == "nli-dev.csv":
                (place / file.name).write_bytes(file.read_bytes())
    dev = [e.texts[0] for e in read_examples(sample / "ids-sst-dev.csv", TASKS["sst"])][:20]
    test = [e.texts[0] for e in read_examples(sample / "sts-test-student.csv", TASKS["sts"])][:20]
    for place in (folder, blind):
        with open(place / "ids-sst-train.csv", "a", encoding="utf-8") as file:
            file.writelines(f"9\tdev{i}\t{text.upper()}  \t2\n" for i, text in enumerate(dev))
        with open(place / "nli-train.csv", "a", encoding="utf-8") as file:
            file.write("9\tx1\tNobody agreed on this one.\tNor is this.\tneutral\n")
            file.writelines(f"9\ttest{i}\tA new premise {i}.\t{text}\tneutral\n" for i, text in enumerate(test))
    with open(folder / "nli-dev.csv", "a", encoding="utf-8") as file:
        file.write("9\tx2\tNobody agreed on this one.\tWho knows.\t-\n")
    with open(folder / "quora-dev.csv", "a", encoding="utf-8") as file:
        file.write("9\tx3\tNor is this.\t\t\n")
    return folder, blind


def test_no_dev_or_test_sentence_is_in_the_stream(leaky, tiny):
    folder, blind = leaky
    tokenizer = load_tokenizer(tiny)
    forbidden = keys_of(folder, ("dev", "test"), tokenizer)
    corpus = read_corpus(folder, tokenizer)
    mlm, nli = stream(corpus.mlm), stream(corpus.nli)
    assert len(set(mlm)) == len(corpus.mlm) > 500 and len(nli) == 4 * len(corpus.nli) > 500
    assert sum(key in forbidden for key in mlm) == 0
    assert sum(key in forbidden for key in nli) == 0
    notes = "\n".join(corpus.notes)  # planted in capitals and with spaces: the same word pieces
    planted = len(keys_of(folder, ("train",), tokenizer) & forbidden)
    assert planted > 35 and f"left out {planted} sentences that a dev or test file has" in notes
    assert "left out 21 pairs with a dev or test file's sentence" in notes
    assert "compared with ids-sst-dev.csv, ids-sst-test-student.csv, quora-dev.csv" in notes

    corpus = read_corpus(blind, tokenizer)  # who cannot see the dev and test files lets the planted ones through
    assert len({key for key in stream(corpus.mlm) if key in forbidden}) > 30
    assert len({key for key in stream(corpus.nli) if key in forbidden}) > 10


def test_held_out_sentences_are_in_neither_stream(sample, tiny):
    tokenizer = load_tokenizer(tiny)
    corpus = read_corpus(sample, tokenizer, held_out=60)
    aside = set(stream(corpus.held_out))
    assert len(aside) == 60
    assert aside.isdisjoint(stream(corpus.mlm)) and aside.isdisjoint(stream(corpus.nli))
    everything = keys_of(sample, ("train",), tokenizer)
    assert aside | set(stream(corpus.mlm)) == everything  # nothing else is lost
    assert set(stream(read_corpus(sample, tokenizer, held_out=60).held_out)) == aside
    assert len(read_corpus(sample, tokenizer, held_out=10**6).held_out) == len(everything) // 10


def test_lessons_and_files_are_those_that_were_asked_for(sample, tiny):
    tokenizer = load_tokenizer(tiny)
    only = read_corpus(sample, tokenizer, ["mlm"], ["sts"], {"sts": 50})
    assert only.nli is None and only.nli_dev is None and 50 < len(only.mlm) + len(only.held_out) <= 100
    assert any(note.startswith("STS-B similarity: ") for note in only.notes)
    pairs = read_corpus(sample, tokenizer, ["nli"], [], {"nli": 90}, pairs="separate")
    assert pairs.mlm is None and pairs.held_out is None and len(pairs.nli) == 90 and len(pairs.nli_dev) == 80
    assert len(pairs.nli.rows[0]) == 2 and len(read_corpus(sample, tokenizer, ["nli"], []).nli.rows[0]) == 1


def test_no_dev_or_test_sentence_of_the_real_files_is_in_the_stream(real_data):
    tokenizer = load_tokenizer("minilm")
    corpus = read_corpus(real_data, tokenizer, limit=dict.fromkeys(("sst", "para", "sts", "nli"), 1500))
    forbidden = keys_of(real_data, ("dev", "test"), tokenizer)
    left_out = next(note for note in corpus.notes if "sentences that a dev or test file has" in note)
    assert int(left_out.split()[2].replace(",", "")) > 50  # there are such: Quora's splits share questions
    assert sum(key in forbidden for key in stream(corpus.mlm)) == 0
    assert sum(key in forbidden for key in stream(corpus.nli)) == 0


# ---------------------------------------------------------------------------------------------- runs


def run(folder: Path, tiny: Path, sample: Path, *flags: str) -> list[dict]:
    """A small run in `folder`; its metrics."""
    flags = ("--epochs", "2", "--steps_per_epoch", "4", "--lr", "1e-2", "--batch_size", "16", *flags)
    pretraining.main(["--pretrained", str(tiny), "--data", str(sample), "--out", str(folder), *flags])
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(a: Path, b: Path) -> bool:
    one, other = weights(a), weights(b)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def plain(tmp_path_factory, tiny, sample):
    """The run that others are compared with, and its metrics."""
    folder = tmp_path_factory.mktemp("plain") / "out"
    return folder, run(folder, tiny, sample)


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
    assert (tmp_path / "tuned" / "best.pt").exists()


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
             "--local_files_only",
             "--attention"}  # fmt: skip
    with pytest.raises(SystemExit):
        pretraining.main(["--help"])
    shown = set(re.findall(r"(?<=[\s\[])--[a-z]\w*", capsys.readouterr().out))
    assert "--whole_words" in shown
    assert shown - known == {flags[0] for flags in FLAGS}


# ---------------------------------------------------------------------------------------------- going on


class Stopped(Exception):
    pass


def stop_after(monkeypatch, steps: int, action):
    """Call `action` when the optimizer has taken so many steps of this process's next run."""
    taken, step = [0], pretraining.AdamW.step

    def counted(self, *args):
        result = step(self, *args)
        taken[0] += 1
        if taken[0] == steps:
            action()
        return result

    monkeypatch.setattr(pretraining.AdamW, "step", counted)


def crash():
    raise Stopped


@pytest.mark.parametrize(("save_every", "steps"), [("1", 3), ("2", 4), ("3", 5), ("1", 7)])
def test_a_run_that_was_killed_goes_on_to_the_same_bits(tmp_path, tiny, sample, plain, monkeypatch, save_every, steps):
    with monkeypatch.context() as patch:
        stop_after(patch, steps, crash)
        with pytest.raises(Stopped):
            run(tmp_path / "out", tiny, sample, "--save_every", save_every)
    metrics = run(tmp_path / "out", tiny, sample, "--resume")
    assert same(tmp_path / "out", plain[0])
    drop = lambda lines: [{k: v for k, v in line.items() if k != "seconds"} for line in lines]  # noqa: E731
    assert drop(metrics) == drop(plain[1])


def test_a_run_that_was_killed_before_its_state_was_kept_tells_of_that_epoch_once(
    tmp_path, tiny, sample, plain, monkeypatch
):
    save, calls = pretraining.State.save, [0]

    def dies(self):
        calls[0] += 1
        if calls[0] == 2:
            raise Stopped
        save(self)

    with monkeypatch.context() as patch:
        patch.setattr(pretraining.State, "save", dies)
        with pytest.raises(Stopped):
            run(tmp_path / "out", tiny, sample)
    with open(tmp_path / "out" / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 3, "lo')  # torn
    metrics = run(tmp_path / "out", tiny, sample, "--resume")
    assert [line["epoch"] for line in metrics] == [0, 1, 2] and same(tmp_path / "out", plain[0])


def test_a_finished_run_writes_its_weights_again_if_they_were_lost(tmp_path, tiny, sample, plain):
    run(tmp_path / "out", tiny, sample)
    (tmp_path / "out" / "model.safetensors").unlink()
    run(tmp_path / "out", tiny, sample, "--resume")
    assert same(tmp_path / "out", plain[0])


@pytest.mark.parametrize("withheld", ["dropout's draws", "the data's order", "AdamW's means"])
def test_the_check_of_bits_sees_what_is_withheld(tmp_path, tiny, sample, plain, monkeypatch, withheld):
    with monkeypatch.context() as patch:
        stop_after(patch, 3, crash)
        with pytest.raises(Stopped):
            run(tmp_path / "out", tiny, sample, "--save_every", "1")
    if withheld == "dropout's draws":
        monkeypatch.setattr(torch, "set_rng_state", lambda state: None)
    elif withheld == "the data's order":
        monkeypatch.setattr(Batches, "load_state_dict", lambda self, state: None)
    else:
        monkeypatch.setattr(pretraining.AdamW, "load_state_dict", lambda self, state: None)
    run(tmp_path / "out", tiny, sample, "--resume")
    assert not same(tmp_path / "out", plain[0])


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_waits_for_the_step_and_saves(tmp_path, tiny, sample, plain, monkeypatch, capsys, number, status):
    handler = signal.getsignal(number)
    with monkeypatch.context() as patch:
        stop_after(patch, 6, lambda: os.kill(os.getpid(), number))
        with pytest.raises(SystemExit) as stop:
            run(tmp_path / "out", tiny, sample)
    assert stop.value.code == status and "--resume goes on from step 2 of epoch 2" in capsys.readouterr().err
    assert signal.getsignal(number) is handler
    run(tmp_path / "out", tiny, sample, "--resume")
    assert same(tmp_path / "out", plain[0])


def test_ctrl_c_twice_leaves_at_once(tmp_path, tiny, sample, monkeypatch):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    stop_after(monkeypatch, 2, twice)
    with pytest.raises(SystemExit) as stop:
        run(tmp_path / "out", tiny, sample)
    assert stop.value.code == 130 and not (tmp_path / "out" / "resume.pt").exists()


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_state_before(
    tmp_path, tiny, sample, refusal, monkeypatch
):
    stop_after(monkeypatch, 4, lambda: None)
    loss = Learner.mlm_loss
    calls = [0]

    def broken(self, *args):
        calls[0] += 1
        return loss(self, *args) * (float("nan") if calls[0] == 6 else 1)

    monkeypatch.setattr(Learner, "mlm_loss", broken)
    argv = ["--pretrained", str(tiny), "--data", str(sample), "--out", str(tmp_path / "out"), "--steps_per_epoch", "4",
            "--save_every", "1"]  # fmt: skip
    assert "epoch 2, step 2: the loss of mlm is not a finite number any more" in refusal(pretraining.main, argv)
    saved = torch.load(tmp_path / "out" / "resume.pt", weights_only=True)
    assert (saved["epoch"], saved["step"]) == (1, 1)
    assert all(torch.isfinite(tensor).all() for tensor in saved["model"].values())


# ---------------------------------------------------------------------------------------------- refusals


@pytest.fixture
def refuse(tmp_path, tiny, sample, refusal):
    """The one line with which a run with these flags is refused; {out} and {data} stand for folders."""

    def refuse(*flags: str, data: Path = sample) -> str:
        argv = ["--pretrained", str(tiny), "--data", str(data), "--out", str(tmp_path / "out"), *flags]
        return refusal(pretraining.main, argv)

    return refuse


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--tasks", "mlm,sst"], "--tasks sst: the lessons are mlm, nli"),
        (["--tasks", "nli", "--corpus", "sst"], "--corpus needs mlm among --tasks"),
        (["--corpus", "imdb"], "--corpus imdb: the files are those of sst, para, sts, cfimdb, nli"),
        (["--weights", "1"], "--weights 1: give a number above 0 for each of --tasks mlm,nli"),
        (["--weights", "1,0"], "--weights 1,0: give"),
        (["--mask_shares", "0.8,0.3"], "--mask_shares 0.8,0.3"),
        (["--mask_shares", "0.8"], "--mask_shares 0.8"),
        (["--mask_rate", "0"], "--mask_rate 0: nothing would be learned"),
        (["--mask_rate", "1"], "not a rate from 0 to less than 1"),
        (["--limit", "5,5"], "--limit 5,5: give one number, or one for each of sst,para,sts,nli"),
        (["--resume", "--overwrite"], "--resume cannot be combined with --overwrite"),
        (["--resume"], "resume.pt: not there, so there is nothing to --resume"),
        (["--corpus", "cfimdb"], "ids-cfimdb-train.csv: no such file"),
        (["--lr", "1e38", "--clip", "0", "--epochs", "1", "--steps_per_epoch", "1"], "begin again with a lower --lr"),
        (["--use_gpu"], "--use_gpu: this PyTorch sees no CUDA device"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_work_is_refused_in_one_line(refuse, flags, said):
    if flags == ["--use_gpu"] and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    assert said in refuse(*flags)


def test_bad_files_are_named_with_their_line(refuse, sample, tmp_path):
    for file in sample.glob("*.csv"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    path = tmp_path / "nli-train.csv"
    good = path.read_text("utf-8")
    path.write_text(good.replace("\tneutral\n", "\tperhaps\n", 1), "utf-8")
    line = next(n for n, row in enumerate(good.splitlines(), 1) if row.endswith("neutral"))
    assert f"nli-train.csv, line {line}: label is 'perhaps'" in refuse(data=tmp_path)
    path.write_text("\n".join(row.rpartition("\t")[0] for row in good.splitlines()), "utf-8")
    assert "nli-train.csv: not every row has a label" in refuse(data=tmp_path)
    path.unlink()
    assert "nli-train.csv: no such file (`python data/download.py nli` fetches it" in refuse(data=tmp_path)


def test_another_run_is_neither_overwritten_nor_gone_on_with_by_mistake(tmp_path, tiny, sample, refuse):
    small = ("--epochs", "1", "--steps_per_epoch", "1", "--limit", "50")
    metrics = run(tmp_path / "out", tiny, sample, *small)
    assert "an earlier run's; add --resume or --overwrite" in refuse(*small)
    base = ("--lr", "1e-2", "--batch_size", "16", "--resume")
    assert "that run had --seed = 11711, this one has 3" in refuse(*small, *base, "--seed", "3")
    assert "that run had --limit" in refuse(*small[:4], *base)
    other = tmp_path / "data"
    other.mkdir()
    for file in sample.glob("*.csv"):
        (other / file.name).write_bytes(file.read_bytes())
    with open(other / "sts-train.csv", "a") as file:
        file.write("9\tx\tA cat.\tA dog.\t1.0\n")
    assert "the data's sha256" in refuse(*small, *base, data=other)
    (other / "sts-train.csv").write_bytes((sample / "sts-train.csv").read_bytes())
    run(tmp_path / "out", tiny, other, *small, "--resume")  # the same content elsewhere is the same
    sentence = read_examples(sample / "ids-sst-train.csv", TASKS["sst"], 50)[0].texts[0]
    with open(other / "ids-sst-dev.csv", "a", encoding="utf-8") as file:  # it takes a sentence out of the stream
        file.write(f"9\tx\t{sentence}\t1\n")
    assert "the data's sha256" in refuse(*small, *base, data=other)
    assert "is --pretrained itself" in refuse("--pretrained", str(tmp_path / "out"), "--overwrite")
    assert run(tmp_path / "out", tiny, sample, *small, "--overwrite")[-1]["loss"] == metrics[-1]["loss"]


def test_a_damaged_state_is_named(tmp_path, tiny, sample, refuse):
    small = ("--epochs", "1", "--steps_per_epoch", "1", "--limit", "50")
    run(tmp_path / "out", tiny, sample, *small)
    path = tmp_path / "out" / "resume.pt"
    path.write_bytes(path.read_bytes()[:-100])
    assert "resume.pt: damaged or cut short" in refuse(*small, "--lr", "1e-2", "--batch_size", "16", "--resume")


def test_a_head_of_another_size_is_an_error_that_names_it(tmp_path):
    their_model(tmp_path)
    add_pooler(tmp_path)
    edit(tmp_path, lambda x: x.update({"cls.predictions.transform.dense.weight": torch.zeros(3, 3)}))
    with pytest.raises(UserError, match=r"MLM head: dense.weight has shape \(3, 3\), this model's has \(24, 24\)"):
        load_learner(tmp_path, "plain", None, None)


def test_another_programs_weights_in_the_folder_are_left_alone(tmp_path, refuse):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "best.pt").write_text("a trainer's")
    assert "best.pt: an earlier run's; name another --out" in refuse()


def test_a_head_whose_decoder_is_not_the_word_embedding_is_refused(tmp_path):
    their_model(tmp_path)
    decoder, words = "cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"
    edit(tmp_path, lambda x: x.update({decoder: x[words].clone()}))
    assert mlm_weights(tmp_path)
    edit(tmp_path, lambda x: x[decoder][7, 3].add_(1))
    with pytest.raises(UserError, match=r"decoder\.weight is not the word embedding"):
        mlm_weights(tmp_path)
