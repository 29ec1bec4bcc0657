"""Every flag does something, and what cannot work is refused.

A flag that trains is flipped alone, on a run of a second (a tiny random BERT, a few rows, one epoch): BERT's weights
in OUT/best.pt must differ from those of the same run without it. Dropout is 0 in these runs, so no flag can pass by
merely shifting the random numbers. Flags of place and output are seen to have their effect instead. The list of
flags is read from the parser: a new flag, or a new choice of an old one, fails here until it has its case.
"""

import argparse
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import classifier
import multitask_classifier
from minbert.checkpoint import load_model, load_trained
from minbert.data import read_examples
from minbert.errors import Parser
from minbert.multitask import MultitaskBert, part_of
from minbert.pretrained import load_bert
from minbert.sampling import SCHEDULES
from minbert.tasks import TASKS

FILES = {"sst": "ids-sst-{}.csv", "para": "quora-{}.csv", "sts": "sts-{}.csv", "cfimdb": "ids-cfimdb-{}.csv"}
ROWS = {"sst": 24, "para": 96, "sts": 16}  # of the training files: unlike, so that the schedules have something to do
FULL = ("--fine-tune-mode", "full-model")
LORA = ("--lora_rank", "2")
SMART = (*FULL, "--smart", "100", "--smart_epsilon", "0.1")  # at the paper's ε the term of a tiny BERT is 1e-12
BREGMAN = (*FULL, "--bregman", "100")


# ------------------------------------------------------------------------------------------ the parser's own list


class Caught(Exception):
    """Carries a parser out of the function that made it."""


def parser_of(get_args) -> Parser:
    def stop(self, *args):
        raise Caught(self)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Caught) as caught:
        patch.setattr(Parser, "parse_args", stop)
        get_args([])
    return caught.value.args[0]


def flags_of(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """Every flag but --help, by the name that help shows."""
    flags = {action.option_strings[-1]: action for action in parser._actions}
    assert flags.pop("--help")
    return flags


FLAGS = flags_of(parser_of(multitask_classifier.get_args))


# ------------------------------------------------------------------------------------------ a run


def copy_rows(source: Path, target: Path, start: int, stop: int):
    """Some rows of a file, with its header."""
    header, *rows = source.read_text("utf-8").splitlines(keepends=True)
    target.write_text(header + "".join(rows[start:stop]), "utf-8")


def write_cfimdb(sample: Path, folder: Path):
    """Files of CFIMDB's form: SST's sentences with labels 0 and 1, cut from the clearly good and bad."""
    rows = (sample / "ids-sst-train.csv").read_text("utf-8").splitlines()
    clear = [row.rpartition("\t") for row in rows[1:] if row[-1] in "0134"]
    lines = [f"{left}\t{int(int(label) > 2)}\n" for left, _, label in clear]
    header = rows[0] + "\n"
    (folder / "ids-cfimdb-train.csv").write_text(header + "".join(lines[:20]), "utf-8")
    (folder / "ids-cfimdb-dev.csv").write_text(header + "".join(lines[20:28]), "utf-8")
    unlabelled = [line.rpartition("\t")[0] + "\n" for line in [header, *lines[28:32]]]
    (folder / "ids-cfimdb-test-student.csv").write_text("".join(unlabelled), "utf-8")


@pytest.fixture(scope="module")
def places(tiny, sample, tmp_path_factory) -> dict[str, Path]:
    """The weights, two folders of data with no row in common, and where the runs write."""
    root = tmp_path_factory.mktemp("flags")
    folders = {"data": root / "data", "other": root / "other", "out": root / "out", "weights": tiny}
    for i, name in enumerate(("data", "other")):
        folders[name].mkdir()
        for task, rows in ROWS.items():
            for split, count in (("train", rows), ("dev", 8), ("test-student", 4)):
                file = FILES[task].format(split)
                copy_rows(sample / file, folders[name] / file, i * count, (i + 1) * count)
        write_cfimdb(sample, folders[name])
    return folders


class Run:
    """What a run left behind."""

    def __init__(self, out: Path):
        self.out = out
        saved = torch.load(out / "best.pt", weights_only=True)
        self.weights, self.build = saved["model"], saved["build"]
        self.bert = {name: tensor for name, tensor in self.weights.items() if name.startswith("bert.")}
        self.metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]

    def ids(self, file: str) -> list[str]:
        return [line.split(" , ")[0] for line in (self.out / "predictions" / file).read_text().splitlines()[1:]]

    def values(self, file: str) -> np.ndarray:
        lines = (self.out / "predictions" / file).read_text().splitlines()[1:]
        return np.array([float(line.split(" , ")[1]) for line in lines])


class Runner:
    """Runs of multitask_classifier.py, each command once; `{other}` in a flag stands for that folder."""

    def __init__(self, places: dict[str, Path]):
        self.places, self.done = places, {}

    def argv(self, *flags: str) -> list[str]:
        base = ["--pretrained", "{weights}", "--data", "{data}", "--epochs", "1", "--lr", "1e-3", "--batch_size", "8"]
        no_dropout = ["--hidden_dropout_prob", "0", "--bert_dropout", "0"]
        return [flag.format(**self.places) for flag in (*base, *no_dropout, *flags)]

    def fresh(self, *flags: str) -> Run:
        out = self.places["out"] / str(len(list(self.places["out"].glob("*"))) if self.places["out"].exists() else 0)
        multitask_classifier.main(["--out", str(out), *self.argv(*flags)])
        return Run(out)

    def __call__(self, *flags: str) -> Run:
        if flags not in self.done:
            self.done[flags] = self.fresh(*flags)
        return self.done[flags]


