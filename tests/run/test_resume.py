"""A run that is killed at any moment and resumed ends with the same bits as one that was not disturbed.

Killed by SIGKILL, in a process of its own, at steps and inside of saves (`crashes.py`). Compared are the weights,
AdamW's means, every generator, the log, the best model, predictions and outputs. The negative control withholds one
piece of the state at a time from the run that goes on, and then the comparison must fail.
"""

import os
import random
import shutil
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import classifier
import multitask_classifier
from minbert.pretraining import script as pretraining
from minbert.run import Run
from tests.cli.runs import ALL, FULL
from tests.run.crashes import dies_at, differences, in_a_process, left_behind, things_done

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="a run is killed in a process of its own")

SMART = ("--smart", "5", "--smart_epsilon", "0.1")
SETTINGS = {
    "plain": FULL,
    "frozen": (),
    "PCGrad, SMART, Bregman": (*FULL, "--combine", "pcgrad", *SMART, "--bregman", "1", "--schedule", "interleaved"),
    "R-Drop, warm-up": (*FULL, "--rdrop", "1", "--warmup", "0.2", "--lr_decay", "linear", "--fast_dropout"),
    "LoRA": ("--lora_rank", "2", "--combine", "cagrad"),
    "PAL": (*FULL, "--adapter", "pal", "--schedule", "annealed"),
    "priority": (*FULL, "--schedule", "priority", *SMART),
    "GradVac, all terms, average": (*FULL, "--combine", "gradvac", *ALL, "--eval_train", "--average", "0.9"),
    "sqrt, joint, fp16, even": (
        *FULL,
        "--schedule",
        "sqrt",
        "--pairs",
        "joint",
        "--clip",
        "1",
        "--weight_decay",
        "0.01",
        "--precision",
        "fp16",
        "--even_batches",
        "tokens",
    ),
}


@pytest.fixture
def argv(tiny, few):
    """The command line of a small run, with dropout on."""

    def argv(out: Path, *flags: str) -> list[str]:
        small = ("--limit", "16", "--steps_per_epoch", "3", "--epochs", "2", "--batch_size", "8", "--lr", "1e-2")
        places = ("--pretrained", str(tiny), "--data", str(few), "--out", str(out))
        return [*places, *small, "--save_every", "2", *flags]

    return argv


def killed_and_resumed(main: Callable, flags: list[str], out: Path, at: int, change: Callable = lambda: None):
    """What a run leaves that was killed at its `at`-th thing and resumed with `change` made."""
    status, text = in_a_process(main, flags, dies_at(at))
    assert status == -9, text
    status, text = in_a_process(main, ["--out", str(out), "--resume"], change)
    if "there is no run to --resume" in text:  # so early that nothing was kept
        status, text = in_a_process(main, [*flags, "--overwrite"], change)
    assert status == 0, text
    return left_behind(out)


def moments(things: list[str], seed: str, steps: int = 1, saves: int = 1) -> list[int]:
    """Random numbers of things: some are steps, the others are inside of saves."""
    numbers = random.Random(seed)
    of_steps = [n for n, name in enumerate(things, 1) if name == "step"]
    of_saves = [n for n, name in enumerate(things, 1) if name != "step" and n > of_steps[0]]
    return numbers.sample(of_steps, steps) + numbers.sample(of_saves, saves)


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_run_that_is_killed_and_resumed_ends_with_the_same_bits(argv, tmp_path, setting):
    torch.set_num_threads(1)
    main, flags = multitask_classifier.main, SETTINGS[setting]
    things = things_done(main, argv(tmp_path / "whole", *flags), tmp_path / "things")
    whole = left_behind(tmp_path / "whole")
    assert len(whole["log"]) == 3 and len(whole["files"]) == 9
    for at in moments(things, setting):
        out = tmp_path / str(at)
        again = killed_and_resumed(main, argv(out, *flags), out, at)
        assert not differences(whole, again), (at, things[at - 1])
        assert not list(out.rglob(".*")), "something was left lying"


OTHER_SCRIPTS = {
    "classifier.py": (classifier.main, ("--tasks", "sst", "--fine-tune-mode", "full-model")),
    "pretraining": (pretraining.main, ("--corpus", "sst", "--tasks", "mlm,nli", "--held_out", "5")),
}


