"""Every flag that trains does something: turned alone, it changes BERT's weights.

A run takes a second (a tiny random BERT, a few rows, one epoch). The weights of BERT in OUT/best must differ from
those of the same run without the flag. The flags are read from the tables: a new flag, or a new choice of an old one,
fails here until it has its case. A technique's flags bring theirs, the `example` of the row.
"""

import pytest

import multitask_classifier
from minbert.flags import flags_of, techniques
from minbert.sampling import SCHEDULES
from minbert.state import read_state
from tests.cli.folders import Runner, equal
from tests.cli.runs import FULL

FLAGS = {flag.name: flag for flag in flags_of("m").values()}
OF_TECHNIQUES = {flag.name: (flag, t) for t in techniques().values() for flag in t.flags if "m" in flag.scripts}

# flag → the values that it is turned to, and the flags that the run has beside it
CASES: dict[str, tuple[list[list[str]], tuple[str, ...]]] = {
    "--data": ([["{other}"]], FULL),
    "--limit": ([["12"], ["24,12,24"]], FULL),
    "--tasks": ([["sst,para"], ["sts"]], FULL),
    "--sst_train": ([["{other}/ids-sst-train.csv"]], FULL),
    "--para_train": ([["{other}/quora-train.csv"]], FULL),
    "--sts_train": ([["{other}/sts-train.csv"]], FULL),
    "--pretrained": ([["{trained}"]], FULL),
    "--fine-tune-mode": ([["full-model"]], ()),
    "--option": ([["finetune"]], ()),
    "--pooling": ([["mean"], ["cls,cls,mean"]], FULL),
    "--train_tasks": ([["sst"], ["para,sts"]], FULL),
    "--priorities": ([["1,8,1"]], (*FULL, "--schedule", "fixed")),
    "--hidden_dropout_prob": ([["0.3"]], FULL),
    "--bert_dropout": ([["0.1"]], FULL),
    "--fast_dropout": ([[]], (*FULL, "--bert_dropout", "0.1")),
    "--pairs": ([["joint"], ["separate,joint,separate"], ["separate,separate,joint"]], FULL),
    "--para_head": ([[name] for name in FLAGS["--para_head"].choices[1:]], FULL),
    "--sts_head": ([[name] for name in FLAGS["--sts_head"].choices[1:]], FULL),
    "--sts_loss": ([["cosine"]], FULL),
    "--seed": ([["1"]], FULL),
    "--epochs": ([["2"]], (*FULL, "--lr_decay", "linear")),  # so that the first epoch, too, is another one
    "--steps_per_epoch": ([["1"], ["3"], ["2xsst"]], FULL),
    "--batch_size": ([["4"]], FULL),
    "--even_batches": ([["tokens"]], FULL),
    "--micro_batch": ([["3"]], FULL),
    "--lr": ([["2e-3"]], FULL),
    "--head_lr": ([["1e-2"]], FULL),
    "--warmup": ([["0.5"]], FULL),
    "--lr_decay": ([["linear"]], FULL),
    "--weight_decay": ([["0.1"]], FULL),
    "--no_decay_norms": ([[]], (*FULL, "--weight_decay", "0.1")),
    "--clip": ([["0.01"]], FULL),
    "--average": ([["0.9"]], FULL),
    "--precision": ([["bf16"], ["fp16"]], FULL),
    "--schedule": ([[name] for name in SCHEDULES if name != "round_robin"], FULL),
    "--combine": ([[name] for name in FLAGS["--combine"].choices if name != "separate"], FULL),
    "--task_weights": ([["1,2,3"], ["1,1,.01"]], FULL),
    "--freeze_bert": ([[]], (*FULL, "--adapter", "pal")),
}
OTHERWISE = {  # flags of place and output: test_flags_of_place.py, test_flags_of_output.py see what they do
    "--compile",  # tests/techniques/test_compiled.py
    "--quickstart", "--recipe", "--list_recipes", "--predict", "--predict_only", "--local_files_only", "--attention",
    "--use_gpu", "--out", "--overwrite", "--skip_predictions", "--eval_train", "--resume", "--save_every",
    *(f"--{task}_{what}" for task in ("sst", "para", "sts") for what in ("dev", "test", "dev_out", "test_out")),
}  # fmt: skip
DEFAULTS = {  # values that say the default in so many words
    ("--option", "pretrain"): (),
    ("--train_tasks", "sts,para,sst"): FULL,
    ("--pooling", "cls,cls,cls"): FULL,
    ("--pairs", "joint,separate,separate"): FULL,  # sst has no pairs
    ("--steps_per_epoch", "1xsts"): FULL,
    ("--priorities", "2,6,1"): (*FULL, "--schedule", "fixed"),  # in proportion to 24, 96 and 16
    ("--option", "freeze"): (),
    ("--fine-tune-mode", "last-linear-layer"): (),
    ("--para_head", "difference"): FULL,
    ("--sts_head", "cosine"): FULL,
    ("--smart", "0"): FULL,
    ("--smart_epsilon", "1e-5"): (*FULL, "--smart", "100"),
    ("--smart_epsilon", "0.05"): (*FULL, "--smart", "100", "--smart_noise", "relative"),
    ("--smart_sigma", "1e-5"): (*FULL, "--smart", "100", "--smart_epsilon", "0.1"),
    ("--smart_eta", "10"): (*FULL, "--smart", "100", "--smart_epsilon", "0.1"),  # 100·ε
    ("--smart_steps", "1"): (*FULL, "--smart", "100", "--smart_epsilon", "0.1"),
    ("--smart_noise", "ball"): (*FULL, "--smart", "100", "--smart_epsilon", "0.1"),
    ("--smart_tasks", "sts,sst,para"): (*FULL, "--smart", "100", "--smart_epsilon", "0.1"),
    ("--average", "0"): FULL,
    ("--bregman", "0"): FULL,
    ("--bregman_beta", "0.995"): (*FULL, "--bregman", "100"),
    ("--bregman_beta", "0.995,0.995"): (*FULL, "--bregman", "100"),
    ("--rdrop", "0"): FULL,
    ("--adapter_activation", "identity"): (*FULL, "--adapter", "low_rank"),
}


