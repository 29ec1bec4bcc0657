"""The page about runs: what they were, what they scored, how they learned, where they fail.

    python -m minbert.report runs/quickstart                 writes runs/quickstart/report.html
    python -m minbert.report runs                            all runs in a folder side by side, in runs/report.html
    python -m minbert.report runs/a runs/b --out both.html

The page is one file without scripts, which fetches nothing. Its pictures are also PNG files in a folder beside it. They
need matplotlib (`pip install matplotlib`); without it the page has the same numbers as tables. A report only
reads: no run calls it, and it changes nothing in a run's folder but its own page. It also works on runs that are
unfinished or damaged, and the page says what is missing.

    folders read   a `Run`, and how it is read from run.json, metrics.jsonl and outputs/
    numbers        statistics of the answers: confusion, precision and recall, calibration, the worst mistakes
    compare        conditions in which runs differ, groups of runs that differ in the seed alone, the best other run
    blocks         what a page is made of
    sections over_time side_by_side    the sections of one run, those about its epochs, and the section of several
    canvas pictures pictures_of_several    what matplotlib draws; page: the HTML

TensorBoard (`pip install tensorboard`) reads the log of a run after

    from torch.utils.tensorboard import SummaryWriter
    from minbert.report.folders import flatten
    from minbert.report.read import read_run

    run = read_run("runs/quickstart")
    with SummaryWriter("tensorboard/quickstart") as writer:
        for line in run.lines:
            for name, value in flatten(line).items():  # "dev/sst", "loss/para", "smart/sst/before", "seconds"
                writer.add_scalar(name, value, line["epoch"])

Then `tensorboard --logdir tensorboard` shows it. Weights & Biases (`pip install wandb`) takes the same numbers, with
`wandb.init(project="minbert", config=run.part("flags"))` and `wandb.log(flatten(line), step=line["epoch"])` in place of
the writer.
"""
