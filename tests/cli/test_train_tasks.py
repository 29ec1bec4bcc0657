"""--train_tasks: some of the tasks are trained, the others are scored alone."""

import multitask_classifier
from minbert.state import read_state
from tests.cli.folders import equal
from tests.cli.runs import FULL


def test_the_heads_of_the_other_tasks_stay_as_they_were(run, tiny):
    one, none = run(*FULL, "--train_tasks", "sst"), run("--train_tasks", "sst", "--para_head", "difference")
    assert set(one.metrics[0]["loss"]) == {"sst"} and set(one.metrics[0]["dev"]) == {"sst", "para", "sts"}
    start = read_state(none.out / "best")["model"]
    assert equal(one.part("heads.para"), {n: t for n, t in start.items() if n.startswith("heads.para")})
    assert not equal(one.part("heads.sst"), run(*FULL, "--train_tasks", "para").part("heads.sst"))


def test_training_sst_alone_does_the_same_to_bert_as_a_run_that_has_no_other_task(run):
    """SST's head is drawn first, so it starts the same in both."""
    alone, beside = run(*FULL, "--tasks", "sst"), run(*FULL, "--train_tasks", "sst")
    assert alone.metrics[0]["loss"] == beside.metrics[0]["loss"] and equal(alone.bert, beside.bert)
    assert not equal(alone.bert, run(*FULL).bert)


def test_the_best_epoch_is_that_of_the_trained_tasks(run, monkeypatch):
    """SST is best in the first epoch; the overall score of all three tasks is best in the second."""
    before, first = {"sst": 0.2, "para": 0.4, "sts": 0.0}, {"sst": 0.5, "para": 0.1, "sts": 0.1}
    scores = iter([before, first, {"sst": 0.4, "para": 0.9, "sts": 0.9}] * 2)
    monkeypatch.setattr(multitask_classifier, "evaluate", lambda model, data: next(scores))
    for flags, epoch in ((("--train_tasks", "sst"), 1), ((), 2)):
        out = run.fresh(*FULL, "--epochs", "2", "--skip_predictions", *flags).out
        assert read_state(out / "best")["notes"]["epoch"] == epoch
