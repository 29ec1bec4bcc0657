"""What stands behind a [MASK]? Needs weights with an MLM head: bert-base-uncased, or what the pre-training wrote."""

import sys

from minbert.pretraining.lessons import fill_mask, load_learner
from minbert.tokenizer import BertTokenizer

weights = sys.argv[1] if len(sys.argv) > 1 else "bert-base-uncased"
learner, has_head = load_learner(weights)
for word, probability in fill_mask(learner, BertTokenizer.from_pretrained(weights), "A [MASK] film.")[0]:
    print(f"{word:12} {probability:.1%}")
