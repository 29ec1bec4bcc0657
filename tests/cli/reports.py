"""What the five reports and the course's handout say of their rows: the facts that the recipes are held against.

Every entry was taken from the report's own text and tables, with its section or table behind it. The settings are named
as the trainer's settings are. What a report does not say is not here.
"""

SMART = {"smart": 5.0, "bregman": 1.0}  # λ and μ; ε = σ = 1e-5, η = 1e-3 and β = .995 are the defaults, see below
SMART_DEFAULTS = {"epsilon": 1e-5, "sigma": 1e-5, "eta_to_epsilon": 100, "steps": 1, "beta": (0.995, 0.995)}
TRAINED = {"mode": "full-model", "hidden_dropout_prob": 0.3}

# A, §4.3: "learning rate of 1e-5 and a hidden-layer dropout probability of 0.3 ... a batch size of 8 for SMART training
# and 16 for baseline training. Each epoch consisted of 1000 batches from all datasets." §5: FCos.
A = TRAINED | {"lr": 1e-5, "steps_per_epoch": 1000}
TYPE_1, TYPE_2 = {"pairs": "separate", "sts": "hadamard"}, {"pairs": "joint", "para": "linear", "sts": "linear"}
ONE, EIGHT = {"sst": 1, "para": 1, "sts": 1}, {"sst": 1, "para": 8, "sts": 1}

# B, §4.2: "10 epochs with a fine-tune learning rate of 1e-5 and a hidden-layer dropout probability of 0.3. For our
# pretrain default minBERT model, we use a learning rate of 1e-3. When memory allows us to, we set our batch size to be
# 64"; with SMART "16 rather than 64". §3.2: the heads; §5.2: "separate steps per prediction tasks".
B = TRAINED | {"lr": 1e-5, "epochs": 10, "batch_size": 64, "para": "difference", "sts": "cosine", "combine": "separate"}
B_SMART = SMART | {"batch_size": 16}
SST_ALONE = {"train_tasks": ["sst"]}

# C, §5.3: "a learning rate of 1e-5, trained for 10 epochs, batch size of 8, and used hidden layer dropout probability
# 0.3"; the last row: "the same hyperparameters, except for batch size was increased to 32".
C = TRAINED | {"lr": 1e-5, "epochs": 10, "batch_size": 8}

# D, §4.2 and §5.3: sum of the losses with weights of 1, pooler outputs and a mean, concatenation, cosine to 0…1,
# "lr_BERT = 1e-7 and lr_heads = 1e-5. The batch size is set to 16, and p_dropout = 0.3", μ_sts = 10, "2-rank LoRA".
D = TRAINED | {
    "batch_size": 16, "task_weights": {"sst": 1, "para": 1, "sts": 1}, "combine": "sum",
    "pooling": {"sst": "cls", "para": "cls", "sts": "mean"}, "para": "concat", "sts": "mapped_cosine",
}  # fmt: skip
D_RATES = {"lr": 1e-7, "head_lr": 1e-5}
D_SMART = {"smart": 10.0, "smart_tasks": ("sts",)}

# E, §5.3: "a learning rate of 1e-5, a batch size of 8, and a hidden dropout probability of 0.3"; §4.2: dot products,
# and the mean squared error, whose labels go from 0 to 5: 25 times that on a scale from 0 to 1. §5.3.1 finds that "the
# losses are not on the same scale".
SCALE = {"sst": 1, "para": 1, "sts": 25}
E = TRAINED | {"lr": 1e-5, "batch_size": 8, "para": "dot", "sts": "dot", "task_weights": SCALE}

HANDOUT = {"epochs": 10, "batch_size": 64, "cfimdb_batch_size": 8, "hidden_dropout_prob": 0.3}

FACTS: dict[str, dict] = {
    "baseline-frozen": HANDOUT | {"mode": "last-linear-layer", "lr": 1e-3},
    "baseline-fine-tuned": HANDOUT | {"mode": "full-model", "lr": 1e-5},
    "a-baseline": A | TYPE_1 | {"batch_size": 16, "schedule": "fixed", "priorities": ONE},
    "a-separate-priority": A | TYPE_1 | {"batch_size": 16, "schedule": "fixed", "priorities": EIGHT},
    "a-separate-smart": A | TYPE_1 | SMART | {"batch_size": 8, "schedule": "priority", "priorities": EIGHT},
    "a-joint-priority": A | TYPE_2 | {"batch_size": 16, "schedule": "fixed", "priorities": EIGHT},
    "a-joint-smart": A | TYPE_2 | SMART | {"batch_size": 8, "schedule": "priority", "priorities": EIGHT},
    "b-frozen": B | SST_ALONE | {"mode": "last-linear-layer", "lr": 1e-3},
    "b-sst-only": B | SST_ALONE,
    "b-sst-only-smart": B | SST_ALONE | B_SMART,
    "b-round-robin": B | {"schedule": "round_robin"},
    "b-round-robin-smart": B | B_SMART | {"schedule": "round_robin"},
    "b-quora-first-smart": B | B_SMART | {"schedule": "quora_first"},
    "b-interleaved": B | {"schedule": "interleaved"},
    "b-interleaved-smart": B | B_SMART | {"schedule": "interleaved"},
    "b-interleaved-relational": B | {"schedule": "interleaved", "para": "relational", "sts": "relational"},
    "c-baseline": C | {"combine": "separate"},
    "c-smart": C | {"combine": "separate"},
    "c-smart-pcgrad": C | {"combine": "pcgrad"},
    "c-smart-pcgrad-cosine": C | {"combine": "pcgrad", "batch_size": 32, "sts_loss": "cosine"},
    "d-fine-tune": D,
    "d-mlm": D | {"pretrained": "runs/d-read-mlm"},
    "d-mlm-nli": D | {"pretrained": "runs/d-read-mlm-nli"},
    "d-mlm-nli-lora-pcgrad": D
    | D_SMART
    | {"pretrained": "runs/d-read-mlm-nli", "combine": "pcgrad", "lora_rank": 2}
    | {"lora_alpha": 2.0},  # equation (6): W + AB
    "d-mlm-nli-smart": D | D_RATES | D_SMART | {"pretrained": "runs/d-read-mlm-nli"},
    "e-sequential": E | {"schedule": "sequential"},
    "e-additive": E | {"combine": "sum"},
    "e-pal-sequential": E | {"schedule": "sequential", "adapter": "pal"},
    "e-pal-pcgrad": E | {"combine": "pcgrad", "adapter": "pal"},
    "e-low-rank-sequential": E | {"schedule": "sequential", "adapter": "low_rank"},
    "e-low-rank-decay": E | {"schedule": "sequential", "adapter": "low_rank", "weight_decay": 0.01},
    "e-pal-annealed": E | {"schedule": "annealed", "adapter": "pal"},
}

