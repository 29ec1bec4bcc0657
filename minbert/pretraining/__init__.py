"""Further pre-training: BERT reads the tasks' own sentences before it is fine-tuned on them (Gururangan et al. 2020).

    python -m minbert.pretraining --pretrained minilm --data data --out runs/read         two more lessons for a BERT
    python multitask_classifier.py --pretrained runs/read …                               then the course's tasks

Two lessons are taken together, L = w₁·L_MLM + w₂·L_NLI, as in the report of Mo & Ho (w₁ = .7, w₂ = .3):

MLM   masked language modelling (Devlin et al. 2019, §3.1). Of every sentence's tokens 15% are chosen; of these 80%
      become [MASK], 10% another token, 10% stay. The head predicts the chosen tokens; only these are in the loss:
          L_MLM = - mean over the chosen i of log softmax(W·t(x_i) + b)[token_i],   t(x) = LN(GELU(A·x + a)),
      x_i the last layer's vector, W the word embedding itself. A sentence is masked anew each time it comes ("dynamic
      masking", Liu et al. 2019), by draws that depend on the seed, the pass and the batch alone.
NLI   does a premise entail a hypothesis, contradict it, or neither (Bowman et al. 2015)? The head gives three logits,
      from both sentences in one row, or from two vectors as [u; v; |u-v|] (Reimers & Gurevych 2019).

The lessons use the *training* files. A sentence that is also in a dev or test file is left out of both lessons, and so
are the held-out sentences on which masked words are scored. The result is a directory of weights with the MLM head,
which `--pretrained` takes, and which `transformers.BertForMaskedLM` loads.

    masking.py   which tokens are chosen, and what stands in their place
    lessons.py   the MLM head, and one BERT with both lessons' heads
    corpus.py    what is read, and what is left out
    settings.py  from the flags to the settings
    script.py    the loop
"""
