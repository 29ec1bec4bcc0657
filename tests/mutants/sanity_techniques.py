"""How mistakes in the heads, in evaluation and in the techniques look in files: replaced text in right projects.

`INJECTED` says which text to replace, and the one name that the check must give it. Right projects are our own
package, and the ways in which course projects write these things (`RIGHT`). It is used by test_sanity_techniques.py.
"""

from tests.sanity.making import ROOT, bare, changed, swap

PARTS = ("heads", "evaluation", "pcgrad", "smart", "lora", "pals")

# ------------------------------------------------------------------------------------------------ right projects

PCGRAD = """
import random
import torch

class PCGrad:
    def __init__(self, optimizer):
        self.optimizer = optimizer

    def pc_backward(self, objectives):
        params = [p for group in self.optimizer.param_groups for p in group["params"]]
        grads = [torch.autograd.grad(o, params, retain_graph=True, allow_unused=True) for o in objectives]
        shared = [k for k in range(len(params)) if all(g[k] is not None for g in grads)]
        merged = self.project([torch.cat([g[k].flatten() for k in shared]) for g in grads])
        for k, p in enumerate(params):
            if k in shared:
                p.grad, merged = merged[: p.numel()].view_as(p), merged[p.numel() :]
            else:
                p.grad = sum(g[k] for g in grads if g[k] is not None)

    def project(self, grads):
        results = [g.clone() for g in grads]
        for mine in results:
            random.shuffle(grads)
            for other in grads:
                if mine @ other < 0:
                    mine -= (mine @ other) / (other @ other) * other
        return torch.stack(results).sum(dim=0)
"""
SURGERY = """
import random
import torch

def gradient_surgery(grads):
    projected = []
    for i, g in enumerate(grads):
        others = [h for j, h in enumerate(grads) if j != i]
        random.shuffle(others)
        g = g.clone()
        for h in others:
            if g @ h < 0:
                g = g - (g @ h) / (h @ h) * h
        projected.append(g)
    return sum(projected)
"""
SMART = """
import torch
import torch.nn.functional as F
from torch import nn

class SMARTLoss(nn.Module):
    def __init__(self, eval_fn, loss_fn, loss_last_fn=None, num_steps=1, step_size=1e-3, epsilon=1e-5, noise_var=1e-5):
        super().__init__()
        self.eval_fn, self.loss_fn, self.loss_last_fn = eval_fn, loss_fn, loss_last_fn or loss_fn
        self.num_steps, self.step_size, self.epsilon, self.noise_var = num_steps, step_size, epsilon, noise_var

    def forward(self, embed, state):
        noise = torch.randn_like(embed, requires_grad=True) * self.noise_var
        for _ in range(self.num_steps):
            loss = self.loss_fn(self.eval_fn(embed + noise), state.detach())
            (g,) = torch.autograd.grad(loss, noise)
            g = g / (g.abs().amax(dim=-1, keepdim=True) + 1e-300)
            noise = (noise + self.step_size * g).clamp(-self.epsilon, self.epsilon).detach().requires_grad_()
        return self.loss_last_fn(self.eval_fn(embed + noise), state)

def sym_kl_loss(input, target, reduction="batchmean"):
    return F.kl_div(F.log_softmax(input, -1), F.softmax(target, -1), reduction=reduction) + F.kl_div(
        F.log_softmax(target, -1), F.softmax(input, -1), reduction=reduction)
"""
LORA = """
import torch
from torch import nn

class LoRALayer(nn.Module):
    def __init__(self, in_dim, out_dim, rank, alpha):
        super().__init__()
        self.A = nn.Parameter(torch.randn(in_dim, rank) / rank**0.5)
        self.B = nn.Parameter(torch.zeros(rank, out_dim))
        self.scale = alpha / rank

    def forward(self, x):
        return self.scale * (x @ self.A @ self.B)

class LinearWithLoRA(nn.Module):
    def __init__(self, linear, rank, alpha):
        super().__init__()
        self.linear = linear
        for p in linear.parameters():
            p.requires_grad = False
        self.lora = LoRALayer(linear.in_features, linear.out_features, rank, alpha)

    def forward(self, x):
        return self.linear(x) + self.lora(x)
"""
MULTITASK = """
import torch
import torch.nn.functional as F
from torch import nn
from bert import BertModel
from datasets import SentencePairDataset

class MultitaskBERT(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.bert = BertModel.from_pretrained("bert-base-uncased")
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.sentiment = nn.Linear(config.hidden_size, 5)
        self.paraphrase = nn.Linear(2 * 768, 1)

    def forward(self, ids, mask):
        hidden = self.bert(ids, mask)["last_hidden_state"]
        mask = mask.unsqueeze(-1).float()
        return self.dropout((hidden * mask).sum(1) / mask.sum(1))

    def predict_sentiment(self, ids, mask):
        return self.sentiment(self(ids, mask))

    def predict_paraphrase(self, ids1, mask1, ids2, mask2):
        u, v = self(ids1, mask1), self(ids2, mask2)
        return self.paraphrase(torch.cat([u, v], dim=1)).squeeze()

    def predict_similarity(self, ids1, mask1, ids2, mask2):
        return 5 * F.cosine_similarity(self(ids1, mask1), self(ids2, mask2), dim=1)

def train_multitask(args, sts_train, model, optimizer, batches):
    data = SentencePairDataset(sts_train, args, isRegression=True)
    model.train()
    for batch in batches(data):
        optimizer.zero_grad()
        loss = F.cross_entropy(model.predict_sentiment(*batch[:2]), batch.labels)
        loss += F.binary_cross_entropy_with_logits(model.predict_paraphrase(*batch), batch.labels)
        loss += F.mse_loss(model.predict_similarity(*batch), data)
        loss.backward()
        optimizer.step()
"""
CLASSIFIER = """
import numpy as np
import torch
import torch.nn.functional as F
from bert import BertModel
from sklearn.metrics import accuracy_score, f1_score

class BertSentimentClassifier(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.bert = BertModel.from_pretrained("bert-base-uncased")
        self.dropout = torch.nn.Dropout(config.hidden_dropout_prob)
        self.linear = torch.nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, ids, mask):
        return self.linear(self.dropout(self.bert(ids, mask)["pooler_output"]))

def train(logits, labels):
    return F.cross_entropy(logits, labels)

def model_eval(dataloader, model, device):
    model.eval()
    y_true, y_pred, sents, sent_ids = [], [], [], []
    for batch in dataloader:
        logits = model(batch["token_ids"].to(device), batch["attention_mask"].to(device))
        y_pred.extend(np.argmax(logits.detach().numpy(), axis=1).flatten())
        y_true.extend(batch["labels"].flatten())
        sents.extend(batch["sents"])
        sent_ids.extend(batch["sent_ids"])
    return accuracy_score(y_true, y_pred), f1_score(y_true, y_pred), y_pred, y_true, sents, sent_ids
"""
EVALUATION = """
import numpy as np
import torch
from datasets import SentenceClassificationDataset, SentencePairDataset, load_multitask_data
from torch.utils.data import DataLoader

def run(dataloader, predict, device):
    outputs, ids = [], []
    for batch in dataloader:
        keys = [k for k in ("token_ids", "attention_mask", "token_ids_1", "attention_mask_1", "token_ids_2",
                            "attention_mask_2") if k in batch]
        outputs.append(predict(*[batch[k].to(device) for k in keys]))
        ids.extend(batch["sent_ids"])
    return torch.cat(outputs), ids

def predict_all(sst, para, sts, model, device):
    with torch.no_grad():
        logits, sst_ids = run(sst, model.predict_sentiment, device)
        y_sst = logits.argmax(dim=-1).tolist()
        logits, para_ids = run(para, model.predict_paraphrase, device)
        y_para = logits.flatten().sigmoid().round().tolist()
        logits, sts_ids = run(sts, model.predict_similarity, device)
        y_sts = logits.flatten().tolist()
    return y_sst, sst_ids, y_para, para_ids, y_sts, sts_ids

def true(dataloader):
    return np.concatenate([batch["labels"].flatten().numpy() for batch in dataloader])

def model_eval_multitask(sentiment_dataloader, paraphrase_dataloader, sts_dataloader, model, device):
    model.eval()
    y_sst, sst_ids, y_para, para_ids, y_sts, sts_ids = predict_all(
        sentiment_dataloader, paraphrase_dataloader, sts_dataloader, model, device)
    return (np.mean(true(paraphrase_dataloader) == y_para), y_para, para_ids,
            np.mean(true(sentiment_dataloader) == y_sst), y_sst, sst_ids,
            np.corrcoef(y_sts, true(sts_dataloader))[1][0], y_sts, sts_ids)

def test_model_multitask(args, model, device):
    loaders = {}
    for split in ("dev", "test"):
        sst, _, para, sts = load_multitask_data(*[getattr(args, f"{t}_{split}") for t in ("sst", "para", "sts")], split)
        sets = [SentenceClassificationDataset(sst, args), SentencePairDataset(para, args),
                SentencePairDataset(sts, args, isRegression=True)]
        loaders[split] = [DataLoader(d, batch_size=args.batch_size, collate_fn=d.collate_fn) for d in sets]
    acc, y_para, para_ids, acc, y_sst, sst_ids, r, y_sts, sts_ids = model_eval_multitask(
        *loaders["dev"], model, device)
    model.eval()
    t_sst, t_sst_ids, t_para, t_para_ids, t_sts, t_sts_ids = predict_all(*loaders["test"], model, device)
    for file, header, ids, ys in (
        (args.sst_dev_out, "Predicted_Sentiment", sst_ids, y_sst),
        (args.para_dev_out, "Predicted_Is_Paraphrase", para_ids, y_para),
        (args.sts_dev_out, "Predicted_Similiary", sts_ids, y_sts),
        (args.sst_test_out, "Predicted_Sentiment", t_sst_ids, t_sst),
        (args.para_test_out, "Predicted_Is_Paraphrase", t_para_ids, t_para),
        (args.sts_test_out, "Predicted_Similiary", t_sts_ids, t_sts),
    ):
        with open(file, "w+") as f:
            f.write(f"id \\t {header} \\n")
            for p, s in zip(ids, ys):
                f.write(f"{p} , {s} \\n")
"""
DATASETS = """
import csv
import torch
from torch.utils.data import Dataset
from tokenizer import BertTokenizer

class SentenceClassificationDataset(Dataset):
    texts = 1

    def __init__(self, dataset, args, isRegression=False):
        self.dataset, self.isRegression = dataset, isRegression
        self.tokenizer = BertTokenizer.from_pretrained("bert-base-uncased")

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, i):
        return self.dataset[i]

    def collate_fn(self, rows):
        batch = {"sent_ids": [row[-1] for row in rows], "sents": [row[0] for row in rows]}
        for k in range(self.texts):
            encoding = self.tokenizer([row[k] for row in rows], return_tensors="pt", padding=True, truncation=True)
            suffix = f"_{k + 1}" if self.texts == 2 else ""
            batch["token_ids" + suffix] = torch.LongTensor(encoding["input_ids"])
            batch["attention_mask" + suffix] = torch.LongTensor(encoding["attention_mask"])
        if len(rows[0]) == self.texts + 2:
            labels = [row[-2] for row in rows]
            batch["labels"] = torch.DoubleTensor(labels) if self.isRegression else torch.LongTensor(labels)
        return batch

class SentencePairDataset(SentenceClassificationDataset):
    texts = 2

def load_multitask_data(sentiment_filename, paraphrase_filename, similarity_filename, split="train"):
    def rows(filename, texts, label, kind):
        with open(filename) as file:
            for record in csv.DictReader(file, delimiter="\\t"):
                labels = () if split == "test" else (kind(record[label]),)
                yield (*[record[t].lower() for t in texts], *labels, record["id"].lower())

    pair = ("sentence1", "sentence2")
    return (list(rows(sentiment_filename, ("sentence",), "sentiment", int)), {k: k for k in range(5)},
            list(rows(paraphrase_filename, pair, "is_duplicate", int)),
            list(rows(similarity_filename, pair, "similarity", float)))
"""
CMU = """
import numpy as np
import torch
import torch.nn.functional as F
from bert import BertModel
from sklearn.metrics import accuracy_score, f1_score

class BertSentClassifier(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.bert = BertModel.from_pretrained("bert-base-uncased")
        self.dropout = torch.nn.Dropout(config.hidden_dropout_prob)
        self.fc = torch.nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, input_ids, attention_mask):
        out = self.bert(input_ids, attention_mask)
        return F.log_softmax(self.fc(self.dropout(out["pooler_output"])), dim=-1)

def train(logits, labels, args):
    return F.nll_loss(logits, labels.view(-1), reduction="sum") / args.batch_size

def model_eval(dataloader, model, device):
    model.eval()
    y_true, y_pred, sents = [], [], []
    for step, batch in enumerate(dataloader):
        ids, types, mask = batch[0]["token_ids"], batch[0]["token_type_ids"], batch[0]["attention_mask"]
        logits = model(ids.to(device), mask.to(device)).detach().cpu().numpy()
        y_pred.extend(np.argmax(logits, axis=1).flatten())
        y_true.extend(batch[0]["labels"].flatten())
        sents.extend(batch[0]["sents"])
    return accuracy_score(y_true, y_pred), f1_score(y_true, y_pred, average="macro"), y_pred, y_true, sents
"""
COURSE = {
    "bert.py": "class BertModel:\n    pass\n", "tokenizer.py": "class BertTokenizer:\n    pass\n",
    "multitask_classifier.py": MULTITASK, "classifier.py": CLASSIFIER, "evaluation.py": EVALUATION,
    "datasets.py": DATASETS,
}  # fmt: skip
RIGHT = {  # style → its files; the first file is where text is replaced unless a replacement says otherwise
    "ours": {
        f"minbert/{file.name}": bare(file.read_text(encoding="utf-8"))
        for file in sorted((ROOT / "minbert").glob("*.py"))
        if file.stem not in ("pretrained", "checkpoint", "pretraining", "sampling")  # nobody asks for these here
    },
    "course": COURSE,
    "cmu": {"bert.py": COURSE["bert.py"], "classifier.py": CMU},
    "class": {"pcgrad.py": PCGRAD, "smart.py": SMART, "lora.py": LORA},
    "function": {"utils_grad.py": SURGERY, "lora.py": LORA.partition("class LinearWithLoRA")[0]},
}
IN_STYLE = {"ours": tuple(PARTS), "course": ("heads", "evaluation"),
            "cmu": ("heads", "evaluation"), "class": ("pcgrad", "smart", "lora"),
            "function": ("pcgrad", "lora")}  # fmt: skip

