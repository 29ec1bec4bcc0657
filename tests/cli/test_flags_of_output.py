"""Flags that say what is printed, scored and answered, and on which machine part a run computes."""

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import multitask_classifier
from minbert.additions import part_of
from minbert.multitask import MultitaskBert
from tests.cli.folders import FILES, ROWS, equal
from tests.cli.runs import FULL

LORA = ("--lora_rank", "2")


def test_eval_train_scores_the_training_data_as_well(run):
    base, more = run(*FULL), run(*FULL, "--eval_train")
    assert set(more.metrics[0]["train"]) == set(ROWS) and "train" not in base.metrics[0]
    assert equal(base.weights, more.weights) and base.metrics[0]["dev"] == more.metrics[0]["dev"]
    same_files = [x for task, file in FILES.items() if task in ROWS for x in (f"--{task}_dev", "{data}/" + file)]
    itself = run(*FULL, "--eval_train", *(x.replace("{}", "train") for x in same_files))
    assert itself.metrics[0]["train"] == itself.metrics[0]["dev"]


def test_skip_predictions_trains_the_same_and_writes_none(run):
    base, without = run(*FULL), run(*FULL, "--skip_predictions")
    assert len(list(base.out.glob("predictions/*"))) == 6
    assert {path.name for path in without.out.iterdir()} == {"best", "checkpoints", "metrics.jsonl", "run.json"}
    assert equal(base.weights, without.weights) and base.metrics[0]["dev"] == without.metrics[0]["dev"]


def test_without_predictions_the_test_files_are_not_read(tiny, sample, tmp_path, capsys):
    (tmp_path / "broken.csv").write_text("no table")
    few = f"--pretrained {tiny} --data {sample} --limit 8 --epochs 1 --sst_test {tmp_path / 'broken.csv'}".split()
    with pytest.raises(SystemExit, match=r"broken\.csv"):
        multitask_classifier.main([*few, "--out", str(tmp_path / "with")])
    capsys.readouterr()
    multitask_classifier.main([*few, "--out", str(tmp_path / "without"), "--skip_predictions"])
    assert " test" not in capsys.readouterr().out.partition("parameters")[0]


def test_predict_answers_and_leaves_every_file_as_it_was(run, capsys):
    out = run(*FULL).out
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    capsys.readouterr()
    multitask_classifier.main(["--out", str(out), "--predict", "A film to remember."])
    one = capsys.readouterr().out
    multitask_classifier.main(["--out", str(out), "--predict", "What is love?", "What is love?"])
    two = capsys.readouterr().out
    assert [line.split()[0] for line in one.splitlines()] == ["SST-5"]
    assert [line.split()[0] for line in two.splitlines()] == ["Quora", "STS-B"]
    assert "5.0 of 5" in two  # the same sentence twice, under the cosine head
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("flags", "trained"),
    [
        ((), "heads"),
        (FULL, "BERT heads"),
        (LORA, "lora heads"),
        ((*FULL, "--adapter", "pal"), "BERT adapter heads"),
        (("--adapter", "pal", "--freeze_bert"), "adapter heads"),
        ((*LORA, "--adapter", "low_rank"), "lora adapter heads"),
    ],
)
def test_the_start_says_what_trains_and_how_much_of_the_model_it_is(run, capsys, flags, trained):
    saved = run.fresh(*flags)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("parameters")]
    counted = {part: 0 for part in re.findall("(BERT|lora|adapter|heads) ", line)}
    for name, tensor in {t.data_ptr(): (n, t) for n, t in saved.weights.items()}.values():  # shared ones once
        counted[part_of(name)] += tensor.numel()
    expected = {part: n if part in trained else 0 for part, n in counted.items()}
    assert {part: int(n.replace(",", "")) for part, n in re.findall(r"(\w+) ([\d,]+)(?:, |\))", line)} == expected
    assert f"{sum(expected.values()):,} trained" in line and f"of {sum(counted.values()):,}:" in line


