"""AdamW as in Loshchilov & Hutter's Algorithm 2, one group at a time; the decay comes first."""

import torch


class AdamW(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.0, correct_bias=True):
        defaults = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, correct_bias=correct_bias)
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure=None):
        loss = closure() if closure else None
        for group in self.param_groups:
            lr, eps = group["lr"], group["eps"]
            b1, b2 = group["betas"]
            for p in filter(lambda p: p.grad is not None, group["params"]):
                memory = self.state[p]
                memory.setdefault("t", 0)
                memory.setdefault("mean", torch.zeros_like(p))
                memory.setdefault("square", torch.zeros_like(p))
                memory["t"] += 1
                p.mul_(1 - lr * group["weight_decay"])
                memory["mean"].mul_(b1).add_(p.grad, alpha=1 - b1)
                memory["square"].mul_(b2).addcmul_(p.grad, p.grad, value=1 - b2)
                mean, square = memory["mean"], memory["square"]
                if group["correct_bias"]:
                    mean = mean / (1 - b1 ** memory["t"])
                    square = square / (1 - b2 ** memory["t"])
                p.sub_(lr * mean / (square.sqrt() + eps))
        return loss
