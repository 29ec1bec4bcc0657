"""Mixed precision on several GPUs, taken for granted all over."""

import os
from contextlib import nullcontext

import torch
import torch.distributed as dist
import torch.nn.functional as F
from bert import BertModel
from optimizer import AdamW
from torch import nn
from torch.cuda.amp import GradScaler, autocast
from torch.nn.parallel import DistributedDataParallel

DEVICE = torch.device("cuda:0")


class MultitaskBERT(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.bert = BertModel.from_pretrained("bert-base-uncased").cuda()
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.tasks = nn.Embedding(3, 768).cuda()
        self.out = nn.ModuleList([nn.Linear(768, 5), nn.Linear(768, 1), nn.Linear(768, 1)]).cuda()

    def forward(self, input_ids, attention_mask, task=0):
        with autocast(dtype=torch.float16):
            hidden = self.bert(input_ids.cuda(), attention_mask.cuda())["pooler_output"]
        return self.dropout(hidden.float() + self.tasks(torch.tensor([task], device="cuda")))

    def predict_sentiment(self, input_ids, attention_mask):
        return self.out[0](self.forward(input_ids, attention_mask))

    @torch.compile
    def predict_paraphrase(self, input_ids_1, attention_mask_1, input_ids_2, attention_mask_2):
        u = self.forward(input_ids_1, attention_mask_1, task=1)
        v = self.forward(input_ids_2, attention_mask_2, task=1)
        return self.out[1](u * v)

    def predict_similarity(self, input_ids_1, attention_mask_1, input_ids_2, attention_mask_2):
        u = self.forward(input_ids_1, attention_mask_1, task=2)
        v = self.forward(input_ids_2, attention_mask_2, task=2)
        return self.out[2](u * v)


def train_multitask(args, config, loaders):
    dist.init_process_group("nccl")
    model = DistributedDataParallel(MultitaskBERT(config).to(DEVICE), device_ids=[int(os.environ["LOCAL_RANK"])])
    optimizer, scaler = AdamW(model.parameters(), lr=args.lr), GradScaler()
    for epoch in range(args.epochs):
        model.train()
        for sst, para, sts in zip(*loaders):
            optimizer.zero_grad(set_to_none=True)
            with autocast() if args.amp else nullcontext():
                logits = model.module.predict_sentiment(sst["token_ids"], sst["attention_mask"])
                loss = F.cross_entropy(logits, sst["labels"].cuda())
                inputs = [para[k] for k in ("token_ids_1", "attention_mask_1", "token_ids_2", "attention_mask_2")]
                logits = model.module.predict_paraphrase(*inputs).squeeze(-1)
                loss += F.binary_cross_entropy_with_logits(logits, para["labels"].cuda().float())
                inputs = [sts[k] for k in ("token_ids_1", "attention_mask_1", "token_ids_2", "attention_mask_2")]
                loss += F.mse_loss(model.module.predict_similarity(*inputs).squeeze(-1), sts["labels"].cuda().float())
            if args.amp:
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
            else:
                loss.backward()
                optimizer.step()