@pytest.mark.parametrize("name", OTHER_SCRIPTS)
def test_the_other_scripts_resume_to_the_same_bits(argv, tmp_path, name):
    torch.set_num_threads(1)
    main, flags = OTHER_SCRIPTS[name]
    sub = Path("sst" if name == "classifier.py" else "")
    things = things_done(main, argv(tmp_path / "whole", *flags), tmp_path / "things")
    whole = left_behind(tmp_path / "whole" / sub)
    for at in moments(things, name):
        out = tmp_path / str(at)
        status, text = in_a_process(main, argv(out, *flags), dies_at(at))
        assert status == -9, text
        status, text = in_a_process(main, ["--out", str(out), "--resume"])
        assert status == 0, text
        assert not differences(whole, left_behind(out / sub)), (at, things[at - 1])


# ------------------------------------------------------------------------------------------ negative control

CONTROLS = {  # runs, and the pieces of state that count in them
    "gradvac": ((*FULL, "--combine", "gradvac", "--schedule", "interleaved", *SMART, "--bregman", "1",
                 "--average", "0.9"),
                ("random", "model", "optimizer", "memory", "log", "batches of sst", "batches of para", "batches of sts",
                 "smart", "bregman", "average")),
    "pcgrad": ((*FULL, "--combine", "pcgrad", "--schedule", "interleaved"), ("memory",)),
    "priority": ((*FULL, "--schedule", "priority"), ("plan",)),
}  # fmt: skip
FIELDS = {"epoch": 0, "step": 0, "lines": [], "best": {}}


def withhold(name: str):
    """Let the next `load` of a run do without one piece of its state."""
    take = Run._take

    def taking(self, state, path):
        parts = self.parts
        if name in FIELDS:
            state["run"][name] = FIELDS[name]
        else:
            self.parts = parts | {name: SimpleNamespace(load_state_dict=lambda state: None)}
        take(self, state, path)
        self.parts = parts

    Run._take = taking


@pytest.fixture(scope="module")
def stopped(tiny, sample, tmp_path_factory):
    """A function of a name in CONTROLS: a folder with that run, whole, and one killed in its third epoch, cut."""
    torch.set_num_threads(1)

    @cache
    def stopped(name: str) -> Path:
        folder = tmp_path_factory.mktemp("control")
        argv = ["--pretrained", str(tiny), "--data", str(sample), "--limit", "16", "--save_every", "1", "--epochs", "4",
                "--steps_per_epoch", "3", "--batch_size", "8", "--lr", "1e-2", *CONTROLS[name][0]]  # fmt: skip
        things = things_done(multitask_classifier.main, [*argv, "--out", str(folder / "whole")], folder / "things")
        steps = [n for n, thing in enumerate(things, 1) if thing == "step"]
        in_the_third = steps[len(steps) * 5 // 8]
        status, text = in_a_process(
            multitask_classifier.main, [*argv, "--out", str(folder / "cut")], dies_at(in_the_third)
        )
        assert status == -9, text
        return folder

    return stopped


def resumed(folder: Path, out: Path, change: Callable) -> list[str]:
    """Where a run that goes on with `change` made differs from the one that was not stopped."""
    shutil.copytree(folder / "cut", out)
    status, text = in_a_process(multitask_classifier.main, ["--out", str(out), "--resume"], change)
    assert status == 0, text
    return differences(left_behind(folder / "whole"), left_behind(out))


@pytest.mark.parametrize("name", CONTROLS)
def test_with_all_of_the_state_nothing_differs(stopped, tmp_path, name):
    assert not resumed(stopped(name), tmp_path / "out", lambda: None)


@pytest.mark.parametrize(
    ("name", "piece"),
    [(name, piece) for name, (_, pieces) in CONTROLS.items() for piece in pieces] + [("pcgrad", f) for f in FIELDS],
)
def test_each_piece_of_the_state_is_needed(stopped, tmp_path, name, piece):
    assert resumed(stopped(name), tmp_path / "out", partial(withhold, piece))


def test_every_registered_part_is_in_the_negative_control(stopped):
    kept = left_behind(stopped("gradvac") / "whole")["state"]
    assert set(kept["parts"]) == set(CONTROLS["gradvac"][1]) | {"plan", "portions"}
    assert set(kept["run"]) | {"lines"} == set(FIELDS)
