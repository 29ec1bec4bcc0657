"""Huge numbers for every flag that takes one: one line, or a run that ends as it would with a large number."""

import time

import pytest

import classifier
import multitask_classifier
from minbert import pretraining
from minbert.flags import flags_of
from minbert.parser import at_least
from minbert.pretraining import script as pretraining_script

HUGE = ("1e300", "10000000000000000000", "9" * 5000, "1e39", "nan", "inf", "-1", "1e-400")
SCRIPTS = {"m": multitask_classifier, "c": classifier, "p": pretraining_script}


def numeric(script: str) -> list[str]:
    """The flags that take a number: those whose type reads "3" or "0.5", and no words."""
    result = []
    for flag in flags_of(script).values():
        if flag.type not in (None, str) and not flag.choices and flag.name != "--save_every":
            for word in ("3", "0.5", "64"):
                try:
                    if isinstance(flag.type(word), int | float):
                        result.append(flag.name)
                        break
                except Exception:
                    continue
    return result


def test_the_flags_that_take_numbers_are_these():
    names = numeric("m")
    assert {"--epochs", "--batch_size", "--lr", "--head_lr", "--clip", "--seed", "--lora_rank", "--smart"} <= set(names)
    assert "--max_length" in numeric("p") and "--cfimdb_batch_size" in numeric("c")


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("value", HUGE)
def test_a_number_that_makes_no_sense_is_refused_by_name(script, value, capsys):
    """Whether it is refused depends on the flag; never does a value pass that float32 or a list cannot hold."""
    module = SCRIPTS[script] if script != "p" else pretraining.settings
    for name in numeric(script):
        start = time.process_time()
        try:
            args = module.get_args([name, value, *(["--out", "x"] if script == "p" else [])])
            assert abs(getattr(args, name.lstrip("-"))) <= 1e38, name
        except SystemExit as stop:
            err = capsys.readouterr().err
            assert stop.code == 2 and err.count("\n") == 1 and err.startswith("error: ") and len(err) < 400
        assert time.process_time() - start < 1


RUNS = [  # (flags, whether the run ends well)
    ("--head_lr 1e38", None),
    ("--lr 1e38 --weight_decay 1", None),
    ("--clip 1e38 --smart 1e38 --smart_epsilon 1e38 --smart_eta 1e38 --smart_sigma 1e38", None),
    ("--rdrop 1e38 --bregman 1e38", None),
    ("--task_weights 1e38", None),
    ("--batch_size 1000000000", True),
    ("--limit 1000000000 --steps_per_epoch 1", True),
    ("--batch_size 1000000000 --schedule interleaved", True),
    ("--lora_rank 4096", True),
    ("--lora_rank 2 --lora_alpha 1e38", None),
    ("--adapter low_rank --adapter_size 4096", True),
]


@pytest.mark.parametrize("words, ends_well", RUNS, ids=[words for words, _ in RUNS])
def test_a_run_with_the_largest_numbers_ends_or_is_one_line(argv, capsys, words, ends_well):
    command = argv("--fine-tune-mode", "full-model", "--combine", "sum", *words.split())
    if "--adapter" in words or "--limit" in words or "--schedule" in words:
        command = argv(*words.split())
    start, status = time.process_time(), 0
    try:
        multitask_classifier.main(command)
    except SystemExit as stop:
        status = stop.code
        assert isinstance(status, str) and status.startswith("error: ") and "\n" not in status, status
        assert "memory" not in status
    assert time.process_time() - start < 20
    assert ends_well is None or ends_well == (status == 0), status


@pytest.mark.parametrize("words", ["--max_length 1000000000", "--held_out 1000000000", "--batch_size 1000000000"])
def test_a_pre_training_with_the_largest_numbers_ends_well(tiny, sample, tmp_path, words):
    rest = f"--pretrained {tiny} --data {sample} --out {tmp_path} --limit 40 --epochs 1 --steps_per_epoch 1"
    pretraining_script.main([*rest.split(), *words.split()])


@pytest.mark.parametrize("kind, text", [(int, "1000000001"), (int, "9" * 4000), (float, "1e39"), (float, "inf")])
def test_the_types_of_flags_have_an_end(kind, text):
    with pytest.raises(Exception, match=r"too large|is not a") as caught:
        at_least(kind, 0)(text)
    assert len(str(caught.value)) < 120