@pytest.mark.parametrize(
    ("flags", "rate"),
    [((), "0.001"), (FULL, "1e-05"), (LORA, "0.001"), (("--adapter", "pal"), "1e-05"),
     (("--adapter", "pal", "--freeze_bert"), "0.001"), ((*FULL, "--lr", "2e-4"), "0.0002")],
)  # fmt: skip
def test_a_run_prints_its_learning_rate_which_follows_what_trains(run, capsys, flags, rate):
    argv = run.argv()
    del argv[argv.index("--lr") : argv.index("--lr") + 2]
    out = str(run.places["out"] / "rates" / "-".join(flags or ["none"]))
    multitask_classifier.main([*argv, "--limit", "8", "--skip_predictions", "--out", out, *flags])
    assert re.search(rf"^learning rate +{rate}$", capsys.readouterr().out, re.M)


def pretrained_part(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """BERT's own weights, without what was added to it."""
    return {name: tensor for name, tensor in weights.items() if part_of(name) == "BERT"}


def test_lora_trains_its_additions_where_its_flags_say_and_leaves_the_rest_of_bert(run, tiny):
    from minbert.pretrained import load_bert

    start, full = load_bert(tiny).state_dict(), run(*FULL)
    layers = {name.removesuffix(".weight") for name, tensor in start.items() if name.endswith(("dense.weight",
              "query.weight", "key.weight", "value.weight"))}  # fmt: skip
    two = {name for name in layers if name.endswith(("query", "value"))}
    for flags, where, names in (((), layers, ["all"]), (("--lora_targets", "query,value"), two, ["all"]),
                                (("--lora_per_task",), layers, list(ROWS))):  # fmt: skip
        lora = run(*LORA, *flags)
        assert equal({f"bert.{name}": tensor for name, tensor in start.items()}, pretrained_part(lora.bert))
        added = {name: tensor for name, tensor in lora.bert.items() if ".lora_" in name}
        assert set(added) == {f"bert.{layer}.lora_{x}.{name}" for layer in where for x in "AB" for name in names}
        assert all(tensor.any() for name, tensor in added.items() if "lora_B" in name and "pooler" not in name)
    assert not equal(pretrained_part(full.bert), pretrained_part(lora.bert))


@pytest.mark.parametrize("kind", ["pal", "low_rank"])
def test_an_adapter_trains_beside_bert(run, kind):
    base, added = run(*FULL), run(*FULL, "--adapter", kind)
    own = pretrained_part(added.bert)
    assert not equal(base.bert, own) and base.bert.keys() == own.keys()
    ends = {name: tensor for name, tensor in added.bert.items() if name.endswith("decode.weight")}
    assert len(ends) == 2 * len(ROWS) and all(tensor.any() for tensor in ends.values())  # they started at zero


def test_use_gpu_sends_the_models_to_cuda(run, monkeypatch):
    """On any machine: the test says that CUDA is there, and notes where the models are sent."""
    devices = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(MultitaskBert, "to", lambda self, device: (devices.append(str(device)), self)[1])
    run.fresh(*FULL)
    assert set(devices) == {"cpu"}
    devices.clear()
    run.fresh(*FULL, "--use_gpu")
    assert devices == ["cuda", "cuda"]  # to train, and the best one again to predict


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_learns_what_the_cpu_learns(run):
    cpu, gpu = run(*FULL).metrics[0], run(*FULL, "--use_gpu").metrics[0]
    assert gpu["loss"] == pytest.approx(cpu["loss"], rel=1e-2)


def test_use_gpu_without_a_gpu_is_one_line(places, refusal, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert "--use_gpu" in refusal(multitask_classifier.main, ["--use_gpu", "--pretrained", str(places["weights"])])


def test_attention_computes_the_same_numbers_in_another_way(run, monkeypatch):
    calls, fused = [], F.scaled_dot_product_attention

    def spy(*args, **options):
        calls.append("training" if torch.is_grad_enabled() else "evaluation")
        return fused(*args, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    beside = (*FULL, "--sts_head", "difference")
    plain = run.fresh(*beside)
    assert not calls
    sdpa = run.fresh(*beside, "--attention", "sdpa")
    assert calls.count("training") == 2 * 6  # two layers, six steps
    assert calls.count("evaluation") == 2 * (3 + 3 + 6)  # dev files twice in training, then all six
    assert sdpa.metrics[0]["loss"] == pytest.approx(plain.metrics[0]["loss"], rel=1e-4)
    file = "sts-dev-output.csv"
    np.testing.assert_allclose(sdpa.values(file), plain.values(file), atol=1e-3)
    other = run(*beside, "--seed", "1")  # a tolerance that other weights would pass would show nothing
    assert not np.allclose(other.values(file), plain.values(file), atol=1e-2)
