"""Every way to train, with every way to combine gradients and with the terms of the loss: three steps lower the loss.

The runs have eight examples of each task and no dropout, and use the trainer's own functions. Where the tasks share no
weights inside BERT, gradient surgery has nothing to combine and is refused.
"""

import pytest
import torch

import multitask_classifier as trainer
from minbert.data import eval_batches
from minbert.pretrained import load_tokenizer
from minbert.tasks import TASKS
from tests.cli.runs import ALL, EVERY_TASK

MODES = {
    "full": ("--fine-tune-mode", "full-model"),
    "heads alone": ("--fine-tune-mode", "last-linear-layer", "--sts_head", "difference"),
    "LoRA": ("--lora_rank", "4"),
    "LoRA a task": ("--lora_rank", "4", "--lora_per_task"),
    "PAL": ("--adapter", "pal", "--lr", "1e-3"),
    "PAL, BERT frozen": ("--adapter", "pal", "--freeze_bert"),
    "low-rank": ("--adapter", "low_rank", "--lr", "1e-3"),
    "low-rank, BERT frozen": ("--adapter", "low_rank", "--freeze_bert"),
    "LoRA and low-rank": ("--adapter", "low_rank", "--lora_rank", "4"),
}

NOTHING_SHARED = ("heads alone", "LoRA a task", "PAL, BERT frozen", "low-rank, BERT frozen")

CASES = [
    (mode, combine)
    for mode in MODES
    for combine in ("separate", "sum", "pcgrad")
    if combine != "pcgrad" or mode not in NOTHING_SHARED
]


@torch.no_grad()
def losses(model, data) -> dict[str, float]:
    model.eval()
    return {
        task: TASKS[task].loss(model(batch), batch.labels).item()
        for task, splits in data.items()
        for batch in eval_batches(splits["train"])
    }


@pytest.mark.parametrize("smart", [(), ("--smart", "5", "--smart_epsilon", "1e-2")], ids=["", "SMART"])
@pytest.mark.parametrize(("mode", "combine"), CASES)
def test_three_steps_lower_the_loss(tiny, sample, tmp_path, no_evaluation, mode, combine, smart):
    args = trainer.get_args(
        ["--pretrained", str(tiny), "--data", str(sample), "--out", str(tmp_path), "--limit", "8", "--batch_size", "8",
         "--epochs", "1", "--steps_per_epoch", "3", "--hidden_dropout_prob", "0", "--bert_dropout", "0",
         "--head_lr", "1e-2", "--combine", combine, *MODES[mode], *smart]
    )  # fmt: skip
    trainer.seed_everything(args.seed)
    tokenizer = load_tokenizer(args.pretrained)
    data = trainer.load_data(args, tokenizer)
    model = trainer.build_model(args)
    before = losses(model, data)
    trainer.train(model, tokenizer, data, args)
    after = losses(model, data)
    assert sum(after.values()) < sum(before.values()), (before, after)
    assert after["sst"] < before["sst"]  # its head learns in every mode


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_trains_with_all_terms_together(train, no_evaluation, mode):
    """R-Drop needs dropout, so the loss need not fall in a few steps; every term logs finite numbers."""
    (line,) = train(*MODES[mode], *ALL, "--limit", "8", "--steps_per_epoch", "2").metrics
    for name in ("smart", "bregman", "rdrop"):
        assert set(line[name]) == EVERY_TASK
        assert all(0 <= value < 10 for numbers in line[name].values() for value in numbers.values()), line[name]