@pytest.fixture(scope="module")
def run(places) -> Runner:
    return Runner(places)


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


# ------------------------------------------------------------------------------------------ flags that train

# flag → the values that it is flipped to, and the flags that it needs beside it (the base run has those as well)
TRAINING: dict[str, tuple[list[list[str]], tuple[str, ...]]] = {
    "--data": ([["{other}"]], FULL),
    "--limit": ([["12"], ["24,12,24"]], FULL),
    "--tasks": ([["sst,para"], ["sts"]], FULL),
    "--sst_train": ([["{other}/ids-sst-train.csv"]], FULL),
    "--para_train": ([["{other}/quora-train.csv"]], FULL),
    "--sts_train": ([["{other}/sts-train.csv"]], FULL),
    "--pretrained": ([["{trained}"]], FULL),
    "--fine-tune-mode": ([["full-model"]], ()),
    "--option": ([["finetune"]], ()),
    "--pooling": ([["mean"]], FULL),
    "--hidden_dropout_prob": ([["0.3"]], FULL),
    "--bert_dropout": ([["0.1"]], FULL),
    "--pairs": ([["joint"]], FULL),
    "--para_head": ([["concat"], ["dot"], ["relational"]], FULL),
    "--sts_head": ([["dot"], ["difference"], ["hadamard"], ["cross_attention"], ["relational"]], FULL),
    "--sts_loss": ([["cosine"]], FULL),
    "--seed": ([["1"]], FULL),
    "--epochs": ([["2"]], (*FULL, "--lr_decay", "linear")),  # so that the first epoch, too, is another one
    "--steps_per_epoch": ([["1"], ["3"]], FULL),
    "--batch_size": ([["4"]], FULL),
    "--lr": ([["2e-3"]], FULL),
    "--head_lr": ([["1e-2"]], FULL),
    "--warmup": ([["0.5"]], FULL),
    "--lr_decay": ([["linear"]], FULL),
    "--weight_decay": ([["0.1"]], FULL),
    "--no_decay_norms": ([[]], (*FULL, "--weight_decay", "0.1")),
    "--clip": ([["0.01"]], FULL),
    "--precision": ([["bf16"]], FULL),
    "--schedule": ([[name] for name in SCHEDULES if name != "round_robin"], FULL),
    "--combine": ([["sum"], ["pcgrad"], ["gradvac"], ["cagrad"]], FULL),
    "--task_weights": ([["1,2,3"], ["1,1,.01"]], FULL),
    "--lora_alpha": ([["32"]], LORA),
    "--lora_dropout": ([["0.5"]], LORA),
    "--adapter_size": ([["8"]], (*FULL, "--adapter", "pal")),
    "--adapter_activation": ([["gelu"]], (*FULL, "--adapter", "low_rank")),
    "--freeze_bert": ([[]], (*FULL, "--adapter", "pal")),
    "--smart": ([["5"], ["100"]], FULL),  # some last bits, no more; test_smart_training.py has it where it counts
    "--smart_epsilon": ([["0.1"], ["0.2"]], (*FULL, "--smart", "100")),
    "--smart_sigma": ([["0.1"]], SMART),
    "--smart_eta": ([["0.05"]], SMART),
    "--smart_steps": ([["2"], ["3"]], SMART),
    "--smart_noise": ([["relative"]], SMART),
    "--smart_tasks": ([["sst"], ["para"], ["sts"], ["sts,sst"]], SMART),
    "--bregman": ([["1"], ["100"]], FULL),
    "--bregman_beta": ([["0.5"], ["0.99,0.999"], ["0.995,0.999"]], BREGMAN),
}
DEFAULTS = {  # values that say the default in so many words: equal to it by the test below; choices need no case then
    ("--option", "pretrain"): (),
    ("--fine-tune-mode", "last-linear-layer"): (),
    ("--para_head", "difference"): FULL,
    ("--sts_head", "cosine"): FULL,
    ("--smart", "0"): FULL,
    ("--smart_epsilon", "1e-5"): (*FULL, "--smart", "100"),
    ("--smart_epsilon", "0.05"): (*FULL, "--smart", "100", "--smart_noise", "relative"),
    ("--smart_sigma", "1e-5"): SMART,
    ("--smart_eta", "10"): SMART,  # 100·ε
    ("--smart_steps", "1"): SMART,
    ("--smart_noise", "ball"): SMART,
    ("--smart_tasks", "sts,sst,para"): SMART,
    ("--bregman", "0"): FULL,
    ("--bregman_beta", "0.995"): BREGMAN,
    ("--bregman_beta", "0.995,0.995"): BREGMAN,
}
DEFAULTS |= {("--adapter_activation", "identity"): (*FULL, "--adapter", "low_rank")}
SEEN: dict[str, str] = {}  # flags of place and output → the test that sees their effect


def sees(*flags: str):
    """Marks a test as the one that sees what these flags do."""

    def mark(test):
        SEEN.update(dict.fromkeys(flags, test.__name__))
        return test

    return mark


def test_every_flag_has_its_case():
    assert set(FLAGS) == set(TRAINING) | set(SEEN)
    assert not set(TRAINING) & set(SEEN)


