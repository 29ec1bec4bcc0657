"""Three tasks on one BERT."""

import torch
from torch import nn

from ..nets.bert import BertModel


class MultitaskBERT(nn.Module):
    def __init__(self, rate: float, width: int):
        super().__init__()
        self.encoder = BertModel.from_pretrained("bert-base-uncased")
        self.rate = nn.Dropout(rate)
        self.heads = nn.ModuleDict(
            {"sst": nn.Linear(width, 5), "para": nn.Linear(3 * width, 1), "sts": nn.Linear(width, 1)}
        )

    def embed(self, ids, mask):
        tokens = self.encoder(ids, mask)["last_hidden_state"]
        weights = mask.unsqueeze(-1) / mask.sum(1, keepdim=True).unsqueeze(-1)
        return self.rate((tokens * weights).sum(1))

    def predict_sentiment(self, ids, mask):
        return self.heads["sst"](self.embed(ids, mask))

    def predict_paraphrase(self, ids_a, mask_a, ids_b, mask_b):
        u, v = self.embed(ids_a, mask_a), self.embed(ids_b, mask_b)
        return self.heads["para"](torch.cat((u, v, u * v), -1)).flatten()

    def predict_similarity(self, ids_a, mask_a, ids_b, mask_b):
        return self.heads["sts"](self.embed(ids_a, mask_a) * self.embed(ids_b, mask_b)).flatten()
