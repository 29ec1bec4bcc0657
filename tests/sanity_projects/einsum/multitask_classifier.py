import torch
from bert import BertModel
from torch import einsum, nn


class MultitaskBERT(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.bert = BertModel.from_pretrained("bert-base-uncased")
        self.bert.requires_grad_(getattr(config, "fine_tune_mode", "full-model") == "full-model")
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.sentiment = nn.Linear(config.hidden_size, 5)
        self.paraphrase = nn.Bilinear(config.hidden_size, config.hidden_size, 1)

    def forward(self, input_ids, attention_mask):
        """The mean of the tokens' vectors, without the pads."""
        hidden = self.bert(input_ids, attention_mask)["last_hidden_state"]
        mask = attention_mask.to(hidden)
        return einsum("btc,bt->bc", hidden, mask) / mask.sum(1, keepdim=True)

    def predict_sentiment(self, input_ids, attention_mask):
        return self.sentiment(self.dropout(self(input_ids, attention_mask)))

    def predict_paraphrase(self, input_ids_1, attention_mask_1, input_ids_2, attention_mask_2):
        u, v = self(input_ids_1, attention_mask_1), self(input_ids_2, attention_mask_2)
        return self.paraphrase(self.dropout(u), self.dropout(v))

    def predict_similarity(self, input_ids_1, attention_mask_1, input_ids_2, attention_mask_2):
        """Similarity from 0 to 5."""
        u, v = self(input_ids_1, attention_mask_1), self(input_ids_2, attention_mask_2)
        cosine = einsum("bc,bc->b", u, v) / (u.norm(dim=1) * v.norm(dim=1)).clamp_min(1e-8)
        return 5 * torch.unsqueeze(cosine, 1)