def test_every_choice_of_a_flag_has_its_case():
    for flag, (values, _) in TRAINING.items():
        action = FLAGS[flag]
        if action.choices:
            missing = set(action.choices) - {action.default} - {value for (value,) in values}
            assert {(flag, choice) for choice in missing} <= set(DEFAULTS), flag


def test_the_same_command_gives_the_same_weights_bit_by_bit(run):
    """Without this, that two runs differ would mean nothing."""
    one, again = run(*FULL), run.fresh(*FULL)
    assert one.out != again.out and equal(one.weights, again.weights)
    assert one.values("sts-dev-output.csv").tolist() == again.values("sts-dev-output.csv").tolist()


@pytest.mark.parametrize(("case", "beside"), DEFAULTS.items())
def test_the_default_in_so_many_words_changes_nothing(run, case, beside):
    assert equal(run(*beside).weights, run(*beside, *case).weights)


CASES = [(flag, value, beside) for flag, (values, beside) in TRAINING.items() for value in values]


@pytest.mark.parametrize(
    ("flag", "value", "beside"), CASES, ids=[" ".join([flag, *value]).replace("/", "|") for flag, value, _ in CASES]
)
def test_flipping_a_flag_changes_what_bert_learns(run, places, flag, value, beside):
    base = run(*beside)
    places["trained"] = run(*FULL).out / "best.pt"  # for --pretrained: start where another run ended
    flipped = run(*beside, flag, *value)
    assert base.bert.keys() == flipped.bert.keys()
    assert not equal(base.bert, flipped.bert)


@pytest.mark.parametrize(
    "flag",
    ["--combine", "--schedule", "--sts_head", "--para_head", "--steps_per_epoch", "--smart_epsilon", "--smart_steps",
     "--smart_tasks", "--bregman", "--bregman_beta"],
)  # fmt: skip
def test_the_choices_of_a_flag_differ_from_one_another(run, flag):
    """At one epoch `annealed` is `proportional` by its definition, α = 1; below they part."""
    values, beside = TRAINING[flag]
    names = [value for (value,) in values if value != "annealed"]
    runs = [run(*beside, flag, name) for name in names]
    for i, one in enumerate(runs):
        for j, other in enumerate(runs[:i]):
            assert not equal(one.bert, other.bert), (names[i], names[j])


def test_annealed_parts_from_proportional_after_the_first_epoch(run):
    beside = (*FULL, "--epochs", "2", "--schedule")
    annealed, proportional = run(*beside, "annealed"), run(*beside, "proportional")
    assert annealed.metrics[0]["loss"] == proportional.metrics[0]["loss"]
    assert annealed.metrics[1]["loss"] != proportional.metrics[1]["loss"]


def test_a_frozen_bert_is_what_it_was(run, places):
    """So in the cases of --fine-tune-mode and --option it is the flipped run that trains BERT."""
    start = torch.load(run().out / "best.pt", weights_only=True)["model"]
    mode = run("--fine-tune-mode", "last-linear-layer")
    assert equal(start, mode.weights)
    longer = run("--epochs", "2")
    assert equal({n: t for n, t in start.items() if n.startswith("bert.")}, longer.bert)


@pytest.mark.parametrize(("option", "mode"), [("pretrain", "last-linear-layer"), ("finetune", "full-model")])
def test_the_two_names_of_a_mode_are_one_thing(run, option, mode):
    assert equal(run("--option", option).weights, run("--fine-tune-mode", mode).weights)


def test_epochs_and_steps_are_as_many_as_asked_for(run, monkeypatch):
    """Rows are 24, 96 and 16, a batch is 8: the smallest task has two batches, and a step of round_robin has three."""
    assert len(run(*FULL).metrics) == 1
    assert len(run(*FULL, "--epochs", "2", "--lr_decay", "linear").metrics) == 2
    updates = []
    step = multitask_classifier.AdamW.step
    monkeypatch.setattr(multitask_classifier.AdamW, "step", lambda self: (updates.append(1), step(self)))
    for more, expected in (((), 2 * 3), (("--steps_per_epoch", "1"), 3), (("--combine", "sum"), 2),
                           (("--epochs", "2"), 12), (("--batch_size", "4"), 4 * 3),
                           (("--schedule", "sequential"), 3 + 12 + 2)):  # fmt: skip
        updates.clear()
        run.fresh(*FULL, *more)
        assert len(updates) == expected, more


def test_head_lr_is_the_heads_rate_alone(run, monkeypatch):
    rates = {}
    groups = multitask_classifier.parameter_groups

    def spy(model, *options):
        found = groups(model, *options)
        rates.update({id(p): group["lr"] for group in found for p in group["params"]})
        assert {rates[id(p)] for p in model.bert.parameters()} == {1e-3}
        assert {rates[id(p)] for p in model.heads.parameters()} == {1e-2}
        return found

    monkeypatch.setattr(multitask_classifier, "parameter_groups", spy)
    run.fresh(*FULL, "--head_lr", "1e-2")
    assert rates


def test_no_decay_norms_spares_biases_and_norms_alone(run, monkeypatch):
    """Which tensors decay: those with two dimensions, which is another way to say it."""
    groups = multitask_classifier.parameter_groups
    found = []

    def spy(model, *options):
        found.extend(groups(model, *options))
        return found

    monkeypatch.setattr(multitask_classifier, "parameter_groups", spy)
    run.fresh(*FULL, "--weight_decay", "0.1", "--no_decay_norms")
    for group in found:
        assert {p.dim() for p in group["params"]} == ({2} if group["weight_decay"] == 0.1 else {1})
    assert {group["weight_decay"] for group in found} == {0.0, 0.1}