# ------------------------------------------------------------------------------------------------ mistakes, as text

TS = "(self.adapter(hidden_states, mask) if hasattr(self, 'adapter') else 0)"
ATTENDED = "        attended = self.attend(hidden_states, mask)\n"
FFN = "        ffn = F.gelu(self.interm_dense(attended))\n"
UNUSED = ("attended = attended + self.adapter(hidden_states, mask)", "pass")
HEAD = "return self.heads[batch.task](Encoded(u, v, tokens_u, tokens_v, mask_u, mask_v)).to(self.dtype)"
OUT = HEAD.replace("return", "out =") + "\n        return "
KL = "((a.softmax(dim=-1) - b.softmax(dim=-1)) * (d - d.mean(dim=-1, keepdim=True))).sum(dim=-1)"
STEP = "dot = W[i] @ K[:, j]  # gᵢ'·gⱼ"
PAIR = ("encode, decode = _pair(bert, size)  # one pair for all layers\n", "\n")
DIRECTION = "g = g / g_max.reshape(-1, *[1] * (x.dim() - 1))"

# (style, part) → the name that must be given: old text, new text, …
INJECTED: dict[tuple[str, str], dict[str, tuple[str, ...]]] = {
    ("ours", "pcgrad"): {
        "projects against gradients that are projected already": (
            STEP, "dot = W[i] @ K @ W[j]",
            "W[i, j] -= dot / K[j, j]", "W[i] -= dot / (W[j] @ K @ W[j]) * W[j]",
        ),
        "the order of the tasks is always the same": (
            "torch.randperm(T, generator=memory.random).tolist()", "range(T)",
        ),
        "the mean of the gradients, not their sum": (
            "W.sum(dim=0))\n\n\ndef gradvac", "W.mean(dim=0))\n\n\ndef gradvac",
        ),
        "projects also where nothing is in conflict": ("if dot < 0 and K", "if K"),
        "projects where the tasks agree, and not where they oppose one another": ("if dot < 0 and", "if dot > 0 and"),
        "divides by ‖gⱼ‖ instead of ‖gⱼ‖²": ("dot / K[j, j]  #", "dot / K[j, j].sqrt()  #"),
        "does not divide by ‖gⱼ‖²": ("dot / K[j, j]  #", "dot  #"),
        "looks at the first gᵢ each time instead of what is left of it": (STEP, "dot = K[i, j]"),
        "adds the part that opposes instead of taking it out": ("W[i, j] -= dot", "W[i, j] += dot"),
        "looks only at the tasks that come later": ("if j != i]", "if j > i]"),
        "divides the heads' gradients by the number of tasks": ("p.grad = g if", "p.grad = g / len(tasks) if"),
        "leaves the heads without a gradient": ("if p not in shared:", "if False:"),
        "the sines of φ and φ̂ are swapped": (
            "target * math.sqrt(1 - phi**2) - phi * sine", "target * sine - phi * math.sqrt(1 - phi**2)",
            "(norm_j * sine)", "(norm_j * math.sqrt(1 - phi**2))",
        ),
        "gradient vaccine without the target: pairs are only made orthogonal": (
            "if phi < target:", "if phi < 0:",
            "norm_i * (target * math.sqrt(1 - phi**2) - phi * sine) / (norm_j * sine)", "-phi * norm_i / norm_j",
        ),
        "a cosine above its target is lowered": ("if phi < target:", "if True:"),
        "gradient vaccine without the gradients' lengths": ("norm_i * (target", "(target", "(norm_j * sine)", "sine"),
        "the targets stay as they are": ("memory.targets[i, j] = (1 - BETA) * target + BETA * phi", "pass"),
        "the targets follow only where a gradient is changed": (
            "            memory.targets[i, j] = (1", "                memory.targets[i, j] = (1",
        ),
    },
    ("class", "pcgrad"): {
        "projects where the tasks agree, and not where they oppose one another": (
            "if mine @ other < 0:", "if mine @ other > 0:",
        ),
        "the order of the tasks is always the same": ("random.shuffle(grads)", "pass"),
        "the mean of the gradients, not their sum": (".sum(dim=0)", ".mean(dim=0)"),
        "projects every tensor by itself": (
            "self.project([torch.cat([g[k].flatten() for k in shared]) for g in grads])",
            "torch.cat([self.project([g[k].flatten() for g in grads]) for k in shared])",
        ),
        "counts the heads' gradients in ‖gⱼ‖²": (
            "shared = [k for k in range(len(params)) if all(g[k] is not None for g in grads)]",
            "grads = [[torch.zeros_like(p) if x is None else x for p, x in zip(params, g)] for g in grads]\n"
            "        shared = range(len(params))",
        ),
    },
    ("function", "pcgrad"): {
        "the mean of the gradients, not their sum": ("return sum(projected)", "return sum(projected) / len(grads)"),
        "does not divide by ‖gⱼ‖²": (" / (h @ h)", ""),
    },
    ("ours", "smart"): {
        "dropout is left on in the term": ("    model.eval()\n    try:", "    try:"),
        "f(x) comes from a pass with dropout": (
            "    with exact(model):\n        clean = f(x) if clean is None else clean\n",
            "    clean = f(x) if clean is None else clean\n    with exact(model):\n",
        ),
        "the model stays in evaluation afterwards": ("module.training = mode", "pass"),
        "f(x) is detached in the term": ("f(x + delta), clean)", "f(x + delta), clean.detach())"),
        "f(x̃) is detached in the term": ("f(x + delta), clean)", "f(x + delta).detach(), clean)"),
        "the term is made of detached numbers": ("f(x + delta), clean).mean()", "f(x + delta), clean).mean().detach()"),
        "δ is not brought back to ε": ("return delta.clamp(-epsilon, epsilon)", "return delta"),
        "δ is scaled to a size of 1 instead of being cut to ε": (
            "return delta.clamp(-epsilon, epsilon)",
            "return delta / (delta.abs().amax(dim=-1, keepdim=True) + epsilon)",
        ),
        "goes downhill: the wrong sign of the step": ("delta.detach() + eta", "delta.detach() - eta"),
        "the gradient is not normalised": (DIRECTION, "pass"),
        "only the gradient's sign is used": (DIRECTION, "g = g.sign()"),
        "the gradient is divided by its Euclidean norm": ("g.abs().flatten(1).amax(dim=1)", "g.flatten(1).norm(dim=1)"),
        "starts at x itself, without noise": ("sigma * start", "0 * start"),
        "takes one step, whatever K is": ("for _ in range(steps)", "for _ in range(1)"),
        "the search leaves its gradient in the weights": (
            "(g,) = torch.autograd.grad(loss.sum(), delta)", "loss.sum().backward()\n                g = delta.grad",
        ),
        "pads are nudged too": ("keep = 1 if mask is None", "keep = 1 if True"),
        "softmax over a single logit": ("binary_loss, bernoulli_symmetric_kl", "binary_loss, symmetric_kl"),
        "the divergence of classes is one-sided": (
            KL, "(a.softmax(-1) * (a.log_softmax(-1) - b.log_softmax(-1))).sum(-1)",
        ),
        "the divergence of classes is averaged over the classes": (KL, KL.replace(".sum", ".mean")),
        "the divergence of yes or no is one-sided": (
            "((a.sigmoid() - b.sigmoid()) * (a - b)).sum(dim=-1)",
            "(a.sigmoid() * (a - b) + torch.log(b.exp() + 1) - torch.log(a.exp() + 1)).sum(dim=-1)",
        ),
        "β and 1 - β are exchanged": ("parameters[name], 1 - beta", "parameters[name], beta"),
        "θ̃ is not a copy of θ": ("average = {name: p.detach().clone()", "average = {name: p.detach()"),
    },
    ("class", "smart"): {
        "δ is scaled to a size of 1 instead of being cut to ε": (  # what the package smart-pytorch does
            "g = g / (g.abs().amax(dim=-1, keepdim=True) + 1e-300)", "step = noise + self.step_size * g",
            "(noise + self.step_size * g).clamp(-self.epsilon, self.epsilon)",
            "(step / (torch.norm(step, p=float('inf'), dim=-1, keepdim=True) + self.epsilon))",
        ),
        "δ is not brought back to ε": (".clamp(-self.epsilon, self.epsilon)", ""),
        "goes downhill: the wrong sign of the step": ("noise + self.step_size", "noise - self.step_size"),
        "f(x) is detached in the term": ("embed + noise), state)", "embed + noise), state.detach())"),
        "the divergence of classes is averaged over the classes": ('reduction="batchmean"', 'reduction="mean"'),
    },
    ("ours", "lora"): {
        "both factors start random": ("self.weight.new_zeros(self.out_features", "torch.randn(self.out_features"),
        "both factors start at zero": (
            "kaiming_uniform_(self.lora_A[name], a=math.sqrt(5))", "zeros_(self.lora_A[name])",
        ),
        "the scale α/r is left out": ("self.scale = alpha / rank", "self.scale = 1.0"),
        "multiplied by α, but not divided by r": ("self.scale = alpha / rank", "self.scale = alpha"),
        "divided by r, but not multiplied by α": ("self.scale = alpha / rank", "self.scale = 1 / rank"),
        "the scale is r/α": ("self.scale = alpha / rank", "self.scale = rank / alpha"),
        "divided by √r": ("self.scale = alpha / rank", "self.scale = alpha / math.sqrt(rank)"),
        "the pretrained matrix trains too": ("self.weight.requires_grad_(False)", "self.weight.requires_grad_(True)"),
        "the pretrained bias trains too": ("self.bias.requires_grad_(False)", "self.bias.requires_grad_(True)"),
        "the frozen layer's input is dropped out too": (
            "F.linear(x, self.weight", "F.linear(self.lora_dropout(x), self.weight",
        ),
        "LoRA's dropout is left out": ("F.linear(self.lora_dropout(x), A)", "F.linear(x, A)"),
        "merges without α/r": ("self.weight + self.scale * (", "self.weight + ("),
        "adds the adapter to a merged layer again": ("            return y\n", ""),
        "unmerging does not bring W back": ("            self.weight = weight\n", ""),
        "the first adapter always answers": ("        self.active = name", "        pass"),
    },
    ("class", "lora"): {
        "both factors start random": ("torch.zeros(rank, out_dim)", "torch.randn(rank, out_dim)"),
        "multiplied by α, but not divided by r": ("alpha / rank", "alpha"),
        "the pretrained matrix trains too": ("p.requires_grad = False", "pass"),
    },
    ("function", "lora"): {"the scale α/r is left out": ("alpha / rank", "1.0")},
    ("ours", "pals"): {
        "TS looks at the attention's output": ("self.adapter(hidden_states, mask)", "self.adapter(attended, mask)"),
        "TS is added after the last LayerNorm": (
            UNUSED[0],
            "return self.add_norm(attended, ffn, self.out_dense, self.out_dropout, self.out_layer_norm)"
            " + self.adapter(hidden_states, mask)",
        ),
        "TS is added to the layer's input": (
            f"{ATTENDED}{FFN}        {UNUSED[0]}\n", f"        hidden_states = hidden_states + {TS}\n{ATTENDED}{FFN}",
        ),
        "TS is added to the attention's input": (
            *UNUSED, "self.self_attention(hidden_states, mask)", f"self.self_attention(hidden_states + {TS}, mask)",
        ),
        "TS is added before the first LayerNorm": (
            *UNUSED, "hidden_states, attention, self.attention_dense",
            f"hidden_states + {TS}, attention, self.attention_dense",
        ),
        "the task's layer is never used": UNUSED,
        "a PAL's V_E and V_D are not shared over the layers": (
            *PAIR, "BertSelfAttention(inner)), decode) for _ in bert.bert_layers]",
            "BertSelfAttention(inner)), decode)\n"
            "                for encode, decode in (_pair(bert, size) for _ in bert.bert_layers)]",
        ),
        "a low-rank layer's V_E and V_D are shared over the layers": (
            "[_pair(bert, size) for _ in bert.bert_layers]", "[_pair(bert, size)] * len(bert.bert_layers)",
        ),
        "all tasks have the same layer": (
            "{task: layers(task) for task in tasks}", "dict.fromkeys(tasks, layers(tasks[0]))",
        ),
        "the first task's layer always answers": ("self[self.active]", "self[next(iter(self))]"),
        "V_D does not start at zero": ("zeros_(decode.weight)", "normal_(decode.weight)"),
        "a PAL's attention looks at pads": ("self.encode(hidden_states), mask", "self.encode(hidden_states), mask * 0"),
        "a PAL without attention": ("self.attention(self.encode(hidden_states), mask)", "self.encode(hidden_states)"),
        "a low-rank layer with a GELU that was not asked for": ('"identity": lambda x: x', '"identity": F.gelu'),
    },
    ("ours", "heads"): {
        "softmax before the cross-entropy": (HEAD, OUT + "out.softmax(-1) if batch.task == 'sst' else out"),
        "sigmoid twice for paraphrase": (HEAD, OUT + "out.sigmoid() if batch.task == 'para' else out"),
        "similarity is not on the labels' scale": ("self.top * F.cosine", "F.cosine"),
        "pads are part of the sentence's vector": (".sum(dim=1) / mask.sum(dim=1)", ".sum(dim=1) / tokens.shape[1]"),
        "dropout is on in evaluation": ("self.linear(self.dropout(features))", "self.linear(F.dropout(features, 0.3))"),
        "the examples of a batch are mixed": (HEAD, OUT + "out.softmax(0) if batch.task == 'sst' else out"),
        "the second sentence is not read": ("x[B:] if len(x) > B", "x[:B] if len(x) > B"),
        "softmax inside the loss of sentiment": ("F.cross_entropy(outputs,", "F.cross_entropy(outputs.softmax(-1),"),
        "sigmoid inside the loss of paraphrase": ("logits(outputs[:, 0],", "logits(outputs[:, 0].sigmoid(),"),
        "outputs and labels of similarity have different scales": (
            "(high - low), (labels - low) / (high - low))", "(high - low), labels)",
        ),
    },
    ("course", "heads"): {
        "the first sentence's mask is used for the second": ("self(ids2, mask2)\n", "self(ids2, mask1)\n"),
        "softmax before the cross-entropy": (
            "return self.sentiment(self(ids, mask))", "return F.softmax(self.sentiment(self(ids, mask)), dim=1)",
        ),
        "sigmoid twice for paraphrase": (".squeeze()", ".squeeze().sigmoid()"),
        "similarity is not on the labels' scale": ("5 * F.cosine", "F.cosine"),
        "pads are part of the sentence's vector": ("(hidden * mask).sum(1) / mask.sum(1)", "hidden.mean(1)"),
        "dropout is on in evaluation": ("self.dropout((hidden * mask)", "F.dropout((hidden * mask)"),
        "the examples of a batch are mixed": ("mask2), dim=1)", "mask2), dim=0).mean().expand(len(ids1))"),
        "the second sentence is not read": (
            "self(ids1, mask1), self(ids2, mask2)\n", "self(ids1, mask1), self(ids1, mask1)\n",
        ),
        "classifier.py: softmax before the cross-entropy": (
            'self.linear(self.dropout(self.bert(ids, mask)["pooler_output"]))',
            'F.softmax(self.linear(self.dropout(self.bert(ids, mask)["pooler_output"])), dim=-1)',
        ),
        "classifier.py: dropout is on in evaluation": ("self.linear(self.dropout(self", "self.linear(F.dropout(self"),
        "sigmoid before the cross-entropy": (
            "return self.sentiment(self(ids, mask))", "return self.sentiment(self(ids, mask)).sigmoid()",
        ),
        "the outputs have no gradient": (
            "return self.sentiment(self(ids, mask))", "return self.sentiment(self(ids, mask)).detach()",
        ),
        "binary_cross_entropy of a raw logit": ("F.binary_cross_entropy_with_logits(", "F.binary_cross_entropy("),
        "the loss is computed from rounded or detached outputs": (
            "model.predict_similarity(*batch), data)", "model.predict_similarity(*batch).round(), batch.labels)",
        ),
        "the loss compares every output with every label: (B, 1) against (B,)": (
            "self(ids2, mask2), dim=1)\n\ndef", "self(ids2, mask2), dim=1)[:, None]\n\ndef",
            "model.predict_similarity(*batch), data)", "model.predict_similarity(*batch), batch['labels'].float())",
        ),
        "kl_div of probabilities instead of log-probabilities": (
            "        loss.backward()\n",
            "        logits = model.predict_sentiment(*batch[:2])\n"
            "        loss += F.kl_div(F.softmax(logits, dim=-1), F.softmax(batch.teacher, dim=-1))\n"
            "        loss.backward()\n",
        ),
        "the gradient is computed twice: backward beside the scaled backward": (
            "loss.backward()\n", "loss.backward()\n        if args.amp:\n            scaler.scale(loss).backward()\n",
        ),
        "gradients are never set to zero": ("        optimizer.zero_grad()\n", ""),
        "gradients are set to zero once an epoch, not once a step": (
            "    for batch in batches(data):\n        optimizer.zero_grad()\n",
            "    for epoch in range(3):\n      optimizer.zero_grad()\n      for batch in batches(data):\n",
        ),
        "a schedule of the learning rate is made and never used": (
            "    model.train()\n",
            "    model.train()\n    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, float)\n",
        ),
        "a loss is computed and takes no part in the gradient": (
            "loss += F.mse_loss(model.predict_similarity(*batch), data)",
            "similarity = F.mse_loss(model.predict_similarity(*batch), data)\n        print(similarity.item())",
        ),
        "the weights of the losses have no lower bound: exp(s)·loss + s": (
            "        loss.backward()\n",
            "        loss = torch.exp(model.log_variance) * loss + model.log_variance\n        loss.backward()\n",
        ),
        "the optimizer has BERT's weights alone: the heads never learn": (
            "    model.train()\n", "    model.train()\n    optimizer = AdamW(model.bert.parameters(), lr=args.lr)\n",
        ),
        "gradients are set to zero every batch, and the step comes every few batches": (
            "        optimizer.step()\n", "        if batch.number % 4 == 3:\n            optimizer.step()\n",
        ),
        "gradients are clipped after the step, or before backward": (
            "        optimizer.step()\n",
            "        optimizer.step()\n        nn.utils.clip_grad_norm_(model.parameters(), 1.0)\n",
        ),
        "the best weights are kept without a copy, and are the last ones": (
            "        optimizer.step()\n",
            "        optimizer.step()\n        best = model.state_dict()\n    model.load_state_dict(best)\n",
        ),
        "a task's data go through another task's head": (
            "        loss += F.binary_cross_entropy_with_logits(model.predict_paraphrase(*batch), batch.labels)\n",
            "        if batch.task == 'para':\n            loss += F.binary_cross_entropy_with_logits("
            "model.predict_similarity(*batch), batch.labels)\n",
        ),
        "kl_div of a log-probability as the target, without log_target": (
            "        loss.backward()\n",
            "        logits = model.predict_sentiment(*batch[:2])\n"
            "        loss += F.kl_div(F.log_softmax(logits, dim=-1), F.log_softmax(batch.teacher, dim=-1))\n"
            "        loss.backward()\n",
        ),
        "the model is never put into training mode": ("    model.train()\n", ""),
        "training goes on in evaluation mode after the first evaluation": (
            "        loss.backward()\n        optimizer.step()\n",
            "        loss.backward()\n        optimizer.step()\n        model.eval()\n",
        ),
    },
    ("cmu", "heads"): {
        "nll_loss of raw logits": (
            'F.log_softmax(self.fc(self.dropout(out["pooler_output"])), dim=-1)',
            'self.fc(self.dropout(out["pooler_output"]))',
        ),
        "BERT is frozen where it should train, and trains where it should be frozen": (
            "        self.fc = torch",
            "        for p in self.bert.parameters():\n            p.requires_grad = config.option == 'pretrain'\n"
            "        self.fc = torch",
        ),
        "classifier.py: softmax before the cross-entropy": (
            "F.log_softmax", "F.softmax", "F.nll_loss", "F.cross_entropy",
        ),
    },
    ("ours", "evaluation"): {
        "dropout is on while evaluating": ("        model.eval()\n        try:", "        try:"),
        "a sigmoid on similarity": ("return outputs[:, 0].numpy()", "return outputs[:, 0].sigmoid().numpy()"),
        "similarity is rounded": ("return outputs[:, 0].numpy()", "return outputs[:, 0].round().numpy()"),
        "paraphrase's logit is rounded without a sigmoid": ("outputs[:, 0].sigmoid().round()", "outputs[:, 0].round()"),
        "the smallest logit is taken": ("outputs.argmax", "outputs.argmin"),
        "predictions are in another order than their ids": ("in_order[order] = torch.cat", "in_order[:] = torch.cat"),
        "ids in the file are shifted against their predictions": (
            "zip(ids, texts, map(task.written, predictions), strict=True)",
            "zip(ids[1:], texts, map(task.written, predictions), strict=False)",
        ),
        "labels of similarity are cut to integers when they are read": (
            "label = float(text)", "label = float(int(float(text)))",
        ),
        "labels of similarity are cut to integers in a batch": (
            "torch.tensor(labels, dtype=torch.float32)", "torch.tensor(labels).long().float()",
        ),
    },
    ("cmu", "evaluation"): {"classifier.py evaluates with dropout on": ("    model.eval()\n", "")},
    ("course", "evaluation"): {
        "dropout is on while evaluating": ("device):\n    model.eval()\n    y_sst", "device):\n    y_sst"),
        "classifier.py evaluates with dropout on": ("    model.eval()\n    y_true", "    y_true"),
        "a sigmoid on similarity": ("y_sts = logits.flatten()", "y_sts = logits.flatten().sigmoid()"),
        "similarity is rounded": ("y_sts = logits.flatten()", "y_sts = logits.flatten().round()"),
        "paraphrase's logit is rounded without a sigmoid": ("flatten().sigmoid().round()", "flatten().round()"),
        "test predictions stand beside the dev set's ids": (
            '"Predicted_Similiary", t_sts_ids', '"Predicted_Similiary", sts_ids',
            '"Predicted_Sentiment", t_sst_ids', '"Predicted_Sentiment", sst_ids',
            '"Predicted_Is_Paraphrase", t_para_ids', '"Predicted_Is_Paraphrase", para_ids',
        ),
        "ids in the file are shifted against their predictions": ("zip(ids, ys)", "zip(ids[1:], ys)"),
        "similarity is scored by ranks (Spearman), not by Pearson's r": (
            "np.corrcoef(y_sts, true(sts_dataloader))[1][0]",
            "np.corrcoef(np.argsort(np.argsort(y_sts)), np.argsort(np.argsort(true(sts_dataloader))))[1][0]",
        ),
        "paraphrase's probability is taken for a logit": (
            ".squeeze()", ".squeeze().sigmoid()",
            "F.binary_cross_entropy_with_logits(", "F.binary_cross_entropy(",
        ),
        "labels of similarity are cut to integers when they are read": (
            '"similarity", float)', '"similarity", lambda x: int(float(x)))',
        ),
        "labels of similarity are cut to integers in a batch": (
            "torch.DoubleTensor(labels) if self.isRegression else ", "",
        ),
        "similarity's data set is made without isRegression=True": (
            "SentencePairDataset(sts_train, args, isRegression=True)",
            "SentencePairDataset(sts_train, args)",
        ),
    },
}  # fmt: skip

