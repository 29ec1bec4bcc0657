"""minBERT: BERT by hand, real weights, three tasks at once, and the techniques that course reports tried.

The modules read as a tutorial in this order (each imports only from those above it):

    config  optimizer  pcgrad  sampling     pieces that know nothing of BERT
    smart  lora                             two more: techniques that work on any module
    bert  tokenizer  tasks                  the model, its input, its questions
    pretrained  pals  heads  data           real weights, layers beside them, answers on top, real data
    multitask                               the model that answers all the questions
    evaluation  checkpoint                  scores, prediction files, a model in one file
    sanity                                  what is wrong with somebody's BERT, where, and why
    pretraining                             masked words and inference pairs, before the tasks

`errors` and `files` are helpers. `multitask_classifier.py` holds the training loop that uses them all.
"""

__version__ = "0.1.0"
