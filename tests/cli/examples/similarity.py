"""How alike are two sentences? The cosine of their mean vectors."""

import torch.nn.functional as F

from minbert.bert import BertModel
from minbert.heads import mean_pool
from minbert.tokenizer import BertTokenizer

texts = ["A man plays the guitar.", "Someone is making music.", "It rains."]
tokens = BertTokenizer.from_pretrained("minilm")(texts, padding=True, return_tensors="pt")
vectors = mean_pool(BertModel.from_pretrained("minilm")(**tokens)["last_hidden_state"], tokens["attention_mask"])
print(F.cosine_similarity(vectors[:1], vectors))
