"""`train` with a model and data of a program: what run.json says of them, and which runs are the same."""

import json
from pathlib import Path

import pytest

from minbert.data import Dataset
from minbert.errors import UserError
from minbert.multitask import MultitaskBert
from minbert.report.compare import in_groups
from minbert.report.read import read_run
from minbert.report.sections import made
from minbert.tasks import TASKS
from multitask_classifier import train
from tests.tasks.small_models import TOKENIZER, build

TEXTS = ["w1 w2", "w3", "w4 w5", "w6 w7"]


def data(labels: tuple[int, ...] = (0, 1, 2, 3), dev: tuple[int, ...] = (0, 1, 2, 3)) -> dict[str, dict[str, Dataset]]:
    return {"sst": {split: Dataset.of(TASKS["sst"], TOKENIZER, TEXTS, numbers)
                    for split, numbers in (("train", labels), ("dev", dev))}}  # fmt: skip


def go(out: Path, model: MultitaskBert | None = None, sets=None, **flags) -> dict:
    """Train for one epoch of two steps; returns run.json."""
    train(model or build(), TOKENIZER, sets or data(), out=out, batch_size=2, **{"epochs": 1} | flags)
    return json.loads((out / "run.json").read_text())


def test_run_json_says_what_the_program_chose_and_nothing_of_flags_that_it_did_not_have(tmp_path):
    run = go(tmp_path, smart=5)
    assert run["flags"]["smart"] == run["changed"]["smart"] == 5 and run["flags"]["epochs"] == 1
    assert not {"pretrained", "pooling", "pairs", "lora_rank", "mode", "sst_train"} & set(run["flags"])
    assert run["weights"]["name"] == "a model of a program" and run["data"].keys() == {"sst/train", "sst/dev"}


def frozen() -> MultitaskBert:
    model = build()
    model.freeze_bert()
    return model


def other_weights() -> MultitaskBert:
    model = build()
    model.bert.pooler_dense.bias.data += 1e-3
    return model


MODELS = {
    "LoRA": lambda: build(additions={"lora": {"rank": 2}}),
    "pooling": lambda: build(pooling="mean"),
    "frozen": frozen,
    "other weights": other_weights,
}


def test_runs_of_different_models_or_data_are_no_seeds_of_each_other(tmp_path):
    for seed in (1, 2):
        go(tmp_path / f"same-{seed}", seed=seed)
    for name, make in MODELS.items():
        go(tmp_path / name, make())
    go(tmp_path / "data", sets=data(labels=(0, 1, 2, 4)))
    names = ["same-1", "same-2", *MODELS, "data"]
    groups = in_groups([read_run(tmp_path / name) for name in names])
    assert [len(group.runs) for group in groups] == [2, 1, 1, 1, 1, 1]
    assert groups[0].different.keys() == {"data (digest)", "weights (digest)"}


def test_the_page_of_a_program_s_run_names_no_weights_that_it_did_not_have(tmp_path):
    go(tmp_path)
    text = str(made(read_run(tmp_path)).blocks)
    assert "A program made the model and the data" in text and "a model of a program" in text
    assert "bert-base-uncased" not in text and "The command above repeats the run" not in text


def test_a_program_s_run_goes_on_with_the_same_model_and_data_alone(tmp_path):
    model = build()
    go(tmp_path, model)
    scores = train(model, TOKENIZER, data(), out=tmp_path, resume=True)  # the weights are trained ones by now
    assert scores == train(build(), TOKENIZER, data(), out=tmp_path, resume=True)
    for other, sets, words in (
        (build(pooling="mean"), data(), "the model is not built as when"),
        (build(), data(labels=(0, 1, 2, 4)), "the data of sst/train are not as when"),
        (build(), data(dev=(0, 1, 2, 4)), "the data of sst/dev are not as when"),
    ):
        with pytest.raises(UserError, match=words):
            train(other, TOKENIZER, sets, out=tmp_path, resume=True)


def test_a_program_s_run_of_an_earlier_version_goes_on(tmp_path):
    """Its run.json names flags and weights that the model did not have."""
    run = go(tmp_path)
    earlier = {"flags": run["flags"] | {"pooling": "cls"}, "weights": {"name": "bert-base-uncased"}, "data": {}}
    (tmp_path / "run.json").write_text(json.dumps(run | earlier))
    train(build(pooling="mean"), TOKENIZER, data(), out=tmp_path, resume=True)
