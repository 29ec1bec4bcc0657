#!/usr/bin/env python3
"""Fine-tune one BERT on three tasks at once: sentiment (SST), paraphrase (Quora), similarity (STS).

  python multitask_classifier.py --quickstart                    about a minute, with the sample data
  python multitask_classifier.py --fine-tune-mode full-model     the course's run, with the course's files in data/
  python multitask_classifier.py --out runs/quickstart --predict "A film to remember."
  torchrun --nproc_per_node 2 multitask_classifier.py …          two processes share every batch

The whole method is in `train`: choose the tasks of a step, compute their losses, combine the gradients, step, and after
each epoch evaluate. From Python, `run` and `train` take the same flags as keyword arguments.
"""

import sys

from minbert.command_line import show_help

if __name__ == "__main__":
    show_help("m", __doc__)  # before PyTorch is loaded

from argparse import Namespace
from collections.abc import Callable

from minbert import processes
from minbert.additions import part_of
from minbert.average import Average
from minbert.checkpoint import about_model, save_model, save_trained
from minbert.compiled import compile_layers
from minbert.data import Batches, Dataset, read_split
from minbert.description import describe, describe_program
from minbert.dropout import draw_in_blocks
from minbert.engine import Portions, checked_step, find_device, seed_everything, settle_device
from minbert.epoch_log import EpochLog, report
from minbert.errors import UserError, one_line_errors
from minbert.evaluation import evaluate, overall, remembered
from minbert.folder import RUNS, RunFolder, check_places, free_folder
from minbert.hub import find
from minbert.multitask import MultitaskBert
from minbert.optimizer import AdamW, lr_factor, parameter_groups
from minbert.pcgrad import COMBINE, Memory, give_gradients, take_gradients
from minbert.predict import answer, best_model, settings_of_run, write_all_predictions
from minbert.pretrained import load_bert, load_tokenizer
from minbert.run import Run
from minbert.sampling import SCHEDULES, Plan
from minbert.settings import FROZEN, from_command_line, from_keywords
from minbert.tasks import STS_LOSSES, of_task
from minbert.terms import active, build_terms
from minbert.tokenizer import BertTokenizer

Data = dict[str, dict[str, Dataset]]  # task → split → data set
IDLE = ("nothing to learn: BERT is frozen, and the heads have no weights; add --fine-tune-mode full-model, or choose "
        "other heads or tasks")  # fmt: skip


# ------------------------------------------------------------------------------------------------ the loop