def pretrained(run: Run) -> dict[str, torch.Tensor]:
    """BERT's own weights after a run, without what was added to it."""
    return {name: tensor for name, tensor in run.bert.items() if part_of(name) == "BERT"}


@sees("--lora_rank", "--lora_targets", "--lora_per_task")
def test_lora_trains_what_it_adds_where_it_was_asked_to_and_nothing_else_of_bert(run, tiny):
    """What a run without the flag does to BERT's own weights, one with it does to the additions."""
    start, full = load_bert(tiny).state_dict(), run(*FULL)
    layers = {name.removesuffix(".weight") for name, tensor in start.items() if name.endswith(("dense.weight",
              "query.weight", "key.weight", "value.weight"))}  # fmt: skip
    asked = {name for name in layers if name.endswith(("query", "value"))}
    for flags, where, names in (((), layers, ["all"]), (("--lora_targets", "query,value"), asked, ["all"]),
                                (("--lora_per_task",), layers, list(ROWS))):  # fmt: skip
        lora = run(*LORA, *flags)
        assert equal({f"bert.{name}": tensor for name, tensor in start.items()}, pretrained(lora))
        added = {name: tensor for name, tensor in lora.bert.items() if ".lora_" in name}
        assert set(added) == {f"bert.{layer}.lora_{x}.{name}" for layer in where for x in "AB" for name in names}
        assert all(tensor.any() for name, tensor in added.items() if "lora_B" in name and "pooler" not in name)
    assert not equal(pretrained(full), pretrained(lora))


@sees("--adapter")
@pytest.mark.parametrize("kind", ["pal", "low_rank"])
def test_an_adapter_trains_beside_bert(run, kind):
    base, added = run(*FULL), run(*FULL, "--adapter", kind)
    assert not equal(base.bert, pretrained(added)) and base.bert.keys() == pretrained(added).keys()
    ends = {name: tensor for name, tensor in added.bert.items() if name.endswith("decode.weight")}
    assert len(ends) == 2 * len(ROWS) and all(tensor.any() for tensor in ends.values())  # they started at zero


def test_frozen_runs_leave_what_they_made_beside_best(run, tiny):
    """OUT/trained.pt around BERT as it was is OUT/best.pt; where BERT trained there is none."""
    for flags in (LORA, (*FULL, "--adapter", "low_rank", "--freeze_bert")):
        out = run(*flags).out
        again = load_trained(out / "trained.pt", load_bert(tiny))
        assert equal(load_model(out / "best.pt")[0].state_dict(), again.state_dict())
    assert not (run(*FULL, "--adapter", "low_rank").out / "trained.pt").exists()


@pytest.mark.parametrize(
    ("flags", "trained"),
    [
        ((), "heads"),
        (FULL, "BERT heads"),
        (LORA, "LoRA heads"),
        ((*FULL, "--adapter", "pal"), "BERT adapters heads"),
        (("--adapter", "pal", "--freeze_bert"), "adapters heads"),
        ((*LORA, "--adapter", "low_rank"), "LoRA adapters heads"),
    ],
)
def test_what_trains_is_said_at_the_start(run, capsys, flags, trained):
    saved = run.fresh(*flags)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("parameters")]
    counted = {part: 0 for part in re.findall("(BERT|LoRA|adapters|heads) ", line)}
    for name, tensor in {t.data_ptr(): (n, t) for n, t in saved.weights.items()}.values():  # shared ones once
        counted[part_of(name)] += tensor.numel()
    expected = {part: n if part in trained else 0 for part, n in counted.items()}
    assert {part: int(n.replace(",", "")) for part, n in re.findall(r"(\w+) ([\d,]+)(?:, |\))", line)} == expected
    assert f"{sum(expected.values()):,} trained" in line and f"of {sum(counted.values()):,}:" in line


def test_the_rate_follows_what_is_frozen():
    """The course's two, 1e-3 for a frozen BERT and 1e-5 for one that trains."""
    for flags, rate in ((LORA, 1e-3), (("--adapter", "pal"), 1e-5), (("--adapter", "pal", "--freeze_bert"), 1e-3),
                        (FULL, 1e-5), ((), 1e-3), ((*LORA, "--lr", "2e-4"), 2e-4)):  # fmt: skip
        args = multitask_classifier.get_args(list(flags))
        assert args.lr == rate and args.mode == ("full-model" if flags else "last-linear-layer")


# ------------------------------------------------------------------------------------------ flags of place and output


