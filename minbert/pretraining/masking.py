"""Which tokens are masked, and what stands in their place (Devlin et al. 2019, §3.1).

    chosen          15% of a sentence's tokens; the model must say what they were
    [MASK]          stands in the place of 80% of these
    another token   stands in the place of 10%, drawn at random
    the same        10% stay as they were

Fine-tuning never shows a [MASK]. If all chosen tokens became one, only the vectors at a [MASK] would have to be good.
Since some chosen tokens are wrong and some right, every token's vector must agree with the sentence.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from minbert.tokenizer import SPECIAL, BertTokenizer


class Masking(NamedTuple):
    """How to mask. rate: the share of the tokens that is chosen. mask, random: the shares of the chosen that become
    [MASK] and a random token; the rest stays. whole_words: choose words, with all of their pieces, not pieces."""

    rate: float = 0.15
    mask: float = 0.8
    random: float = 0.1
    whole_words: bool = False


class Masker:
    """Masks rows of token ids. Special tokens and pads are never chosen, and never drawn as the other token."""

    def __init__(self, tokenizer: BertTokenizer, masking: Masking | None = None):
        self.masking, self.mask_id = masking or Masking(), tokenizer.mask_id
        ordinary = torch.tensor([piece not in SPECIAL for piece in tokenizer.vocab])
        self.ordinary, self.ordinary_ids = ordinary, ordinary.nonzero()[:, 0]
        self.goes_on = torch.tensor([piece.startswith("##") for piece in tokenizer.vocab])

    def __call__(self, input_ids: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Ids (B, T) on the CPU → the ids that BERT sees (B, T), and which places were chosen (B, T), bool."""
        rate, mask, random, whole_words = self.masking
        draw = torch.rand(input_ids.shape, generator=generator)
        if whole_words:  # a piece that continues a word shares the draw of the word's first piece
            places = torch.arange(input_ids.shape[1]).expand_as(input_ids)
            first = torch.where(self.goes_on[input_ids], 0, places).cummax(dim=1).values
            draw = draw.gather(1, first)
        chosen = self.ordinary[input_ids] & (draw < rate)  # (B, T)
        fate = torch.rand(input_ids.shape, generator=generator)
        others = self.ordinary_ids[torch.randint(len(self.ordinary_ids), input_ids.shape, generator=generator)]
        seen = torch.where(chosen & (fate < mask), self.mask_id, input_ids)
        seen = torch.where(chosen & (fate >= mask) & (fate < mask + random), others, seen)
        return seen, chosen


def generator_for(*numbers: int) -> torch.Generator:
    """A generator that depends on some whole numbers and nothing else."""
    value = 0
    for number in numbers:
        value = (value * 1_000_003 + number) % 2**63
    return torch.Generator().manual_seed(value)
