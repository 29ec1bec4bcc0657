"""The masked language model's head: its loss and gradients are those of transformers, and so are its names."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import BertConfig as TheirConfig
from transformers import BertForMaskedLM
from transformers import BertModel as TheirBert

from minbert import hub
from minbert.bert import BertModel
from minbert.config import BertConfig
from minbert.data import Dataset, Example
from minbert.errors import UserError
from minbert.pretrained import load_bert, mlm_weights, save_pretrained
from minbert.pretraining.lessons import SENTENCES, Learner, load_learner, score_masked
from minbert.pretraining.masking import Masker, Masking, generator_for
from minbert.tokenizer import SPECIAL, BertTokenizer

WORDS = [f"w{i}" for i in range(900)]


TOKENIZER = BertTokenizer([*SPECIAL, *WORDS, *(f"##p{i}" for i in range(100))])


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


def test_local_files_only_keeps_the_head_from_the_hub(tmp_path, monkeypatch):
    """The folder of a model that was fetched without its vocabulary, which the hub is asked for otherwise."""
    their_model(tmp_path)
    add_pooler(tmp_path)
    (tmp_path / "vocab.txt").unlink()
    monkeypatch.setattr(hub, "in_hub_cache", lambda name: tmp_path)
    monkeypatch.setattr(hub, "from_hub", lambda name: pytest.fail(f"the hub is asked for {name}"))
    assert load_learner("someone/bert", local_files_only=True)[1]


def test_a_head_of_another_size_is_an_error_that_names_it(tmp_path):
    their_model(tmp_path)
    add_pooler(tmp_path)
    edit(tmp_path, lambda x: x.update({"cls.predictions.transform.dense.weight": torch.zeros(3, 3)}))
    with pytest.raises(UserError, match=r"MLM head: dense.weight has shape \(3, 3\), this model's has \(24, 24\)"):
        load_learner(tmp_path, "plain", None, None)


def test_a_head_whose_decoder_is_not_the_word_embedding_is_refused(tmp_path):
    their_model(tmp_path)
    decoder, words = "cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"
    edit(tmp_path, lambda x: x.update({decoder: x[words].clone()}))
    assert mlm_weights(tmp_path)
    edit(tmp_path, lambda x: x[decoder][7, 3].add_(1))
    with pytest.raises(UserError, match=r"decoder\.weight is not the word embedding"):
        mlm_weights(tmp_path)
