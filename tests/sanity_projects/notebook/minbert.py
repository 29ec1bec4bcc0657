#!/usr/bin/env python

# # Everything in one notebook

# In[1]:


get_ipython().run_line_magic("matplotlib", "inline")
get_ipython().system("pip install tokenizers")
import math
import random

import matplotlib.pyplot as plt
import pandas as pd
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader
from transformers import BertTokenizer

torch.manual_seed(0)
random.seed(0)


# In[2]:


class config:
    vocab_size = 30522
    hidden_size = 768
    num_hidden_layers = 12
    num_attention_heads = 12
    intermediate_size = 3072
    hidden_dropout_prob = attention_probs_dropout_prob = 0.1
    max_position_embeddings = 512
    type_vocab_size = 2
    layer_norm_eps = 1e-12


# In[3]:


class BertSelfAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.n, self.d = config.num_attention_heads, config.hidden_size // config.num_attention_heads
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.drop = nn.Dropout(config.attention_probs_dropout_prob)

    def forward(self, x, mask):
        b, t, c = x.size()
        q, k, v = [l(x).view(b, t, self.n, self.d).transpose(1, 2) for l in (self.query, self.key, self.value)]
        a = torch.softmax(torch.matmul(q, k.transpose(2, 3)) / math.sqrt(self.d) + mask, -1)
        return torch.matmul(self.drop(a), v).transpose(1, 2).reshape(b, t, c)


class BertLayer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.self_attention = BertSelfAttention(config)
        self.attention_dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.attention_layer_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.interm_dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.out_dense = nn.Linear(config.intermediate_size, config.hidden_size)
        self.out_layer_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.drop = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x, mask):
        x = self.attention_layer_norm(x + self.drop(self.attention_dense(self.self_attention(x, mask))))
        return self.out_layer_norm(x + self.drop(self.out_dense(F.gelu(self.interm_dense(x)))))


class BertModel(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.word_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.pos_embedding = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.tk_type_embedding = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.embed_layer_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.embed_dropout = nn.Dropout(config.hidden_dropout_prob)
        self.bert_layers = nn.ModuleList([BertLayer(config) for _ in range(config.num_hidden_layers)])
        self.pooler_dense = nn.Linear(config.hidden_size, config.hidden_size)

    def embed(self, ids):
        e = self.word_embedding(ids) + self.pos_embedding.weight[: ids.size(1)] + self.tk_type_embedding.weight[0]
        return self.embed_dropout(self.embed_layer_norm(e))

    def forward(self, ids, mask):
        h, m = self.embed(ids), (1 - mask[:, None, None].float()) * torch.finfo(torch.float32).min
        for layer in self.bert_layers:
            h = layer(h, m)
        return {"last_hidden_state": h, "pooler_output": self.pooler_dense(h[:, 0]).tanh()}


bert = BertModel(config)
bert.load_state_dict(torch.load("bert.pt"))


# In[4]:


tokenizer = BertTokenizer.from_pretrained("bert-base-uncased")
train = pd.read_csv("data/ids-sst-train.csv", sep="\t")
train["sentiment"].hist()
plt.show()
print(len(train))


# In[5]:


class BertSentimentClassifier(nn.Module):
    def __init__(self, num_labels=5):
        super().__init__()
        self.bert = bert
        self.out = nn.Sequential(nn.Dropout(0.3), nn.Linear(768, num_labels))

    def forward(self, ids, mask):
        return self.out(self.bert(ids, mask)["pooler_output"])


model = BertSentimentClassifier()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)


def epoch(loader):
    model.train()
    for ids, mask, labels in loader:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(ids, mask), labels)
        loss.backward()
        optimizer.step()


for _ in range(3):
    epoch(DataLoader(list(zip(train["sentence"], train["sentiment"])), batch_size=8))
