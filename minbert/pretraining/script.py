"""The loop of `python -m minbert.pretraining`."""

import copy
from argparse import Namespace

from minbert import processes
from minbert.data import Batches
from minbert.description import describe
from minbert.engine import checked_step, seed_everything, settle_device
from minbert.epoch_log import EpochLog
from minbert.errors import one_line_errors
from minbert.evaluation import evaluate
from minbert.folder import RunFolder, check_places
from minbert.hub import find
from minbert.optimizer import AdamW, lr_factor, parameter_groups
from minbert.pretrained import SAVED, load_tokenizer, save_pretrained
from minbert.pretraining.corpus import Corpus, read_corpus
from minbert.pretraining.lessons import Learner, load_learner, score_masked
from minbert.pretraining.masking import Masker, generator_for
from minbert.pretraining.settings import get_args
from minbert.run import Run
from minbert.sampling import SCHEDULES, Plan
from minbert.tasks import TASKS
from minbert.tokenizer import BertTokenizer


def train(learner: Learner, tokenizer: BertTokenizer, corpus: Corpus, args: Namespace):
    """Train on corpus.train; after each epoch score, and write the weights to OUT."""
    device, masker = learner.nli.device, Masker(tokenizer, args.masking)
    plan = Plan({t: len(d) for t, d in corpus.train.items()}, args.batch_size, args.epochs, args.seed,
                args.steps_per_epoch)  # fmt: skip
    schedule = SCHEDULES["interleaved"]  # an epoch sees the larger lesson once, the smaller one about once
    sizes = schedule.sizes(plan)
    streams = {task: Batches(d, sizes[task], args.seed) for task, d in corpus.train.items()}
    groups = parameter_groups(learner, args.lr, args.head_lr, args.weight_decay, spare_norms=True)
    optimizer = AdamW(groups, lr=args.lr, fused=True)
    log, run = EpochLog(), Run(args.folder, args.save_every)
    run.register(learner=learner, optimizer=optimizer, plan=plan, log=log)
    run.register(**{f"batches of {task}": stream for task, stream in streams.items()})

    processes.seed_apart(args.seed)
    with run.on_its_way(args.resume):
        if not run.lines:
            with run.evaluation():
                results = scores(learner, corpus, masker)
            report(run, 0, args.epochs, {}, results)
        for epoch in run.epochs(args.epochs):
            learner.train()
            steps = schedule.steps(plan, epoch)
            for i, step in run.steps(steps, f"epoch {epoch + 1}/{args.epochs}"):
                optimizer.zero_grad()
                losses, examples = [], []
                for task in step:
                    at = (streams[task].passes, streams[task].position)
                    whole = streams[task].next()
                    mine, share = processes.share(len(whole))
                    batch = whole.part(mine).to(device)
                    with learner.nli.autocast():
                        if task == "mlm":  # a mean over the chosen places, not over the rows
                            seen, chosen = masker(whole.input_ids, generator_for(args.seed, 1, *at))
                            share = bool(share) * (chosen[mine].sum() / chosen.sum().clamp(min=1)).item()
                            loss = learner.mlm_loss(batch, seen[mine].to(device), chosen[mine].to(device))
                        else:
                            loss = TASKS[task].loss(learner.nli(batch), batch.labels)
                    (args.weights[task] * share * loss).backward()
                    losses.append(share * loss.detach())
                    examples.append(len(whole))
                losses = dict(zip(step, processes.sum_gradients([*learner.parameters()], losses), strict=True))
                for (task, loss), count in zip(losses.items(), examples, strict=True):
                    log.add(task, count, loss)
                done, total = epoch * len(steps) + i, args.epochs * len(steps)
                factor = lr_factor(done, total, args.warmup, args.lr_decay)
                checked_step(learner, optimizer, losses, f"epoch {epoch + 1}, step {i + 1}", args.clip, factor)

            numbers = log.summary({})
            with run.evaluation():
                results = scores(learner, corpus, masker)
            write_weights(learner, tokenizer, args)
            report(run, epoch + 1, args.epochs, numbers, results)
    if args.resume:  # the weights may have been lost since
        write_weights(learner, tokenizer, args)
    print(f"weights     {args.out}", flush=True)


def write_weights(learner: Learner, tokenizer: BertTokenizer, args: Namespace):
    """The directory that `--pretrained` and `transformers` take, with the MLM head if that is worth keeping."""
    if processes.rank() == 0:
        save_pretrained(learner.bert, tokenizer, args.out, learner.mlm if learner.keeps_mlm else None)


def scores(learner: Learner, corpus: Corpus, masker: Masker) -> dict[str, float]:
    """{"mlm_loss": 2.1, "masked_word_accuracy": .61, "nli": .74}, for the lessons that there are."""
    results = score_masked(learner, corpus.held_out, masker) if corpus.held_out else {}
    return results | (evaluate(learner.nli, {"nli": corpus.nli_dev}) if corpus.nli_dev else {})


def report(run: Run, epoch: int, epochs: int, numbers: dict, results: dict):
    """Print the epoch in one line, and end it; epoch 0 is before training."""
    text = [f"epoch {epoch}/{epochs}" if epoch else "before training"]
    if epoch:
        text.append("loss " + "  ".join(f"{task} {x:.3f}" for task, x in numbers["loss"].items()))
    if "mlm_loss" in results:
        text.append(f"held out: mlm {results['mlm_loss']:.3f}, masked words {results['masked_word_accuracy']:.3f}")
    if "nli" in results:
        text.append(f"nli dev {results['nli']:.3f}")
    if epoch:
        text.append(f"{numbers['seconds']:.0f} s, {numbers['examples_per_second']:.1f} examples/s")
    print(" | ".join(text), flush=True)
    line = {"epoch": epoch, **results, **numbers}
    run.end_epoch(line) if epoch else run.log(line)


def run(args: Namespace):
    """Read, load, train."""
    check_places(args, SAVED)
    device = settle_device(args)
    with RunFolder(args.out, SAVED).held(args) as args.folder:
        seed_everything(args.seed)
        tokenizer = processes.first_alone(lambda: load_tokenizer(args.pretrained, args.local_files_only))
        cutting = copy.copy(tokenizer)  # the one that is written keeps the model's own limit
        cutting.max_length = min(tokenizer.max_length, args.max_length)
        corpus = read_corpus(args.data, cutting, args.tasks, args.corpus, args.limit, args.held_out, args.pairs)
        nli = {"pairs": args.pairs, "pooling": args.pooling, "dropout": args.hidden_dropout_prob}
        learner, had_head = load_learner(args.pretrained, args.attention, args.bert_dropout,
                                         nli if corpus.nli else None, args.local_files_only)  # fmt: skip
        learner.to(device)
        learner.nli.precision = args.precision
        learner.keeps_mlm = had_head or corpus.mlm is not None
        if corpus.mlm:
            print(f"sentences   {len(corpus.mlm):,} to read, {len(corpus.held_out or ()):,} to score")
            print(f"MLM head    {'came with the weights' if had_head else 'fresh: the weights came without one'}")
        if corpus.nli:
            print(f"NLI pairs   {len(corpus.nli):,} to read, {len(corpus.nli_dev):,} to score")
        print("".join(f"            {note}\n" for note in corpus.notes), end="", flush=True)
        args.folder.start(args, describe(args, find(args.pretrained, args.local_files_only), tokenizer))
        train(learner, tokenizer, corpus, args)
        args.folder.finish()


def main(argv: list[str] | None = None):
    with one_line_errors(), processes.joined():
        run(get_args(argv))


if __name__ == "__main__":
    main()
