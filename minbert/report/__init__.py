"""The page about runs: what they were, what they scored, how they learned, where they fail.

    python -m minbert.report runs/quickstart                 writes runs/quickstart/report.html
    python -m minbert.report runs                            all runs in a folder side by side, in runs/report.html
    python -m minbert.report runs/a runs/b --out both.html

The page is one file without scripts, which fetches nothing; its pictures are PNG files in a folder beside it as well.
A report reads: no run ever calls it, and it changes nothing in a run's folder but its own page. It works on runs that are
not finished, of other versions, or damaged; what is missing is said on the page. Pictures need matplotlib
(`pip install "minbert[plots]"`); without it the page has the same numbers as tables.

    folders        reads run.json, metrics.jsonl and outputs/ into a `Run`
    numbers        statistics of the answers: confusion, precision and recall, calibration, the worst mistakes
    compare        conditions in which runs differ, groups that differ in the seed alone, the best other run
    blocks         what a page is made of
    sections       the sections of one run          side_by_side    the section of several
    pictures       by matplotlib                    page            the HTML

For TensorBoard (`pip install tensorboard`) the log of a run is read by

    from torch.utils.tensorboard import SummaryWriter
    from minbert.report.folders import flatten, read_run

    run = read_run("runs/quickstart")
    with SummaryWriter("tensorboard/quickstart") as writer:
        for line in run.lines:
            for name, value in flatten(line).items():  # "dev/sst", "loss/para", "smart/sst/before", "seconds"
                writer.add_scalar(name, value, line["epoch"])

and for Weights & Biases (`pip install wandb`) by the same with `wandb.init(project="minbert", config=run.part("flags"))`
and `wandb.log(flatten(line), step=line["epoch"])`.
"""