@sees("--out")
def test_out_is_where_everything_goes(run, places, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    multitask_classifier.main(["--out", str(tmp_path / "a" / "b"), *run.argv(*FULL)])
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    predictions = {f"a/b/predictions/{task}-{split}-output.csv" for task in ROWS for split in ("dev", "test")}
    assert written == {"a/b/best.pt", "a/b/metrics.jsonl"} | predictions


@sees("--sst_dev", "--para_dev", "--sts_dev", "--sst_test", "--para_test", "--sts_test")
@pytest.mark.parametrize("task", list(ROWS))
@pytest.mark.parametrize("split", ["dev", "test"])
def test_another_dev_or_test_file_is_predicted_and_nothing_else_changes(run, places, task, split):
    file = FILES[task].format({"dev": "dev", "test": "test-student"}[split])
    base, other = run(*FULL), run(*FULL, f"--{task}_{split}", f"{{other}}/{file}")
    for name in ROWS:
        for s in ("dev", "test"):
            same = base.ids(f"{name}-{s}-output.csv") == other.ids(f"{name}-{s}-output.csv")
            assert same == ((name, s) != (task, split))
    asked = read_examples(places["other"] / file, TASKS[task])
    assert other.ids(f"{task}-{split}-output.csv") == [example.id for example in asked]
    assert equal(base.weights, other.weights)


@sees("--sst_dev_out", "--para_dev_out", "--sts_dev_out", "--sst_test_out", "--para_test_out", "--sts_test_out")
@pytest.mark.parametrize("task", list(ROWS))
@pytest.mark.parametrize("split", ["dev", "test"])
def test_a_prediction_file_can_go_elsewhere(run, tmp_path, task, split):
    """To a folder that is not there yet, as the course's own `predictions/` is not."""
    base, path = run(*FULL), tmp_path / "new" / "mine.csv"
    moved = run.fresh(*FULL, f"--{task}_{split}_out", str(path))
    default = f"predictions/{task}-{split}-output.csv"
    assert path.read_bytes() == (base.out / default).read_bytes() and not (moved.out / default).exists()
    assert len(list(moved.out.glob("predictions/*"))) == 5


@sees("--eval_train")
def test_eval_train_scores_the_training_data_as_well(run):
    base, more = run(*FULL), run(*FULL, "--eval_train")
    assert set(more.metrics[0]["train"]) == set(ROWS) and "train" not in base.metrics[0]
    assert equal(base.weights, more.weights) and base.metrics[0]["dev"] == more.metrics[0]["dev"]
    same_files = [x for task, file in FILES.items() if task in ROWS for x in (f"--{task}_dev", "{data}/" + file)]
    itself = run(*FULL, "--eval_train", *(x.replace("{}", "train") for x in same_files))
    assert itself.metrics[0]["train"] == itself.metrics[0]["dev"]


@sees("--skip_predictions")
def test_skip_predictions_trains_the_same_and_writes_none(run):
    base, without = run(*FULL), run(*FULL, "--skip_predictions")
    assert len(list(base.out.glob("predictions/*"))) == 6
    assert {path.name for path in without.out.iterdir()} == {"best.pt", "metrics.jsonl"}
    assert equal(base.weights, without.weights) and base.metrics[0]["dev"] == without.metrics[0]["dev"]


@sees("--predict")
def test_predict_answers_and_leaves_everything_as_it_was(run, capsys):
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


@sees("--overwrite")
def test_a_run_is_not_written_over_unless_asked(places, tmp_path, refusal):
    argv = ["--pretrained", str(places["weights"]), "--data", str(places["data"]), "--out", str(tmp_path)]
    argv += ["--epochs", "1", "--limit", "8", "--skip_predictions", *FULL]
    multitask_classifier.main(argv)
    first = (tmp_path / "best.pt").read_bytes()
    assert "--overwrite" in refusal(multitask_classifier.main, [*argv, "--seed", "1"])
    assert (tmp_path / "best.pt").read_bytes() == first
    multitask_classifier.main([*argv, "--seed", "1", "--overwrite"])
    assert (tmp_path / "best.pt").read_bytes() != first


@sees("--quickstart")
def test_quickstart_changes_defaults_and_every_flag_beside_it_still_counts(places, tmp_path):
    plain, quick = multitask_classifier.get_args([]), multitask_classifier.get_args(["--quickstart"])
    for name in multitask_classifier.QUICKSTART:
        assert getattr(quick, name) != getattr(plain, name), f"{name} is what it would be anyhow"
    assert (quick.pretrained, quick.mode, Path(quick.data).name) == ("minilm", "full-model", "sample")
    own = ["--quickstart", "--pretrained", str(places["weights"]), "--data", str(places["data"]), "--epochs", "2"]
    multitask_classifier.main([*own, "--out", str(tmp_path)])
    run = Run(tmp_path)
    assert len(run.metrics) == 2 and run.build["pooling"] == "mean" and run.build["heads"]["para"] == "relational"


@sees("--use_gpu")
def test_use_gpu_asks_for_cuda(run, monkeypatch):
    """On whatever machine: CUDA is said to be there, and where the models are sent is written down."""
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(MultitaskBert, "to", lambda self, device: (asked.append(str(device)), self)[1])
    run.fresh(*FULL)
    assert set(asked) == {"cpu"}
    asked.clear()
    run.fresh(*FULL, "--use_gpu")
    assert asked == ["cuda", "cuda"]  # to train, and the best one again to predict


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_learns_what_the_cpu_learns(run):
    cpu, gpu = run(*FULL).metrics[0], run(*FULL, "--use_gpu").metrics[0]
    assert gpu["loss"] == pytest.approx(cpu["loss"], rel=1e-2)


@sees("--attention")
def test_attention_goes_another_way_to_the_same_numbers(run, monkeypatch):
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
    assert calls.count("evaluation") == 2 * (3 + 6)  # three dev files after the epoch, then those and three test files
    assert sdpa.metrics[0]["loss"] == pytest.approx(plain.metrics[0]["loss"], rel=1e-4)
    file = "sts-dev-output.csv"
    np.testing.assert_allclose(sdpa.values(file), plain.values(file), atol=1e-3)
    other = run(*beside, "--seed", "1")  # a tolerance that other weights would pass would show nothing
    assert not np.allclose(other.values(file), plain.values(file), atol=1e-2)


# ------------------------------------------------------------------------------------------ refused


SURGERY = ("pcgrad", "gradvac", "cagrad")
SMART_FLAGS = {"epsilon": "1e-3", "sigma": "1e-3", "eta": "1e-3", "steps": "2", "noise": "ball"}  # and a value
REFUSED = [  # the flags, and what the one line must name
    *(((f"--pairs joint --sts_head {head}"), ("--pairs joint", f"--sts_head {head}")) for head in ("cosine", "dot")),
    *(((f"--pairs joint --para_head {head}"), ("--pairs joint", f"--para_head {head}")) for head in ("dot", "concat")),
    ("--para_head cosine", ("--para_head", "cosine")),
    ("--sts_loss cosine --sts_head dot", ("--sts_loss cosine", "--sts_head")),
    ("--sts_loss cosine", ("--sts_loss cosine", "--fine-tune-mode")),
    ("--sts_loss cosine --pairs joint", ("--sts_loss cosine", "--pairs")),
    ("--sts_loss cosine --tasks sst,para", ("--sts_loss cosine", "--tasks")),
    *((f"--combine {way} --tasks sst --option finetune", (f"--combine {way}", "--tasks")) for way in SURGERY),
    *((f"--combine {way}", (f"--combine {way}", "--fine-tune-mode last-linear-layer")) for way in SURGERY),
    *((f"--combine {way} --option pretrain", (f"--combine {way}", "last-linear-layer")) for way in SURGERY),
    *(
        (f"--combine {way} --schedule {name} --fine-tune-mode full-model", (f"--combine {way}", f"--schedule {name}"))
        for way in ("sum", *SURGERY)
        for name in ("sequential", "proportional", "sqrt", "uniform", "annealed", "priority")
    ),
    ("--steps_per_epoch 5 --schedule sequential", ("--steps_per_epoch", "--schedule sequential")),
    ("--task_weights 1,2", ("--task_weights",)),
    *((flag, (flag.split()[0], "--lora_rank")) for flag in ("--lora_alpha 4", "--lora_dropout .1", "--lora_per_task")),
    ("--lora_targets query", ("--lora_targets", "--lora_rank")),
    *((f"--adapter_{flag}", (f"--adapter_{flag}".split()[0], "--adapter")) for flag in ("size 4", "activation gelu")),
    ("--adapter pal --adapter_activation gelu", ("--adapter_activation gelu", "low_rank", "pal")),
    ("--lora_rank 2 --option pretrain", ("--lora_rank 2", "--option pretrain")),
    ("--lora_rank 2 --fine-tune-mode last-linear-layer", ("--lora_rank 2", "last-linear-layer")),
    ("--adapter pal --fine-tune-mode last-linear-layer", ("--adapter pal", "last-linear-layer")),
    ("--lora_rank -1", ("--lora_rank",)),
    ("--lora_rank 2 --lora_alpha 0", ("--lora_alpha",)),
    ("--lora_rank 2 --lora_dropout 1", ("--lora_dropout",)),
    ("--lora_rank 2 --lora_per_task --tasks sst", ("--lora_per_task", "--tasks")),
    ("--freeze_bert", ("--freeze_bert", "--adapter")),
    ("--freeze_bert --adapter pal --lora_rank 2", ("--freeze_bert", "--lora_rank 2")),
    *((f"--combine {way} --lora_rank 2 --lora_per_task", (f"--combine {way}", "--lora_per_task")) for way in SURGERY),
    *((f"--combine {way} --adapter pal --freeze_bert", (f"--combine {way}", "--freeze_bert")) for way in SURGERY),
    ("--smart 5 --smart_tasks sts", ("--smart_tasks sts", "--sts_head cosine", "--fine-tune-mode")),
    ("--task_weights 1,2 --tasks sst", ("--task_weights", "sst")),
    ("--task_weights 1,1,0", ("--task_weights",)),
    ("--limit 0", ("--limit",)),
    ("--limit 10,10", ("--limit",)),
    ("--limit 1.5", ("--limit",)),
    ("--seed 4294967296", ("--seed",)),
    ("--schedule quora_first --tasks sst,sts", ("--schedule quora_first", "--tasks")),
    ("--task_weights=-1,1,1", ("--task_weights",)),
    ("--task_weights 1,x,1", ("--task_weights",)),
    ("--task_weights 1,nan,1", ("--task_weights",)),
    ("--no_decay_norms", ("--no_decay_norms", "--weight_decay")),
    ("--option finetune --fine-tune-mode full-model --no_decay_norms", ("--no_decay_norms", "--weight_decay")),
    ("--option pretrain --fine-tune-mode full-model", ("--option pretrain", "--fine-tune-mode full-model")),
    ("--option finetune --fine-tune-mode last-linear-layer", ("--option finetune", "--fine-tune-mode last-linear")),
    *((f"--para_{what} x --tasks sst,sts", (f"--para_{what}", "--tasks")) for what in ("train", "dev", "test")),
    *((f"--para_{what}_out x --tasks sst,sts", (f"--para_{what}_out", "--tasks")) for what in ("dev", "test")),
    ("--para_head dot --tasks sst", ("--para_head dot", "--tasks")),
    ("--sts_head dot --tasks sst", ("--sts_head dot", "--tasks")),
    ("--tasks sst,cfimdb", ("--tasks cfimdb",)),
    *(
        (f"{off}--smart_{flag} {value}", (f"--smart_{flag}", "needs --smart above 0"))
        for flag, value in SMART_FLAGS.items()
        for off in ("", "--smart 0 ", "--bregman 1 ")
    ),
    ("--smart_tasks sts", ("--smart_tasks", "needs --smart above 0")),
    ("--smart 5 --smart_tasks sst,para --tasks sst,sts", ("--smart_tasks para", "--tasks")),
    ("--smart 5 --smart_tasks cfimdb", ("--smart_tasks cfimdb", "--tasks")),
    ("--smart 5 --smart_tasks sst,", ("--smart_tasks", "--tasks")),
    ("--smart 5 --smart_tasks sts", ("--smart_tasks sts", "--sts_head cosine", "--fine-tune-mode last-linear-layer")),
    *(
        (f"{off}--bregman_beta 0.9", ("--bregman_beta", "needs --bregman above 0"))
        for off in ("", "--bregman 0 ", "--smart 5 ")
    ),
    *(
        (f"--smart 5 --bregman 1 {flag}={value}", (flag, value))
        for flag in ("--smart", "--smart_epsilon", "--smart_sigma", "--smart_eta", "--bregman")
        for value in ("-1", "nan", "inf", "x")
    ),
    *((f"--smart 5 --smart_{name} 0", (f"--smart_{name}",)) for name in ("epsilon", "sigma", "eta", "steps")),
    *((f"--smart 5 --smart_steps={value}", ("--smart_steps", value)) for value in ("-1", "1.5", "nan", "inf")),
    ("--smart 5 --smart_noise cube", ("--smart_noise", "cube", "ball", "relative")),
    *(
        (f"--bregman 1 --bregman_beta={value}", ("--bregman_beta",))
        for value in ("0", "1", "2", "-.1", "nan", "inf", "x", ".9,1", "1,.9", ",.9", ".9,", ".9,0", ".9,x", ".9,.9,.9")
    ),
]  # fmt: skip


@pytest.mark.parametrize(("flags", "named"), REFUSED, ids=[flags.replace("/", "|") for flags, _ in REFUSED])
def test_what_cannot_work_is_refused_in_one_line_that_names_the_flags(refusal, flags, named):
    line = refusal(multitask_classifier.main, flags.split())
    assert all(flag in line for flag in named), line


def test_the_neighbours_of_what_is_refused_are_accepted():
    """Each of the flags above is fine where its other half is absent."""
    accepted = [
        "--pairs joint", "--sts_head cosine", "--para_head dot", "--sts_loss cosine --option finetune",
        "--sts_loss cosine --tasks sts --option finetune",
        "--combine sum", "--combine sum --schedule interleaved", "--combine sum --tasks sst",
        "--combine pcgrad --fine-tune-mode full-model", "--combine cagrad --option finetune --tasks sst,sts",
        "--combine pcgrad --fine-tune-mode full-model --schedule quora_first",
        "--steps_per_epoch 5 --schedule priority", "--schedule sequential", "--task_weights 1,.1,2.5",
        "--task_weights 2 --tasks sst", "--no_decay_norms --weight_decay 0.01", "--para_train x --tasks para",
        "--option finetune --fine-tune-mode full-model", "--quickstart --tasks sst", "--quickstart --pairs joint",
        "--smart 5 --smart_tasks para --tasks sst,para", "--smart 5 --smart_tasks sts --option finetune",
        "--smart 5 --smart_tasks sts --sts_head dot", "--smart 5 --smart_tasks sts,sst", "--smart 0", "--bregman 0",
        "--bregman 1", "--smart 5 --bregman 1",
        "--smart 5 --smart_noise relative --smart_epsilon 0.05", "--bregman 1 --bregman_beta .1",
        "--tasks sst,para --lora_rank 2 --lora_per_task", "--lora_rank 2 --lora_targets query,value --combine pcgrad",
        "--adapter pal --combine pcgrad", "--adapter low_rank --freeze_bert --combine sum",
        "--adapter pal --lora_rank 2", "--tasks sts --smart 5",
        "--smart 5 --schedule priority", "--quickstart --smart 5 --bregman 1",
        *(f"--smart 5 --smart_{flag} {value}" for flag, value in SMART_FLAGS.items()),
    ]  # fmt: skip
    for flags in accepted:
        assert multitask_classifier.get_args(flags.split())


def test_smart_s_defaults_are_the_papers_and_bregman_s_one_beta_is_two():
    def of(flags: str) -> tuple:
        args = multitask_classifier.get_args(flags.split())
        return args.smart_epsilon, args.smart_sigma, args.smart_eta, args.smart_steps, args.smart_noise

    assert of("--smart 5") == (1e-5, 1e-5, None, 1, "ball")  # None: 100·ε, in smart.py
    assert of("--smart 5 --smart_noise relative") == (0.05, 1e-5, None, 1, "relative")
    assert of("--smart 5 --smart_noise relative --smart_epsilon 0.1 --smart_eta 2")[:3] == (0.1, 1e-5, 2.0)
    betas = {"": (0.995, 0.995), "0.9": (0.9, 0.9), "0.99,0.999": (0.99, 0.999), "0.5,0.1": (0.5, 0.1)}
    for text, expected in betas.items():
        flags = ["--bregman", "1", *(["--bregman_beta", text] if text else [])]
        assert multitask_classifier.get_args(flags).bregman_beta == expected


def test_a_pair_needs_no_more_than_the_flags_that_disagree(refusal):
    """The complaint comes while the flags are read: no weights are looked for, no data."""
    flags = "--pretrained /no/such/weights --data /no/such/data --pairs joint --sts_head cosine"
    assert "/no/such" not in refusal(multitask_classifier.main, flags.split())


# ------------------------------------------------------------------------------------------ classifier.py

OWN = set(flags_of(parser_of(classifier.get_args)))
shared = Parser()
multitask_classifier.common_flags(shared)
OWN -= set(flags_of(shared))
SEEN_HERE: set[str] = set()


def sees_own(*flags: str):
    return lambda test: (SEEN_HERE.update(flags), test)[1]


@pytest.fixture
def classify(run, tmp_path):
    """Run classifier.py on the tiny BERT; where it wrote."""

    def go(*flags: str) -> Path:
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        classifier.main(["--out", str(out), *run.argv(*FULL, *flags)])
        return out

    return go


def test_every_flag_of_classifier_has_its_case():
    assert OWN == SEEN_HERE


@sees_own("--tasks")
def test_classifier_tasks(classify):
    both, one = classify(), classify("--tasks", "cfimdb")
    assert {path.name for path in both.iterdir()} == {"sst", "cfimdb", "predictions"}
    assert {path.name for path in one.iterdir()} == {"cfimdb", "predictions"}
    names = {f"full-model-{task}-{split}-out.csv" for task in ("sst", "cfimdb") for split in ("dev", "test")}
    assert {path.name for path in (both / "predictions").iterdir()} == names
    assert equal(Run(both / "cfimdb").weights, Run(one / "cfimdb").weights)  # a set of its own, whatever came before


@sees_own("--cfimdb_batch_size")
def test_classifier_cfimdb_batch_size(classify):
    base, smaller = classify(), classify("--cfimdb_batch_size", "4")
    assert not equal(Run(base / "cfimdb").bert, Run(smaller / "cfimdb").bert)
    assert equal(Run(base / "sst").weights, Run(smaller / "sst").weights)
    other = classify("--batch_size", "4")
    assert equal(Run(base / "cfimdb").weights, Run(other / "cfimdb").weights)
    assert not equal(Run(base / "sst").bert, Run(other / "sst").bert)


@sees_own("--train", "--dev", "--test", "--dev_out", "--test_out")
def test_classifier_files_of_ones_own(classify, places, tmp_path):
    def cmu(name: str, rows: list[tuple[int, str]]) -> str:
        path = tmp_path / f"{name}.txt"
        path.write_text("".join(f"{label} ||| {text}\n" for label, text in rows))
        return str(path)

    one = [(i % 5, f"a film {i}") for i in range(16)]
    train, dev, test = cmu("train", one), cmu("dev", one[:4]), cmu("test", [(-1, "a film 3"), (-1, "a film 4")])
    base = classify("--train", train, "--dev", dev)
    assert {path.name for path in base.iterdir()} == {"best.pt", "metrics.jsonl", "dev-output.txt"}

    flipped = classify("--train", cmu("other", one[::-1]), "--dev", dev)
    assert not equal(Run(base).bert, Run(flipped).bert)

    flipped = classify("--train", train, "--dev", cmu("short", one[:2]))
    assert len((flipped / "dev-output.txt").read_text().splitlines()) == 2
    assert equal(Run(base).weights, Run(flipped).weights)

    flipped = classify("--train", train, "--dev", dev, "--test", test)
    assert [line.split(" ||| ")[1] for line in (flipped / "test-output.txt").read_text().splitlines()] == [
        "a film 3", "a film 4"]  # fmt: skip

    outs = [str(tmp_path / "new" / name) for name in ("d.txt", "t.txt")]
    moved = classify("--train", train, "--dev", dev, "--test", test, "--dev_out", outs[0], "--test_out", outs[1])
    assert not list(moved.glob("*.txt"))
    for name, path in zip(("dev", "test"), outs, strict=True):
        assert Path(path).read_bytes() == (flipped / f"{name}-output.txt").read_bytes()


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ("--train x", ("--train", "--dev")),
        ("--dev x", ("--train", "--dev")),
        *((f"--{flag} x", (f"--{flag}", "--train")) for flag in ("test", "dev_out", "test_out")),
        ("--train x --dev y --test_out z", ("--test_out", "--test")),
        ("--tasks sst,sts", ("--tasks sts", "sst and cfimdb")),
        ("--cfimdb_batch_size 0", ("--cfimdb_batch_size",)),
        ("--no_decay_norms", ("--no_decay_norms", "--weight_decay")),
        ("--option pretrain --fine-tune-mode full-model", ("--option pretrain", "--fine-tune-mode full-model")),
        ("--pairs joint", ("--pairs",)),  # a flag of the other script
        ("--smart 5 --smart_tasks sst", ("--smart_tasks",)),  # this, too
        *((f"--smart_{flag} {x}", (f"--smart_{flag}", "--smart above 0")) for flag, x in SMART_FLAGS.items()),
        ("--bregman_beta 0.9", ("--bregman_beta", "--bregman above 0")),
        ("--bregman=-1", ("--bregman",)),
    ],
)
def test_what_classifier_cannot_do_is_refused(refusal, flags, named):
    line = refusal(classifier.main, flags.split())
    assert all(flag in line for flag in named), line
