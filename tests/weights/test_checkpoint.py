"""minbert/checkpoint.py: one folder that holds all it takes to answer."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.normalizers import Lowercase

from minbert.average import Average
from minbert.bert import BertModel
from minbert.checkpoint import about_model, load_model, load_trained, save_model, save_trained
from minbert.config import BertConfig
from minbert.data import Dataset, Example
from minbert.errors import UserError
from minbert.folder import RunFolder
from minbert.multitask import MultitaskBert
from minbert.pretrained import load_bert, load_tokenizer, save_pretrained
from minbert.run import Run
from minbert.state import read_state, write_state
from minbert.tasks import TASKS
from minbert.tokenizer import SPECIAL, BertTokenizer

VOCAB = [*SPECIAL, "A", "b", "c", "##d", "é"]
CONFIG = BertConfig(
    vocab_size=len(VOCAB), hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12,
    max_position_embeddings=16,
)  # fmt: skip
TEXTS = ("A b", "bd c c é")


def build(**options) -> MultitaskBert:
    return MultitaskBert(BertModel(CONFIG), ["sst", "para", "sts"], **options)


def answers(model: MultitaskBert, tokenizer: BertTokenizer) -> list[torch.Tensor]:
    """The model's outputs for a pair of texts, by each of its tasks."""
    model.eval()
    results = []
    for name in model.build["tasks"]:
        texts = TEXTS if TASKS[name].is_pair else TEXTS[:1]
        data = Dataset(TASKS[name], [Example("x", texts, None)], tokenizer, model.pairs[name])
        results.append(model(data.batch([0])))
    return results


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    model, tokenizer = build(), BertTokenizer(VOCAB, lowercase=False, max_length=9)
    path = tmp_path / "run" / "model"
    save_model(path, model, tokenizer, flags={"lr": 1e-5}, score=0.5)
    return path, model, tokenizer


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pooling": "mean", "heads": {"sts": "difference", "para": "concat"}},
        {"pairs": "joint", "dropout": 0.1},
    ],
)
def test_what_was_saved_answers_the_same(tmp_path, options):
    model, tokenizer = build(**options), BertTokenizer(VOCAB, lowercase=False, max_length=9)
    save_model(tmp_path / "model", model, tokenizer)
    again, its_tokenizer = load_model(tmp_path / "model")
    assert again.build == model.build and again.bert.config == CONFIG
    for before, after in zip(answers(model, tokenizer), answers(again, its_tokenizer), strict=True):
        assert torch.equal(before, after)
    other = answers(build(**options), tokenizer)  # random weights do not answer the same by chance
    assert not torch.equal(other[0], answers(again, its_tokenizer)[0])


def test_the_vocabulary_comes_along(saved):
    path, _, tokenizer = saved
    _, again = load_model(path)
    assert (again.vocab, again.lowercase, again.max_length) == (VOCAB, False, 9)
    assert again.encode(["A bd é"]) == tokenizer.encode(["A bd é"]) == [[5, 6, 8, 9]]


def test_the_tokenizers_settings_and_added_tokens_come_along(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(VOCAB))
    (tmp_path / "added_tokens.json").write_text(json.dumps({"[NAME]": len(VOCAB)}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True, "strip_accents": False}))
    tokenizer = BertTokenizer.from_files(tmp_path)
    config = dataclasses.replace(CONFIG, vocab_size=len(tokenizer))
    save_model(tmp_path / "model", MultitaskBert(BertModel(config), ["sst"]), tokenizer)
    assert tokenizer.encode(["É"]) == [[9]] and tokenizer.encode(["c [NAME]b"]) == [[7, 10, 6]]
    for again in (load_model(tmp_path / "model")[1], load_tokenizer(tmp_path / "model")):
        assert again.encode(["É", "c [NAME]b"]) == [[9], [7, 10, 6]]
        assert again.to_json() == tokenizer.to_json()


def checkpoint_of(path, model, tokenizer, beta: float = 0.0):
    """The last checkpoint of a run with that model, in which no step was done."""
    run = Run(RunFolder(path))
    run.register(model=model, average=Average(model, beta))
    run.about = about_model(model, tokenizer)
    run.save()
    return max((path / "checkpoints").iterdir())


@pytest.mark.parametrize("beta", [0.0, 0.9])
def test_the_bert_of_a_runs_checkpoint_is_a_starting_point(tmp_path, beta):
    """With the tokenizer and LoRA's matrices, and with θ where the checkpoint also has the mean θ̄."""
    model = build(additions={"lora": {"rank": 2}})
    model.eval()
    tokenizer = BertTokenizer(VOCAB, lowercase=False, max_length=9)
    for name, p in model.named_parameters():
        if "lora" in name:
            torch.nn.init.normal_(p)
    path = checkpoint_of(tmp_path, model, tokenizer, beta)
    save_model(tmp_path / "model", model, tokenizer)
    bert, expected = load_bert(path), load_bert(tmp_path / "model")
    ids = torch.tensor([[2, 5, 6, 3]])
    torch.testing.assert_close(bert(ids, torch.ones(1, 4)), expected(ids, torch.ones(1, 4)), rtol=0, atol=0)
    assert load_tokenizer(path).to_json() == tokenizer.to_json()
    assert load_model(path)[1].to_json() == tokenizer.to_json()


