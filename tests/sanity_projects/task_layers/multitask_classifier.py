"""Heads over a BERT that is told which task it works for; outputs come with the vectors that made them."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from bert import BertModel
from torch import nn


class MultitaskBERT(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.bert = BertModel.from_pretrained("bert-base-uncased")
        for layer in self.bert.bert_layers[-2:]:
            for task in ("sst", "para", "sts"):
                layer.add_task(task, config.adapter_width)
        self.dtype = self.bert.dtype
        self.drop = nn.Dropout(config.hidden_dropout_prob)
        self.sst, self.para = nn.Linear(768, 5), nn.Linear(768 * 2, 1)

    def vector(self, ids, mask, task):
        tokens = self.bert(ids, mask, task=task)["last_four"]
        m = mask[..., None].type(self.dtype)
        return self.drop((tokens * m).sum(1) / m.sum(1).clamp(min=1))

    def predict_sentiment(self, input_ids, attention_mask, return_vector=False):
        vector = self.vector(input_ids, attention_mask, "sst")
        logits = self.sst(vector)
        return (logits, vector) if return_vector else logits

    def predict_paraphrase(self, input_ids_1, attention_mask_1, input_ids_2, attention_mask_2, return_vectors=False):
        u = self.vector(input_ids_1, attention_mask_1, "para")
        v = self.vector(input_ids_2, attention_mask_2, "para")
        logits = self.para(torch.cat([u, v], -1))
        return (logits, u, v) if return_vectors else logits

    def predict_similarity(self, input_ids_1, attention_mask_1, input_ids_2, attention_mask_2):
        u = self.vector(input_ids_1, attention_mask_1, "sts")
        v = self.vector(input_ids_2, attention_mask_2, "sts")
        return (F.cosine_similarity(u, v) + 1) * 2.5


def train_multitask(args, batches):
    config = SimpleNamespace(hidden_dropout_prob=args.hidden_dropout_prob, adapter_width=args.adapter_width)
    model = MultitaskBERT(config)
    for sst, para, sts in batches:
        logits, vector = model.predict_sentiment(sst["token_ids"], sst["attention_mask"], return_vector=True)
        loss = F.cross_entropy(logits, sst["labels"])
        logits, u, v = model.predict_paraphrase(*para["inputs"], return_vectors=True)
        loss += F.binary_cross_entropy_with_logits(logits.flatten(), para["labels"])
        scores = model.predict_similarity(*sts["inputs"])
        loss += F.mse_loss(scores, sts["labels"])
