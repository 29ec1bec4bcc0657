"""The courses' commands: every flag of their starters works, and so do the ways to check that they document.

The tables hold facts about the starters of Stanford (2023, 2024) and CMU (2022, since 2023): each flag's default.
"""

import pytest
import torch

import classifier
import multitask_classifier
from minbert.bert import BertModel
from minbert.flags import flags_of

SHARED = {"seed": 11711, "epochs": 10, "batch_size": 8, "hidden_dropout_prob": 0.3, "use_gpu": False}
FROZEN = "last-linear-layer"
STARTERS = {  # starter → script → the flag's name → its default there, None where the test has more to say
    "Stanford 2023": {
        "m": {**SHARED, "option": None, "lr": None,
              **{f"{t}_{s}": f"{n}" for t, names in {
                  "sst": ("ids-sst-train.csv", "ids-sst-dev.csv", "ids-sst-test-student.csv"),
                  "para": ("quora-train.csv", "quora-dev.csv", "quora-test-student.csv"),
                  "sts": ("sts-train.csv", "sts-dev.csv", "sts-test-student.csv"),
              }.items() for s, n in zip(("train", "dev", "test"), names, strict=True)},
              **{f"{t}_{s}_out": f"{t}-{s}-output.csv" for t in ("sst", "para", "sts") for s in ("dev", "test")}},
        "c": {**SHARED, "option": None, "lr": None, "dev_out": None, "test_out": None},
    },
    "Stanford 2024": {
        "m": {**SHARED, "fine-tune-mode": None, "lr": None},
        "c": {**SHARED, "fine-tune-mode": None, "lr": None},
    },
    "CMU 2022": {"c": {**SHARED, "option": None, "lr": None, "train": None, "dev": None, "test": None,
                       "dev_out": None, "test_out": None}},
    "CMU since 2023": {"c": {**SHARED, "option": None, "lr": None, "train": None, "dev": None, "test": None,
                             "dev_out": None, "test_out": None}},
    "Göttingen": {"m": {"local_files_only": False}},
}  # fmt: skip
CASES = [(name, script) for name, scripts in STARTERS.items() for script in scripts]
GET_ARGS = {"m": multitask_classifier.get_args, "c": classifier.get_args}


@pytest.mark.parametrize(("starter", "script"), CASES)
def test_every_flag_of_a_starter_is_there_with_its_default(starter, script):
    rows = {flag.name.lstrip("-"): flag for flag in flags_of(script).values()}
    args = GET_ARGS[script]([])
    for name, default in STARTERS[starter][script].items():
        assert name in rows, name
        if not isinstance(default, str):
            if default is not None:
                assert rows[name].default == default, name
            continue
        task, split = name.split("_")[:2]
        if name.endswith("_out"):
            assert args.prediction_name.format(task=task, split=split) == default
            assert str(args.course_folder) == "predictions"
        else:
            assert args.files[task][split].name == default


@pytest.mark.parametrize("script", "mc")
@pytest.mark.parametrize(
    ("words", "mode"),
    [
        ([], FROZEN),
        (["--option", "pretrain"], FROZEN),
        (["--option", "freeze"], FROZEN),
        (["--option", "finetune"], "full-model"),
        (["--fine-tune-mode", FROZEN], FROZEN),
        (["--fine-tune-mode", "full-model"], "full-model"),
        (["--fine-tune", "full-model"], "full-model"),  # a beginning that no other flag has is enough
        (["--opt", "finetune", "--batch", "4"], "full-model"),
    ],
)
def test_the_words_of_every_year_name_the_same_two_modes(script, words, mode):
    assert GET_ARGS[script](words).mode == mode


def test_a_beginning_that_several_flags_share_is_one_line(refusal):
    assert "--smart_" in refusal(multitask_classifier.main, ["--smart_s", "1"])


def test_help_says_where_the_rate_differs_from_the_starters(capsys):
    with pytest.raises(SystemExit):
        multitask_classifier.main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "1e-3 where BERT's weights are frozen, 1e-5 where they train" in text
    assert "most of the starters have 1e-5 for both" in text


# ------------------------------------------------------------------------------------------ how the courses check


def test_a_pretrained_bert_gives_the_same_output_twice_and_transformers_output(tiny):
    """The course's check of BERT calls `from_pretrained` and compares outputs at once: dropout must be off."""
    transformers = pytest.importorskip("transformers")
    ids = torch.tensor([[2, 7, 8, 9, 3, 0], [2, 10, 11, 12, 13, 3]])
    mask = (ids != 0).long()
    bert = BertModel.from_pretrained(tiny)
    assert not bert.training
    first, again = bert(ids, mask), bert(ids, mask)
    theirs = transformers.BertModel.from_pretrained(tiny)(ids, mask)
    for name in ("last_hidden_state", "pooler_output"):
        assert torch.equal(first[name], again[name])
        real = mask[..., None] if name == "last_hidden_state" else 1
        assert torch.allclose(first[name] * real, theirs[name] * real, atol=1e-5, rtol=1e-3)
    bert.train()
    assert not torch.equal(bert(ids, mask)["pooler_output"], bert(ids, mask)["pooler_output"])


@pytest.mark.parametrize("script", [multitask_classifier, classifier])
def test_frozen_then_fine_tuned_in_one_folder(run, tmp_path, monkeypatch, script):
    """The course's two commands, one after the other, as its handout has them."""
    monkeypatch.chdir(tmp_path)
    for option in ("pretrain", "finetune"):
        script.main(run.argv("--option", option))
    assert len(list((tmp_path / "runs").rglob("best"))) == (2 if script is multitask_classifier else 4)
