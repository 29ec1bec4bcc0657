"""minBERT: BERT by hand, real weights, three tasks at once, and the techniques that five course reports tried.

The modules read as a tutorial in this order (each imports only from those above it):

    config  optimizer  lora  smart  pcgrad  sampling     pieces that need nothing but torch
    bert  tokenizer  tasks                               the model, its input, its three questions
    pretrained  pals  heads  data                        real weights, layers and answers on top, real data
    multitask  pretraining                               the model that answers all three
    evaluation  checkpoint  report  sanity  experiments  scores, files, pictures, checks

`multitask_classifier.py` holds the training loop that uses them all.
"""

__version__ = "0.1.0"
