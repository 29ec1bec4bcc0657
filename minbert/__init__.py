"""minBERT: BERT by hand, real weights, three tasks at once, and the techniques that course reports tried.

The modules read as a tutorial in this order; each imports only from those before it:

    the model         config  bert  optimizer  vocabulary  tokenizer
    the techniques    dropout  compiled  lora  pals  smart  rdrop  average  pcgrad  sampling  additions
    the tasks         tasks  tables  examples  data  heads  multitask  evaluation
    weights           strict  cache  minilm  foreign  hub  pretrained  checkpoint
    a run             settings  description  folder  terms  engine  run  epoch_log  predict  own  submit  report
                      results  experiments
    before the tasks  pretraining
    to learn from     sanity  reading  trace  exercise

`errors`, `parser`, `flags`, `command_line`, `files`, `progress`, `state` and `processes` are helpers, which need not be
read first.
The training loop, which uses all of it, stands in `multitask_classifier.py`. The symbols of all files, like B and T,
are listed in `bert.py`.
"""

__version__ = "0.1.0"
