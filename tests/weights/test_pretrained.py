"""minbert/pretrained.py: real weights in every form that a directory can have, and back for transformers to read."""

import re
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

from minbert.bert import BertModel
from minbert.config import BertConfig
from minbert.errors import UserError
from minbert.hub import find
from minbert.pretrained import load_bert, load_tokenizer, save_pretrained
from minbert.tokenizer import BertTokenizer
from tests.weights.oracle_bert import CONFIG, VOCAB, assert_same_outputs, model_folder, put, random_bert, weights_of


@pytest.fixture(scope="module")
def theirs() -> transformers.BertModel:
    return random_bert()


@pytest.fixture
def folder(tmp_path) -> Path:
    return model_folder(tmp_path / "model")


# ---------------------------------------------------------------------------------------------- the forms of a file


def old_names(name: str) -> str:
    """As files of 2019 have them."""
    return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")


def tensorflow(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Google's names, by the table of transformers' own conversion script."""
    table = (
        ("layer.", "layer_"), ("word_embeddings.weight", "word_embeddings"),
        ("position_embeddings.weight", "position_embeddings"),
        ("token_type_embeddings.weight", "token_type_embeddings"), (".", "/"),
        ("LayerNorm/weight", "LayerNorm/gamma"), ("LayerNorm/bias", "LayerNorm/beta"), ("weight", "kernel"),
    )  # fmt: skip
    result = {}
    for name, tensor in weights.items():
        transposed = re.search(r"(dense|query|key|value)\.weight$", name)
        for old, new in table:
            name = name.replace(old, new)
        result[f"bert/{name}"] = (tensor.T if transposed else tensor).contiguous()
    return result


FORMS = {
    "plain": lambda weights: weights,
    "with the prefix bert. and heads": lambda weights: {
        **{f"bert.{name}": tensor for name, tensor in weights.items()},
        "bert.embeddings.position_ids": torch.arange(16)[None],
        "cls.predictions.bias": torch.ones(20),
        "cls.seq_relationship.weight": torch.ones(2, 64),
        "classifier.weight": torch.ones(2, 64),
    },
    "gamma and beta": lambda weights: {old_names(name): tensor for name, tensor in weights.items()},
    "tensorflow": tensorflow,
}


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_weights_directory(folder, theirs, form, file):
    weights = FORMS[form](weights_of(theirs))
    if file == "model.safetensors":
        put(folder, weights)
    else:
        torch.save(weights, folder / file)
    assert_same_outputs(load_bert(folder), theirs)


def test_other_weights_give_other_outputs(folder, theirs):
    weights = weights_of(theirs)
    weights["encoder.layer.1.output.dense.weight"] *= 1.01
    with pytest.raises(AssertionError):
        assert_same_outputs(load_bert(put(folder, weights)), theirs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precision_file_is_taken_to_float32(folder, theirs, dtype):
    halves = {name: tensor.to(dtype) for name, tensor in weights_of(theirs).items()}
    bert = load_bert(put(folder, halves))
    assert {parameter.dtype for parameter in bert.parameters()} == {torch.float32}
    rounded = transformers.BertModel(theirs.config).eval()
    rounded.load_state_dict({name: tensor.float() for name, tensor in halves.items()})
    assert_same_outputs(bert, rounded)


def test_safetensors_is_preferred(folder, theirs):
    torch.save({"not": "looked at"}, folder / "pytorch_model.bin")
    assert_same_outputs(load_bert(put(folder, weights_of(theirs))), theirs)


def test_dropout_replaces_both_rates(folder, theirs):
    put(folder, weights_of(theirs))
    config = load_bert(folder, dropout=0.25).config
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob) == (0.25, 0.25)
    assert load_bert(folder).config == CONFIG


# ---------------------------------------------------------------------------------------------- from_pretrained


def test_it_comes_in_eval_mode_and_says_the_same_twice(folder, theirs):
    put(folder, weights_of(theirs))
    bert = BertModel.from_pretrained(folder)
    assert not any(module.training for module in bert.modules())
    ids, mask = torch.tensor([[2, 5, 6, 3]]), torch.ones(1, 4)
    assert torch.equal(bert(ids, mask)["pooler_output"], bert(ids, mask)["pooler_output"])
    assert not torch.equal(bert.train()(ids, mask)["pooler_output"], bert(ids, mask)["pooler_output"])


class Classifier(BertModel):
    """BERT with a head of its own, as a student writes it."""

    def __init__(self, config: BertConfig):
        super().__init__(config)
        self.head = torch.nn.Linear(config.hidden_size, 5)


def test_a_subclass_comes_as_itself_with_its_own_parts_fresh(folder, theirs):
    put(folder, weights_of(theirs))
    model = Classifier.from_pretrained(folder)
    assert type(model) is Classifier and model.head.out_features == 5 and not model.training
    assert_same_outputs(model, theirs)


def test_a_subclass_without_a_part_of_bert_is_refused(folder, theirs):
    class Headless(BertModel):
        def __init__(self, config: BertConfig):
            super().__init__(config)
            del self.pooler_dense

    put(folder, weights_of(theirs))
    with pytest.raises(TypeError, match=r"pooler_dense\.weight"):
        Headless.from_pretrained(folder)


def test_the_courses_state_has_its_positions_in_it():
    bert = BertModel(CONFIG)
    state = {**bert.state_dict(), "position_ids": torch.arange(16)[None]}
    assert "position_ids" not in bert.state_dict()
    BertModel(CONFIG).load_state_dict(state)
    whole = torch.nn.ModuleDict({"bert": BertModel(CONFIG)})
    whole.load_state_dict({f"bert.{name}": tensor for name, tensor in state.items()})
    with pytest.raises(RuntimeError, match="positions"):
        bert.load_state_dict({**bert.state_dict(), "positions": torch.arange(16)})


# ---------------------------------------------------------------------------------------------- there and back

TEXTS = ["Hello, abab k", "cab b"]


def assert_same_ids(ours: BertTokenizer, folder: Path, texts: list[str]):
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    options = {"padding": True, "truncation": True, "return_tensors": "pt"}
    expected = theirs(texts, texts[::-1], **options)
    for name, tensor in ours(texts, texts[::-1], **options).items():
        assert torch.equal(tensor, expected[name])


@pytest.mark.parametrize("lowercase", [True, False])
def test_transformers_loads_what_we_save(tmp_path, lowercase):
    torch.manual_seed(3)
    bert, tokenizer = BertModel(CONFIG), BertTokenizer(VOCAB, lowercase)
    save_pretrained(bert, tokenizer, tmp_path)
    their_bert, report = transformers.BertModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert_same_outputs(bert.eval(), their_bert.eval())
    assert_same_ids(tokenizer, tmp_path, TEXTS)


def test_what_we_save_is_cut_by_transformers_where_the_model_ends(tmp_path):
    bert, tokenizer = BertModel(CONFIG), BertTokenizer(VOCAB, max_length=CONFIG.max_position_embeddings)
    save_pretrained(bert, tokenizer, tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.model_max_length == CONFIG.max_position_embeddings
    assert len(theirs("a " * 700, truncation=True)["input_ids"]) == CONFIG.max_position_embeddings


def test_we_load_what_we_save_bit_for_bit(tmp_path):
    bert = BertModel(CONFIG)
    save_pretrained(bert, BertTokenizer(VOCAB, lowercase=False), tmp_path)
    again = load_bert(tmp_path)
    assert again.config == CONFIG and again.state_dict().keys() == bert.state_dict().keys()
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in bert.state_dict().items())
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.vocab, tokenizer.lowercase, tokenizer.max_length) == (VOCAB, False, 16)


def test_we_load_what_transformers_saves(tmp_path, theirs):
    theirs.save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join(VOCAB))
    assert_same_outputs(load_bert(tmp_path), theirs)


@pytest.fixture(scope="module")
def minilm() -> Path:
    try:
        return find("minilm", local_files_only=True)
    except UserError as error:
        pytest.skip(str(error))


def test_minilm_is_the_same_bert_in_transformers(minilm, tmp_path):
    ours, theirs = load_bert(minilm), transformers.BertModel.from_pretrained(minilm).eval()
    assert_same_outputs(ours, theirs)
    tokenizer = load_tokenizer(minilm)
    save_pretrained(ours, tokenizer, tmp_path)
    assert_same_outputs(ours, transformers.BertModel.from_pretrained(tmp_path).eval())
    assert_same_ids(tokenizer, tmp_path, ["Crème brûlée couldn't", "unaffable 北京 [MASK]", "x" * 101])
    before, after = (load_file(folder / "model.safetensors") for folder in (minilm, tmp_path))
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())
