"""Masks by statistics over a million tokens."""

import pytest
import torch

from minbert.pretraining.masking import Masker, Masking, generator_for
from minbert.tokenizer import SPECIAL, BertTokenizer

WORDS = [f"w{i}" for i in range(900)]


TOKENIZER = BertTokenizer([*SPECIAL, *WORDS, *(f"##p{i}" for i in range(100))])


def rows_of_tokens(rows: int = 20_000, T: int = 64) -> torch.Tensor:
    """(rows, T) random ids as a tokenizer makes them: [CLS], 40 to 61 pieces, [SEP], pads; now and then an [UNK]."""
    random = torch.Generator().manual_seed(1)
    ids = torch.randint(len(SPECIAL), TOKENIZER.vocab_size, (rows, T), generator=random)
    ids[torch.rand(ids.shape, generator=random) < 0.01] = TOKENIZER.unk_id
    lengths = torch.randint(42, T, (rows, 1), generator=random)
    places = torch.arange(T)
    ids = torch.where(places == lengths - 1, TOKENIZER.sep_id, ids)
    ids = torch.where(places >= lengths, TOKENIZER.pad_id, ids)
    ids[:, 0] = TOKENIZER.cls_id
    return ids


IDS = rows_of_tokens()


ORDINARY = IDS >= len(SPECIAL)


def near(share: float, expected: float, n: int) -> bool:
    """Within five standard deviations of a share of `n` independent draws."""
    return abs(share - expected) < 5 * (expected * (1 - expected) / n) ** 0.5


@pytest.mark.parametrize(
    "masking", [Masking(), Masking(0.3, 0.8, 0.2), Masking(0.15, 1.0, 0.0), Masking(whole_words=True)]
)
def test_masking_statistics_over_a_million_tokens(masking, masker=Masker):
    seen, chosen = masker(TOKENIZER, masking)(IDS, generator_for(1))
    n = int(ORDINARY.sum())
    assert n > 1_000_000
    assert not chosen[~ORDINARY].any()  # no special token, no pad
    assert torch.equal(seen[~chosen], IDS[~chosen])
    spread = 1 if not masking.whole_words else 0.5  # words of several pieces come together: fewer independent draws
    assert near(chosen.sum().item() / n, masking.rate, n * spread)

    N = int(chosen.sum())
    masked = chosen & (seen == TOKENIZER.mask_id)
    kept = chosen & (seen == IDS)
    other = chosen & ~masked & ~kept
    V = TOKENIZER.vocab_size - len(SPECIAL)
    by_chance = masking.random / V  # the random token may be the very one
    assert near(masked.sum().item() / N, masking.mask, N) or masking.mask == 1.0 == masked.sum().item() / N
    assert near(other.sum().item() / N, masking.random - by_chance, N) or masking.random == 0.0 == other.sum().item()
    rest = 1 - masking.mask - masking.random
    assert abs(kept.sum().item() / N - rest - by_chance) < 5 * (0.1 / N) ** 0.5 and (rest > 0 or kept.sum() / N < 0.001)
    assert not masking.random or (seen[other] >= len(SPECIAL)).all()  # no [PAD] or [CLS] is put in
    if masking.random:
        counts = torch.bincount(seen[other], minlength=TOKENIZER.vocab_size)[len(SPECIAL) :].double()
        chi2 = ((counts - counts.mean()) ** 2 / counts.mean()).sum().item()
        assert abs(chi2 - V) < 6 * (2 * V) ** 0.5  # all tokens alike


def test_same_numbers_same_masks_other_pass_other_masks():
    masker = Masker(TOKENIZER)
    first, again, other = (masker(IDS[:200], generator_for(7, 1, n, 3)) for n in (0, 0, 1))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    both = (first[1] & other[1]).sum() / ORDINARY[:200].sum()
    assert abs(both.item() - 0.15**2) < 0.01  # they fall together as often as independent ones do


def test_whole_words_are_chosen_with_all_their_pieces(masker=Masker):
    goes_on = torch.tensor([piece.startswith("##") for piece in TOKENIZER.vocab])[IDS]
    for whole, expected in ((True, 1.0), (False, 0.7450)):  # .15² + .85²
        _, chosen = masker(TOKENIZER, Masking(whole_words=whole))(IDS, generator_for(2))
        pairs = goes_on[:, 1:] & ORDINARY[:, :-1]
        same = (chosen[:, 1:] == chosen[:, :-1])[pairs].double().mean().item()
        assert abs(same - expected) < 0.005