def train(model: MultitaskBert, tokenizer: BertTokenizer, data: Data, args: Namespace | None = None, **flags):
    """Train on data[task]["train"]; keep the model with the best overall dev score in OUT/best; return its scores.

    From Python: train(model, tokenizer, data, out="runs/mine", epochs=3, lr=5e-5, smart=5). The model sets
    which weights train, `model.freeze_bert()` or `MultitaskBert(…, additions={"lora": {"rank": 8}})`, the device and
    the precision, `model.precision`.
    """
    if args is None:
        args = from_keywords("m", model.tasks.values(), of_training=True, precision=model.precision, **flags)
        args.out, args.files = args.out or free_folder(RUNS, "python"), {}
        seed_everything(args.seed)
    if "folder" not in args:
        with RunFolder(args.out).held(args) as args.folder:
            args.folder.start(args, describe_program(args, model, tokenizer, data))
            return train(model, tokenizer, data, args)
    learners = [task for task in data if model.learns(task) and task in args.train_tasks]
    if not learners:
        raise UserError(IDLE)
    train_sets = {task: data[task]["train"] for task in learners}
    dev_sets = {task: splits["dev"] for task, splits in data.items()}
    loss_of = {task: model.tasks[task].loss for task in learners}
    if args.sts_loss != "mse":
        loss_of["sts"] = STS_LOSSES[args.sts_loss]

    sizes = {task: len(d) for task, d in train_sets.items()}
    plan = Plan(sizes, args.batch_size, args.epochs, args.seed, args.steps_per_epoch, priorities=args.priorities)
    schedule = SCHEDULES[args.schedule]
    batch_sizes = schedule.sizes(plan)
    streams = {task: Batches(d, batch_sizes[task], args.seed, args.even_batches) for task, d in train_sets.items()}
    lr = args.lr or (1e-5 if model.bert_trains() else 1e-3)
    groups = parameter_groups(model, lr, args.head_lr, args.weight_decay, args.no_decay_norms)
    optimizer = AdamW(groups, lr=lr, fused=True)
    combine, memory = COMBINE[args.combine], Memory(args.seed)
    portions = Portions(args.micro_batch, model.precision)
    seed = processes.seed_apart(args.seed)  # of the noise
    terms, log, run = build_terms(model, args.terms, seed), EpochLog(), Run(args.folder, args.save_every)
    run.about, average = about_model(model, tokenizer), Average(model, args.average)
    run.register(model=model, optimizer=optimizer, average=average, plan=plan, memory=memory, portions=portions)
    run.register(log=log, **{f"batches of {task}": stream for task, stream in streams.items()}, **terms)
    print(f"{'learning rate':18} {lr:g}{f', heads {args.head_lr:g}' if args.head_lr else ''}")

    draws = args.epochs * (plan.steps_per_epoch or max(sizes.values())) * args.batch_size
    with remembered(model, train_sets, dev_sets, 0 if args.terms else draws), run.on_its_way(args.resume):
        if not run.lines:
            with run.evaluation():
                scores = {"dev": evaluate(model, dev_sets)}
            report(run, model, 0, args.epochs, scores, {}, terms)
        for epoch in run.epochs(args.epochs):
            model.train()
            terms_of = {task: active(terms, task, schedule.waits(plan)) for task in learners}
            steps = schedule.steps(plan, epoch)
            if args.combine == "separate":
                steps = [[task] for step in steps for task in step]

            for i, step in run.steps(steps, f"epoch {epoch + 1}/{args.epochs}"):
                optimizer.zero_grad()
                losses, gradients = {}, []
                for task in step:
                    batch = streams[task].next().to(model.device)
                    weight = args.task_weights[task]
                    losses[task], term_log = portions.descend(model, batch, loss_of[task], terms_of[task], weight)
                    log.add(task, len(batch), losses[task], term_log)
                    if combine:
                        gradients.append(take_gradients(model.bert.parameters()))
                if combine:
                    give_gradients(gradients, combine, memory)
                    log.add_cosines(step, memory.cosines())
                done, total = epoch * len(steps) + i, args.epochs * len(steps)  # long and short epochs count alike
                factor = lr_factor(done, total, args.warmup, args.lr_decay)
                checked_step(model, optimizer, losses, f"epoch {epoch + 1}, step {i + 1}", args.clip, factor)
                average.update()
                for term in terms.values():
                    term.after_step(done / total)

            numbers = log.summary(terms) | {"lr": optimizer.param_groups[0]["lr"]}
            with run.evaluation(average.in_place()):
                scores = {"dev": evaluate(model, dev_sets)}
                if args.eval_train:
                    scores["train"] = evaluate(model, train_sets)
            plan.history.append(scores["dev"])
            learned = {task: scores["dev"][task] for task in learners}
            if run.is_best(overall(learned, model.tasks), scores["dev"]):
                with average.in_place():
                    save_model(args.folder.best, model, tokenizer, epoch=epoch + 1, dev=scores["dev"])
                    if not model.bert_trains() and model.additions:
                        save_trained(args.folder.trained, model)
            report(run, model, epoch + 1, args.epochs, scores, numbers, terms)
    return run.best["scores"]


# ------------------------------------------------------------------------------------------------ before and after


