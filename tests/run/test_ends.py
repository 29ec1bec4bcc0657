"""How a run ends before its time: by a signal, a full disk, numbers that are not finite. Nothing is lost by it."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import multitask_classifier
from minbert import predict
from minbert.optimizer import AdamW
from tests.cli.runs import FULL
from tests.run.crashes import counting, differences, in_a_process, left_behind, newest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="a run is stopped in a process of its own")
main = multitask_classifier.main


@pytest.fixture(scope="module")
def argv(tiny, few):
    torch.set_num_threads(1)

    def argv(out: Path, *flags: str) -> list[str]:
        small = ("--limit", "16", "--steps_per_epoch", "4", "--epochs", "2", "--batch_size", "8", "--lr", "1e-2")
        return ["--pretrained", str(tiny), "--data", str(few), "--out", str(out), *small, *FULL, *flags]

    return argv


@pytest.fixture(scope="module")
def whole(argv, tmp_path_factory) -> dict:
    """What an undisturbed run leaves."""
    out = tmp_path_factory.mktemp("whole") / "out"
    main(argv(out))
    return left_behind(out)


def at_step(number: int, action: Callable[[], None], thing: str = "step") -> Callable[[], None]:
    """What to call before a run, so that `action` happens before its step (or other thing) with this number."""
    seen = [0]

    def act(_, name: str):
        seen[0] += name == thing
        if name == thing and seen[0] == number:
            action()

    return counting(act)


def send(*numbers: int) -> Callable[[], None]:
    return lambda: [os.kill(os.getpid(), number) for number in numbers]


# ------------------------------------------------------------------------------------------ signals


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGHUP", 129)])
def test_a_signal_waits_for_the_end_of_the_step_saves_and_leaves(argv, tmp_path, whole, name, status):
    out = tmp_path / "out"
    result, text = in_a_process(main, argv(out), at_step(14, send(getattr(signal, name))))
    assert result == status and text.splitlines()[-1] == (
        "stopped after step 2 of epoch 2; --resume goes on from there"
    ), text
    assert newest(out)["run"]["epoch"] == 1 and newest(out)["run"]["step"] == 2
    main(["--out", str(out), "--predict", "A film."])  # the best model so far answers
    main(["--out", str(out), "--predict_only"])
    assert len(list((out / "predictions").iterdir())) == 6
    main(["--out", str(out), "--resume"])
    assert not differences(left_behind(out), whole)


def test_a_run_that_was_stopped_in_its_first_epoch_predicts_with_its_last_checkpoint(argv, tmp_path, whole, capsys):
    """The predictions are those of a run of the same seed whose only epoch ended there."""
    out, ended = tmp_path / "out", tmp_path / "ended"
    assert in_a_process(main, argv(out), at_step(6, send(signal.SIGTERM)))[0] == 143
    main(["--out", str(out), "--predict_only"])
    assert "no epoch of this run is done, so this is the model of its last checkpoint" in capsys.readouterr().err
    assert not (out / "best").exists()
    main(argv(ended, "--steps_per_epoch", "2", "--epochs", "1"))
    for path in (ended / "predictions").iterdir():
        assert (out / "predictions" / path.name).read_bytes() == path.read_bytes()
    main(["--out", str(out), "--resume"])
    assert not differences(left_behind(out), whole)


def test_of_a_damaged_checkpoint_the_one_before_predicts(argv, tmp_path, capsys, refusal):
    assert in_a_process(main, argv(tmp_path, "--save_every", "1"), at_step(3, send(signal.SIGTERM)))[0] == 143
    first, last = sorted((tmp_path / "checkpoints").iterdir())
    (last / "state.json").write_bytes(b"{" + (last / "state.json").read_bytes()[1:-1])
    main(["--out", str(tmp_path), "--predict", "A film."])
    errors = capsys.readouterr().err.splitlines()
    assert f"{last / 'state.json'}: damaged" in errors[0] and f"{first}: no epoch" in errors[1] and len(errors) == 2
    (first / "state.json").unlink()
    line = refusal(main, ["--out", str(tmp_path), "--predict_only"])
    assert f"its first epoch is not done; `--resume --out {tmp_path}` goes on with it" in line


@pytest.mark.parametrize(
    ("place", "name", "status"),
    [
        ("build_model", "SIGINT", 130),
        ("write_all_predictions", "SIGTERM", 143),
        ("write_all_predictions", "SIGHUP", 129),
        pytest.param("build_model", "SIGTERM", 143, marks=pytest.mark.slow),
        pytest.param("build_model", "SIGHUP", 129, marks=pytest.mark.slow),
        pytest.param("write_all_predictions", "SIGINT", 130, marks=pytest.mark.slow),
    ],
)
def test_a_signal_outside_of_the_training_is_one_line(argv, tmp_path, whole, name, status, place):
    def before():
        action = getattr(multitask_classifier, place)

        def stopped(*args):
            send(getattr(signal, name))()
            return action(*args)

        setattr(multitask_classifier, place, stopped)

    result, text = in_a_process(main, argv(tmp_path), before)
    assert result == status and text == f"stopped by {'Ctrl-C' if name == 'SIGINT' else name}\n"
    assert not list(tmp_path.rglob("*.minbert-*"))  # neither the lock nor half of a file
    main(argv(tmp_path) if place == "build_model" else ["--out", str(tmp_path), "--resume"])
    assert not differences(left_behind(tmp_path), whole)


def test_a_copy_of_the_predictions_is_whole_or_not_there(argv, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [word for word in argv(tmp_path) if word not in ("--out", str(tmp_path))]  # so that there are copies
    main(words)
    copies = {path.name: path.read_bytes() for path in Path("predictions").iterdir()}
    assert len(copies) == 6

    def half(source, to):
        Path(to).write_bytes(Path(source).read_bytes()[:40])
        send(signal.SIGTERM)()

    def before():
        predict.shutil.copyfile = half

    assert in_a_process(main, [*words, "--seed", "3"], before)[0] == 143
    assert copies == {path.name: path.read_bytes() for path in Path("predictions").iterdir()}


def test_the_second_signal_leaves_at_once(argv, tmp_path):
    result, text = in_a_process(main, argv(tmp_path), at_step(3, send(signal.SIGINT, signal.SIGINT)))
    assert result == 130 and text == "stopped at once, without saving\n"
    assert not (tmp_path / "checkpoints").exists()


def test_a_signal_in_an_evaluation_does_not_wait_for_its_end(argv, tmp_path, whole, monkeypatch):
    def before():
        evaluate, calls = multitask_classifier.evaluate, [0]

        def stopped(*args):
            calls[0] += 1
            if calls[0] == 2:  # the first one is before training
                send(signal.SIGTERM)()
                os.abort()  # is never reached
            return evaluate(*args)

        multitask_classifier.evaluate = stopped

    result, text = in_a_process(main, argv(tmp_path), before)
    assert result == 143 and "stopped in the evaluation after epoch 1; --resume does it again" in text
    main(["--out", str(tmp_path), "--resume"])
    assert not differences(left_behind(tmp_path), whole)


@pytest.mark.parametrize("name", ["SIGINT", "SIGHUP"])
def test_a_signal_that_is_ignored_stays_so(argv, tmp_path, whole, name):
    """SIGINT is ignored in a job that a script starts with `&`, and SIGHUP under `nohup`."""

    def before():
        signal.signal(getattr(signal, name), signal.SIG_IGN)
        at_step(3, send(getattr(signal, name)))()

    assert in_a_process(main, argv(tmp_path), before)[0] == 0
    assert not differences(left_behind(tmp_path), whole)


# ------------------------------------------------------------------------------------------ the disk


@pytest.mark.parametrize("thing", ["mkdir", "fsync", "replace"])
def test_a_full_disk_is_one_line_and_the_checkpoint_before_is_kept(argv, tmp_path, whole, thing):
    """No file can grow beyond 3,000 bytes from a certain moment on, inside of a save or before it."""

    def full():
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))

    out, first = tmp_path / "out", {"mkdir": 9, "fsync": 14, "replace": 3}[thing]
    result, text = in_a_process(main, argv(out, "--save_every", "1"), at_step(first, full, thing))
    assert result == 1 and text.splitlines()[-1].startswith(f"error: {out}") and "Traceback" not in text, text
    assert not list(out.rglob(".*.minbert-tmp"))
    main(["--out", str(out), "--resume"])
    assert not differences(left_behind(out), whole)


def test_a_folder_that_is_taken_away_is_made_again_but_for_its_description(argv, tmp_path):
    out = tmp_path / "out"
    taken = at_step(6, lambda: os.rename(out, tmp_path / "x"))
    result, text = in_a_process(main, argv(out, "--save_every", "1"), taken)
    assert result == 1 and text.splitlines()[-1].startswith(f"error: {out / 'run.json'}: not there"), text
    assert len(list((out / "predictions").iterdir())) == 6


# ------------------------------------------------------------------------------------------ numbers


def test_a_gradient_that_is_not_finite_in_the_last_step_saves_and_predicts_nothing(argv, tmp_path):
    def before():
        check, calls = multitask_classifier.checked_step, [0]

        def broken(model, *args):
            calls[0] += 1
            if calls[0] == 4 * 3:
                model.bert.pooler_dense.bias.grad[3] = float("nan")
            return check(model, *args)

        multitask_classifier.checked_step = broken

    result, text = in_a_process(main, argv(tmp_path, "--epochs", "1"), before)
    assert result == 1 and "epoch 1, step 12: the gradient of sts is not a finite number any more" in text
    assert not (tmp_path / "best").exists() and not (tmp_path / "predictions").exists()


@pytest.mark.parametrize("rate", ["1e30", "1e18"])
def test_weights_that_leave_all_bounds_are_neither_kept_nor_predicted_with(argv, tmp_path, rate):
    flags = ("--combine", "sum", "--lr", rate, "--epochs", "1", "--steps_per_epoch", "1")
    result, text = in_a_process(main, argv(tmp_path, *flags))
    assert result == 1 and "Traceback" not in text
    assert text.splitlines()[-1].startswith("error: ") and "lower --lr" in text
    assert not (tmp_path / "best").exists() and not (tmp_path / "predictions").exists()


def test_a_run_that_became_nan_resumes_from_the_checkpoint_before(argv, tmp_path, whole):
    def before():
        step, calls = AdamW.step, [0]

        def broken(self, *args):
            calls[0] += 1
            if calls[0] == 16:
                self.param_groups[0]["params"][0].data.fill_(float("inf"))
            return step(self, *args)

        AdamW.step = broken

    result, text = in_a_process(main, argv(tmp_path, "--save_every", "1"), before)
    assert (
        result == 1 and "epoch 2, step 4: bert." in text and "is not a finite number any more, and is not saved" in text
    )
    main(["--out", str(tmp_path), "--resume"])
    assert not differences(left_behind(tmp_path), whole)


# ------------------------------------------------------------------------------------------ in a terminal of its own


def test_sigterm_to_a_real_process(argv, tmp_path):
    """The whole way: a process of its own, stopped from outside while it trains."""
    command = [sys.executable, "-u", "multitask_classifier.py", *argv(tmp_path, "--epochs", "500")]
    root = Path(multitask_classifier.__file__).parent
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not process.stdout.readline().startswith("epoch 1/"):
        pass
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143 and "--resume" in errors.splitlines()[-1]
    assert newest(tmp_path)["run"]["epoch"] >= 1
