"""R-Drop: two passes with different dropout must give similar answers (Liang et al. 2021, arXiv 2106.14448).

Dropout trains many thinned networks, and predictions come from the whole network. R-Drop brings the outputs of the
thinned networks nearer to one another, and so to those of the whole one. Every batch passes twice, with independent
dropout, and gives the outputs f₁ and f₂:

    loss = ½·(L(f₁) + L(f₂)) + α·½·mean ℓ_s(f₁, f₂)

ℓ_s is the task's symmetric divergence (`smart.py`): KL both ways for classes, the same with a sigmoid for one logit,
the squared error for numbers. Gradients flow through both passes. A step costs two passes instead of one.

The paper's equation (3) adds the two losses, L(f₁) + L(f₂) + α·½·mean ℓ_s. That is twice the loss here with half of its
α: the paper's α = 1 is .5 here, and 5, its value for translation, is 2.5. The mean keeps the size of the loss.

Four mistakes are common in public code: one pass is detached; a single logit goes through a softmax, which is 1
whatever the logit is; the divergence is KL in one direction only; the second pass runs in evaluation mode.
"""

from collections.abc import Callable

from torch import Tensor, nn

from minbert.errors import UserError
from minbert.parser import Flag, number

FLAGS = {
    "rdrop": [
        Flag("--rdrop", "weight α of the difference between two passes with other dropout (half of the paper's α); "
             "see minbert/rdrop.py", number, 0.0, "ALPHA", example="10"),
    ]
}  # fmt: skip


def r_drop(f1: Tensor, f2: Tensor, divergence: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """½·mean ℓ_s(f₁, f₂). f1, f2: (B, K), of two passes. divergence: ℓ_s, one number an example."""
    distances = divergence(f1, f2)  # (B,)
    return distances.mean() / 2


class RDropTerm:
    """`--rdrop`: what two passes add to the loss of the first, as a row of TERMS (`terms.py` says what a row has)."""

    largest, tasks = (), None

    def __init__(self, model: nn.Module, seed: int, rdrop: float):
        self.weight = rdrop
        if not any(module.p for module in model.modules() if isinstance(module, nn.Dropout)):
            raise UserError(f"--rdrop {rdrop} compares two passes with dropout, and --hidden_dropout_prob and "
                            "--bert_dropout are both 0; give one of them a rate above 0")  # fmt: skip

    def joined(self, first) -> bool:
        return True

    def __call__(self, first) -> tuple[Tensor, dict[str, Tensor]]:
        """½·(L(f₂) - L(f₁)) + α·½·mean ℓ_s(f₁, f₂), to be added to L(f₁)."""
        second = first.again()
        distance = r_drop(first.logits, second.logits, first.divergence)
        return (second.loss - first.loss) / 2 + self.weight * distance, {"distance": distance}

    def after_step(self, progress: float):
        pass

    def describe(self, means: dict[str, dict[str, float]]) -> str:
        return "R-Drop, ½·ℓ_s of two passes: " + ",  ".join(f"{t} {x['distance']:.1e}" for t, x in means.items())

    def state_dict(self) -> dict:
        return {}

    def load_state_dict(self, state: dict):
        pass


TERMS = {"rdrop": RDropTerm}