def load_data(args: Namespace, tokenizer: BertTokenizer) -> Data:
    """Read and tokenise every file that the run will need, so that a bad one is found before training starts."""
    data: Data = {}
    tokenizer.truncated = 0
    for name, task in args.rows.items():
        data[name] = {}
        for split, path in args.files[name].items():
            if split == "test" and args.skip_predictions:
                continue
            if split == "test" and not path.exists() and name not in args.asked_test:
                print(f"{path}: not there, so there will be no test predictions for {name}", file=sys.stderr)
                continue
            examples = read_split(path, task, split, args.limit.get(name))
            data[name][split] = Dataset(task, examples, tokenizer, of_task(args.pairs, name))
        print(f"{task.title:18} {', '.join(f'{len(d):,} {split}' for split, d in data[name].items())}")
    if tokenizer.truncated:
        print(f"cut to {tokenizer.max_length} tokens: {tokenizer.truncated:,} of the inputs", file=sys.stderr)
    return data


def build_model(args: Namespace) -> MultitaskBert:
    """Pretrained BERT with its additions and fresh heads, on the run's device; BERT is frozen if the flags say so."""
    bert = load_bert(args.pretrained, args.attention, args.bert_dropout, local_files_only=args.local_files_only)
    try:
        model = MultitaskBert(bert, args.rows.values(), args.pairs, args.pooling, args.heads,
                              args.hidden_dropout_prob, args.additions)  # fmt: skip
    except ValueError as error:  # which depends on the weights
        raise UserError(str(error)) from error
    model.to(find_device(args.use_gpu)).precision = args.precision
    if args.fast_dropout:
        draw_in_blocks(model)
    if args.compile:
        compile_layers(model.bert, args.resume or args.values["resume"])
    if args.mode == FROZEN or args.freeze_bert:
        model.freeze_bert()
        if args.bert_dropout is None and not args.additions:
            model.still_bert()
    trained: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        trained[part_of(name)] = trained.get(part_of(name), 0) + parameter.requires_grad * parameter.numel()
    total, n = sum(p.numel() for p in model.parameters()), sum(trained.values())
    parts = ", ".join(f"{part} {numbers:,}" for part, numbers in trained.items())
    print(f"{'parameters':18} {n:,} trained ({parts}) of {total:,}: {n / total:.1%}")
    idle = [task for task in args.tasks if not model.learns(task)]
    if set(idle) >= set(args.train_tasks):
        raise UserError(IDLE)
    for task in idle:
        print(f"{task} has nothing to learn: its head has no weights and BERT is frozen", file=sys.stderr)
    return model


def run(args: Namespace | None = None, **flags) -> dict[str, float]:
    """Load, train, predict with the best; returns its dev scores. From Python: run(pretrained="minilm", epochs=3)."""
    args = args or from_keywords("m", **flags)
    args.out = args.out or processes.from_first(lambda: free_folder(RUNS, args.run_name))
    check_places(args)
    settle_device(args)
    with RunFolder(args.out).held(args) as args.folder:
        seed_everything(args.seed)
        tokenizer = processes.first_alone(lambda: load_tokenizer(args.pretrained, args.local_files_only))
        data = load_data(args, tokenizer)
        model = build_model(args)
        args.folder.start(args, describe(args, find(args.pretrained, args.local_files_only), tokenizer))
        print(f"{'run':18} {args.out}", flush=True)
        scores = train(model, tokenizer, data, args)
        if not args.skip_predictions:
            scores = write_all_predictions(args, data)
        args.folder.finish()
    return scores


def start(args: Namespace, run: Callable[[Namespace], dict]):
    """Do what the flags ask for: answer a question, write predictions, or run."""
    if args.predict:
        answer(args)
    elif args.predict_only:
        model, tokenizer = best_model(args)
        write_all_predictions(args, load_data(settings_of_run(args, model), tokenizer))
    else:
        run(args)


def get_args(argv: list[str] | None = None) -> Namespace:
    """The settings of a command line; flags that cannot be combined end the program, with one line."""
    return from_command_line("m", argv, __doc__)


def main(argv: list[str] | None = None):
    with one_line_errors(), processes.joined():
        start(get_args(argv), run)


if __name__ == "__main__":
    main()