@pytest.fixture(scope="module")
def run(places) -> Runner:
    """A function from flags to a run without predictions: weights and the log are looked at."""
    return Runner(places, "--skip_predictions")


def test_every_flag_has_its_case():
    assert set(FLAGS) == set(CASES) | OTHERWISE | set(OF_TECHNIQUES)
    assert all(flag.example or flag.type is None for flag, _ in OF_TECHNIQUES.values())


def test_every_choice_of_a_flag_has_its_case():
    for name, (values, _) in CASES.items():
        choices = FLAGS[name].choices
        missing = set(choices) - {FLAGS[name].default} - {value for (value,) in values} if choices else ()
        assert {(name, choice) for choice in missing} <= set(DEFAULTS), name


def test_the_same_command_gives_the_same_weights_bit_by_bit(places):
    """Without this, a difference between two runs would mean nothing."""
    one, again = (Runner(places).fresh(*FULL) for _ in range(2))
    assert one.out != again.out and equal(one.weights, again.weights)
    assert one.values("sts-dev-output.csv").tolist() == again.values("sts-dev-output.csv").tolist()


@pytest.mark.parametrize(("case", "beside"), DEFAULTS.items(), ids=" ".join)
def test_the_default_in_so_many_words_changes_nothing(run, case, beside):
    assert equal(run(*beside).weights, run(*beside, *case).weights)


SINGLE = [(name, value, beside) for name, (values, beside) in CASES.items() for value in values]


@pytest.mark.parametrize(
    ("flag", "value", "beside"), SINGLE, ids=[" ".join([flag, *value]).replace("/", "|") for flag, value, _ in SINGLE]
)
def test_turning_a_flag_changes_what_bert_learns(run, places, flag, value, beside):
    base = run(*beside)
    places["trained"] = run(*FULL).out / "best"  # for --pretrained: start where another run ended
    turned = run(*beside, flag, *value)
    assert base.bert.keys() == turned.bert.keys()
    assert not equal(base.bert, turned.bert)


@pytest.mark.parametrize("name", OF_TECHNIQUES)
def test_turning_a_flag_of_a_technique_changes_the_model(run, name):
    """Beside the technique's first flag, which turns it on; R-Drop needs dropout."""
    flag, technique = OF_TECHNIQUES[name]
    switch, needs = technique.switch, flag.needs.split()
    value = needs[1:] or switch.example.split()
    on = [] if flag is switch else [switch.name, *value]
    mode = () if technique.name == "lora" else FULL
    dropout = ("--hidden_dropout_prob", "0.3") if technique.name == "rdrop" else ()
    base = run(*mode, *dropout, *on)
    turned = run(*mode, *dropout, *on, name, *flag.example.split())
    assert not equal(base.bert, turned.bert)


@pytest.mark.parametrize("flag", ["--combine", "--schedule", "--sts_head", "--para_head", "--steps_per_epoch"])
def test_the_choices_of_a_flag_differ_from_one_another(run, flag):
    """In one epoch `annealed` is `proportional` by its definition, α = 1; the next test has more."""
    values, beside = CASES[flag]
    names = [value for (value,) in values if value not in ("annealed", "fixed")]  # see below; equal in one epoch
    runs = [run(*beside, flag, name) for name in names]
    for i, one in enumerate(runs):
        for j, other in enumerate(runs[:i]):
            assert not equal(one.bert, other.bert), (names[i], names[j])


def test_annealed_parts_from_proportional_after_the_first_epoch(run):
    beside = (*FULL, "--epochs", "2", "--schedule")
    annealed, proportional = run(*beside, "annealed"), run(*beside, "proportional")
    assert annealed.metrics[0]["loss"] == proportional.metrics[0]["loss"]
    assert annealed.metrics[1]["loss"] != proportional.metrics[1]["loss"]


def test_a_frozen_bert_stays_as_it_was(run):
    """So in the cases of --fine-tune-mode and --option it is the turned run that trains BERT."""
    start = read_state(run().out / "best")["model"]
    assert equal(start, run("--fine-tune-mode", "last-linear-layer").weights)
    longer = run("--epochs", "2")
    assert equal({n: t for n, t in start.items() if n.startswith("bert.")}, longer.bert)


def test_epochs_and_steps_are_as_many_as_the_flags_say(run, monkeypatch):
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