@pytest.mark.parametrize("older", [False, True])
def test_another_case_is_that_of_the_saved_tokenizer(saved, older):
    path, _, tokenizer = saved
    if older:
        content = read_state(path)
        del content["tokenizer"]
        write_state(path, content | {"vocab": VOCAB, "lowercase": False})
    assert BertTokenizer.from_pretrained(path).encode(["A é"]) == [[5, 9]]
    changed = BertTokenizer.from_pretrained(path, do_lower_case=True)
    assert changed.vocab == tokenizer.vocab and changed.lowercase and changed.encode(["A B"]) == [[1, 6]]
    assert BertTokenizer.from_pretrained(path, do_lower_case=False).encode(["A é"]) == [[5, 9]]


def test_the_case_of_another_cleaning_cannot_be_chosen(saved):
    path, _, tokenizer = saved
    pieces = Tokenizer.from_str(tokenizer.to_json())
    pieces.normalizer = Lowercase()
    write_state(path, read_state(path) | {"tokenizer": pieces.to_str()})
    assert BertTokenizer.from_pretrained(path).encode(["B"]) == [[6]]
    for case in (True, False):
        with pytest.raises(UserError, match="its case cannot be chosen"):
            BertTokenizer.from_pretrained(path, do_lower_case=case)


@pytest.mark.parametrize(
    ("entry", "value"),
    [("tokenizer", "{}"), ("config", {"hidden_size": "8"}), ("build", {"tasks": ["sst"], "attic": 1})],
)
def test_an_entry_that_cannot_be_used_is_one_line(saved, entry, value):
    path = saved[0]
    write_state(path, read_state(path) | {entry: value})
    refusal(path)


def test_what_was_trained_around_a_fresh_pooler_fits_again(tmp_path):
    """A masked language model has no pooler; the one that is made for it is the same each time, so its BERT is too."""
    save_pretrained(BertModel(CONFIG), BertTokenizer(VOCAB, lowercase=False), tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file(
        {name: tensor for name, tensor in weights.items() if "pooler" not in name}, tmp_path / "model.safetensors"
    )
    model = MultitaskBert(load_bert(tmp_path), ["sst"])
    model.freeze_bert()
    save_trained(tmp_path / "trained", model)
    torch.manual_seed(5)
    again = load_trained(tmp_path / "trained", load_bert(tmp_path))
    assert torch.equal(again.bert.pooler_dense.weight, model.bert.pooler_dense.weight)


def test_the_attention_can_be_another(saved):
    path, model, tokenizer = saved
    for before, after in zip(answers(model, tokenizer), answers(*load_model(path, "sdpa")), strict=True):
        torch.testing.assert_close(before, after)


def test_notes_are_kept(saved):
    assert read_state(saved[0])["notes"] == {"flags": {"lr": 1e-5}, "score": 0.5}


def test_its_bert_is_a_starting_point(saved):
    path, model, _ = saved
    bert = load_bert(path)
    assert bert.config == CONFIG
    for name, tensor in model.bert.state_dict().items():
        assert torch.equal(tensor, bert.state_dict()[name])
    assert load_tokenizer(path).vocab == VOCAB


def refusal(path) -> str:
    with pytest.raises(UserError) as caught:
        load_model(path)
    assert "model" in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


def test_another_programs_file(tmp_path):
    torch.save({"weight": torch.ones(2)}, tmp_path / "model")
    assert "a file and not the folder of a model" in refusal(tmp_path / "model")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "manifest.json"])
def test_a_file_cut_short(saved, name, share):
    path = saved[0] / name
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refusal(saved[0])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_with_a_weight_that_is_not_finite_is_not_written(tmp_path, value):
    model = build()
    with torch.no_grad():
        model.bert.pooler_dense.bias[3] = value
    with pytest.raises(UserError, match=r"bert\.pooler_dense\.bias is not a finite number"):
        save_model(tmp_path / "model", model, BertTokenizer(VOCAB))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["bert.pooler_dense.bias", "heads.sst.linear.weight"])
def test_a_missing_tensor_is_named(saved, name):
    path = saved[0]
    content = read_state(path)
    del content["model"][name]
    write_state(path, content)
    assert f"{name} is missing" in refusal(path)


def test_an_entry_too_few_is_one_line(saved):
    path = saved[0]
    content = read_state(path)
    for entry in ("model", "config", "build", "tokenizer", "max_length"):
        write_state(path, {key: value for key, value in content.items() if key != entry})
        refusal(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match="absent"):
        load_model(tmp_path / "absent")