OFF = {"smart": 0.0, "bregman": 0.0, "rdrop": 0.0, "lora_rank": 0, "adapter": "none", "weight_decay": 0.0}
OF_SMART = ("c-smart", "c-smart-pcgrad", "c-smart-pcgrad-cosine")  # C's rows with SMART, whose settings it does not say

READING = {"epochs": 5, "lr": 5e-6, "mask_rate": 0.15, "mask_shares": "0.8,0.2"}  # D, §4.1
READINGS = {  # D, §5.3
    "d-read-mlm": READING | {"tasks": ["mlm"], "corpus": ["sst", "para", "sts"]},
    "d-read-mlm-nli": READING
    | {"tasks": ["mlm", "nli"], "corpus": ["sst", "para", "sts", "nli"], "weights": {"mlm": 0.7, "nli": 0.3}},
}

# Dev scores: SST, Quora, STS (A Table 2, B Table 2, C Table 1, D Table 1, E Table 1); SST, CFIMDB of the handout.
SCORES = {
    "baseline-frozen": (0.390, 0.780), "baseline-fine-tuned": (0.515, 0.966),
    "a-baseline": (0.510, 0.446, 0.395), "a-separate-priority": (0.512, 0.746, 0.414),
    "a-separate-smart": (0.528, 0.752, 0.473), "a-joint-priority": (0.524, 0.789, 0.742),
    "a-joint-smart": (0.524, 0.819, 0.841),
    "b-frozen": (0.396, 0.380, 0.019), "b-sst-only": (0.525, 0.522, 0.240), "b-sst-only-smart": (0.520, 0.501, 0.382),
    "b-round-robin": (0.524, 0.726, 0.583), "b-round-robin-smart": (0.532, 0.741, 0.680),
    "b-quora-first-smart": (0.519, 0.851, 0.690), "b-interleaved": (0.498, 0.863, 0.762),
    "b-interleaved-smart": (0.485, 0.850, 0.714), "b-interleaved-relational": (0.501, 0.867, 0.802),
    "c-baseline": (0.306, 0.347, 0.054), "c-smart": (0.306, 0.347, 0.054), "c-smart-pcgrad": (0.402, 0.632, 0.054),
    "c-smart-pcgrad-cosine": (0.328, 0.616, 0.440),
    "d-fine-tune": (0.481, 0.783, 0.279), "d-mlm": (0.478, 0.788, 0.624), "d-mlm-nli": (0.517, 0.729, 0.755),
    "d-mlm-nli-lora-pcgrad": (0.506, 0.711, 0.756), "d-mlm-nli-smart": (0.529, 0.738, 0.782),
    "e-sequential": (0.467, 0.760, 0.519), "e-additive": (0.495, 0.726, 0.423),
    "e-pal-sequential": (0.489, 0.790, 0.499), "e-pal-pcgrad": (0.496, 0.753, 0.409),
    "e-low-rank-sequential": (0.506, 0.801, 0.481),
    "e-low-rank-decay": (0.511, 0.816, 0.409), "e-pal-annealed": (0.512, 0.761, 0.407),
}  # fmt: skip

SECONDS = {  # an epoch; B's Table 2, D's Table 1 in minutes
    "b-frozen": 9, "b-sst-only": 25, "b-sst-only-smart": 161, "b-round-robin": 67, "b-round-robin-smart": 464,
    "b-quora-first-smart": 3037, "b-interleaved": 1420, "b-interleaved-smart": 4549, "b-interleaved-relational": 1550,
    "d-fine-tune": 32 * 60, "d-mlm": 32 * 60, "d-mlm-nli": 32 * 60, "d-mlm-nli-lora-pcgrad": 61 * 60,
    "d-mlm-nli-smart": 67 * 60,
}  # fmt: skip
