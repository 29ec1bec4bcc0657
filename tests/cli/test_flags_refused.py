"""Flags that cannot be combined stop the program with one line that names them, and their neighbours are accepted."""

import pytest

import multitask_classifier

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
        for name in ("sequential", "proportional", "sqrt", "uniform", "annealed", "priority", "fixed")
    ),
    ("--steps_per_epoch 5 --schedule sequential", ("--steps_per_epoch", "--schedule sequential")),
    ("--task_weights 1,2", ("--task_weights",)),
    *((f"--steps_per_epoch {text}", ("--steps_per_epoch", text)) for text in ("0", "3x", "3xnli", "x", "0xsts", "1.5")),
    ("--steps_per_epoch 3xsts", ("--steps_per_epoch 3xsts", "sst,para")),  # frozen, with the cosine, it learns nothing
    ("--steps_per_epoch 2xpara --train_tasks sst", ("--steps_per_epoch 2xpara", "sst")),
    ("--priorities 1,8,1", ("--priorities", "--schedule priority or fixed", "round_robin")),
    *((f"--priorities {p} --schedule fixed", ("--priorities", p)) for p in ("1,8", "1,0,1", "1,.5,1", "x")),
    *((f"--pooling {text}", ("--pooling", text)) for text in ("cls,mean", "max", "cls,", "cls,cls,max")),
    *((f"--pairs {text}", ("--pairs", text)) for text in ("joint,joint", "both", "joint,", "joint,joint,x")),
    ("--pairs separate,joint,separate --para_head concat", ("--para_head concat", "--pairs joint")),
    ("--pairs separate,joint,joint --sts_loss cosine --option finetune", ("--sts_loss cosine", "--pairs separate")),
    ("--train_tasks sst --tasks para,sts", ("--train_tasks sst", "--tasks")),
    ("--train_tasks sst, --tasks sst,sts", ("--train_tasks", "--tasks")),
    ("--train_tasks sst,sts --schedule quora_first", ("--schedule quora_first", "--train_tasks")),
    ("--train_tasks sst --option finetune --combine pcgrad", ("--combine pcgrad", "--train_tasks names sst alone")),
    ("--train_tasks sst --lora_rank 2 --lora_per_task", ("--lora_per_task", "--train_tasks names sst alone")),
    ("--train_tasks sst --smart 5 --smart_tasks para", ("--smart_tasks para", "--train_tasks")),
    ("--smart 5 --smart_tasks sts --sts_head mapped_cosine", ("--smart_tasks sts", "--sts_head mapped_cosine")),
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
    ("--predict_only --skip_predictions", ("--predict_only", "--skip_predictions")),
    ("--limit 0", ("--limit",)),
    ("--limit 10,10", ("--limit",)),
    ("--limit 1.5", ("--limit",)),
    ("--seed 4294967296", ("--seed", "0 to 4294967295")),
    ("--option finetune --train_tasks sst --sts_loss cosine", ("--sts_loss cosine", "--train_tasks")),
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
def test_flags_that_cannot_be_combined_are_one_line_that_names_them(refusal, flags, named):
    line = refusal(multitask_classifier.main, flags.split())
    assert all(flag in line for flag in named), line


def test_each_of_the_flags_is_accepted_where_its_other_half_is_absent():
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
        "--schedule fixed --priorities 1,8,1", "--schedule priority --priorities 3", "--pooling cls,cls,mean",
        "--steps_per_epoch 3xsts --option finetune", "--steps_per_epoch 1xpara --schedule annealed",
        "--train_tasks sst", "--train_tasks sst,sts --option finetune --combine pcgrad",
        "--smart 5 --schedule priority", "--quickstart --smart 5 --bregman 1",
        *(f"--smart 5 --smart_{flag} {value}" for flag, value in SMART_FLAGS.items()),
    ]  # fmt: skip
    for flags in accepted:
        assert multitask_classifier.get_args(flags.split())


def test_the_refusal_comes_before_any_file_is_read(refusal):
    flags = "--pretrained /no/such/weights --data /no/such/data --pairs joint --sts_head cosine"
    assert "/no/such" not in refusal(multitask_classifier.main, flags.split())