PAIRS = [  # (style, part, two names of INJECTED, or a name and what makes both)
    ("ours", "pcgrad", "the mean of the gradients, not their sum", "the order of the tasks is always the same"),
    ("class", "pcgrad", "the mean of the gradients, not their sum", "counts the heads' gradients in ‖gⱼ‖²"),
    ("ours", "smart", "dropout is left on in the term", "softmax over a single logit"),
    ("ours", "smart", "δ is not brought back to ε", "f(x) is detached in the term"),
    ("ours", "lora", "both factors start random", "multiplied by α, but not divided by r"),
    ("class", "lora", "multiplied by α, but not divided by r", "the pretrained matrix trains too"),
    ("ours", "pals", "TS looks at the attention's output", "V_D does not start at zero"),
    ("course", "heads", "sigmoid twice for paraphrase", "pads are part of the sentence's vector"),
    ("ours", "evaluation", "dropout is on while evaluating", "a sigmoid on similarity"),
    ("course", "evaluation", "classifier.py evaluates with dropout on", "similarity is rounded"),
]

BARE = ("5 * F.cosine", "F.cosine")
LOSS = "predict_similarity(*batch), data)"
VARIANTS = {  # right as well, as changes of the course's files
    "labels divided by a name": (*BARE, LOSS, LOSS.replace("data", "data.labels.float() / MAX_STS")),
    "labels divided by an argument": (*BARE, LOSS, LOSS.replace("data", "data.labels / args.top")),
    "labels divided and outputs multiplied": (
        *BARE, '"similarity", float)', '"similarity", lambda x: float(x) / 5.0)',
        "y_sts = logits.flatten()", "y_sts = (5.0 * logits.flatten())",
    ),
    "labels centred": (*BARE, LOSS, LOSS.replace("data", "(data.labels - 2.5) / 2.5")),
    "labels divided in the file": (*BARE, '"similarity", float)', '"similarity", lambda x: float(x) / 5.0)'),
    "labels divided in a batch": (
        *BARE, "torch.DoubleTensor(labels) if", "(torch.DoubleTensor(labels) - 2.5) / 2.5 if",
    ),
    "a size of one's own": (
        "self.paraphrase = nn.Linear(2 * 768, 1)",
        "self.paraphrase = nn.Sequential(nn.Linear(2 * 768, config.para_dim), nn.ReLU(),\n"
        "                                        nn.Linear(config.para_dim, 1))",
    ),
}  # fmt: skip
IN_STYLE |= dict.fromkeys(VARIANTS, ("heads", "evaluation"))
VARIANTS["probabilities, but not in training"] = (
    "return self.sentiment(self(ids, mask))",
    "logits = self.sentiment(self(ids, mask))\n        return logits if self.training else logits.softmax(-1)",
    "return self.paraphrase(torch.cat([u, v], dim=1)).squeeze()",
    "logit = self.paraphrase(torch.cat([u, v], dim=1)).squeeze()\n"
    "        return logit if self.training else logit.sigmoid()",
)
IN_STYLE["probabilities, but not in training"] = ("heads",)
RIGHT |= {name: changed(COURSE, swap(*texts)) for name, texts in VARIANTS.items()}
