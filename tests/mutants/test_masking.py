"""Wrong ways to mask, as public code has them: each must fail a test that `Masker` passes."""

import pytest
import torch

from minbert.pretraining.masking import Masker, Masking
from tests.pretraining import test_masking as oracle


class AnyToken(Masker):
    """Special tokens and pads can be chosen."""

    def __init__(self, *args):
        super().__init__(*args)
        self.ordinary = torch.ones_like(self.ordinary)


class AnyOther(Masker):
    """The other token can be a special one."""

    def __init__(self, *args):
        super().__init__(*args)
        self.ordinary_ids = torch.arange(len(self.ordinary))


class SharesOfAll(Masker):
    """80%, 10% and 10% of all tokens, of which the chosen ones are a part: one draw decides on both."""

    def __call__(self, input_ids, generator):
        rate, mask, random, _ = self.masking
        draw = torch.rand(input_ids.shape, generator=generator)
        chosen = self.ordinary[input_ids] & (draw < rate)
        others = self.ordinary_ids[torch.randint(len(self.ordinary_ids), input_ids.shape, generator=generator)]
        seen = torch.where(chosen & (draw < mask), self.mask_id, input_ids)
        return torch.where(chosen & (draw >= mask) & (draw < mask + random), others, seen), chosen


class RandomAfterMask(Masker):
    """The random tokens are 10% of those that are no [MASK]: two draws, one after the other."""

    def __call__(self, input_ids, generator):
        self.masking = self.masking._replace(random=self.masking.random * (1 - self.masking.mask))
        return super().__call__(input_ids, generator)


class Pieces(Masker):
    """Whole words are asked for, and pieces are chosen."""

    def __init__(self, tokenizer, masking=None):
        super().__init__(tokenizer, (masking or Masking())._replace(whole_words=False))


def statistics(masker):
    oracle.test_masking_statistics_over_a_million_tokens(Masking(), masker)


WORDS = oracle.test_whole_words_are_chosen_with_all_their_pieces
WRONG = [(AnyToken, statistics), (AnyOther, statistics), (SharesOfAll, statistics), (RandomAfterMask, statistics),
         (Pieces, WORDS)]  # fmt: skip


@pytest.mark.parametrize(("masker", "test"), WRONG, ids=[masker.__name__ for masker, _ in WRONG])
def test_a_wrong_masker_fails_the_test_that_guards_against_it(masker, test):
    with pytest.raises(AssertionError):
        test(masker)
