"""LoRA layers with one usual mistake each: the tests of tests/techniques that guard against it must fail."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from minbert import lora
from minbert.lora import LoRALinear, add_lora
from tests.techniques import test_lora as oracle
from tests.techniques import test_lora_layers as layers
from tests.techniques import test_lora_merging as merging
from tests.techniques.lora_models import answer, make_bert
from tests.techniques.test_lora_peft import assert_bert_equal_to_peft


class Scaled(LoRALinear):
    """With another factor than α/r."""

    def __init__(self, linear, rank, alpha, *args, **options):
        super().__init__(linear, rank, alpha, *args, **options)
        self.scale = self.factor(rank, alpha)


SCALES = {
    "NoScale": lambda rank, alpha: 1.0,
    "AlphaAlone": lambda rank, alpha: alpha,
    "AlphaTimesRank": lambda rank, alpha: alpha * rank,
    "AlphaOverRoot": lambda rank, alpha: alpha / rank**0.5,
}

SCALED = [type(name, (Scaled,), {"factor": staticmethod(factor)}) for name, factor in SCALES.items()]


class BothZero(LoRALinear):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        for A in self.lora_A.values():
            nn.init.zeros_(A)


class BothRandom(LoRALinear):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        for B in self.lora_B.values():
            nn.init.normal_(B)


class TrainsW(LoRALinear):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.weight.requires_grad_()


class CopiesW(LoRALinear):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.weight = nn.Parameter(self.weight.clone(), requires_grad=False)


class Detached(LoRALinear):
    """The output is right and the gradient is wrong."""

    def forward(self, x):
        y = F.linear(x, self.weight, self.bias)
        A, B = self.lora_A[self.active], self.lora_B[self.active]
        return y if self.pretrained is not None else y + self.scale * F.linear(F.linear(x.detach(), A), B)


class DropsTheBase(LoRALinear):
    def forward(self, x):
        x = self.lora_dropout(x)
        A, B = self.lora_A[self.active], self.lora_B[self.active]
        return F.linear(x, self.weight, self.bias) + self.scale * F.linear(F.linear(x, A), B)


class DropsTheOutput(LoRALinear):
    def forward(self, x):
        A, B = self.lora_A[self.active], self.lora_B[self.active]
        return F.linear(x, self.weight, self.bias) + self.lora_dropout(self.scale * F.linear(F.linear(x, A), B))


class UsesTheFirst(LoRALinear):
    def use(self, name):
        pass


class UsesTheSum(LoRALinear):
    def forward(self, x):
        adapters = zip(self.lora_A.values(), self.lora_B.values(), strict=True)
        return F.linear(x, self.weight, self.bias) + self.scale * sum(F.linear(F.linear(x, A), B) for A, B in adapters)


class MergesTheFirst(LoRALinear):
    def merged(self):
        first = next(iter(self.lora_A))
        return (self.weight + self.scale * self.lora_B[first] @ self.lora_A[first]).detach()


class MergesIntoW(LoRALinear):
    """As in much public code: W += (α/r)·BA, and to unmerge W -= (α/r)·BA. In floating point that is not W."""

    is_merged = False

    def delta(self):
        return (self.scale * self.lora_B[self.active] @ self.lora_A[self.active]).detach()

    def merge(self):
        if not self.is_merged:
            self.weight.data += self.delta()
        self.is_merged = True

    def unmerge(self):
        if self.is_merged:
            self.weight.data -= self.delta()
        self.is_merged = False

    def forward(self, x):
        return F.linear(x, self.weight, self.bias) if self.is_merged else super().forward(x)


class MergesTwice(LoRALinear):
    def merge(self):
        kept = self.weight if self.pretrained is None else self.pretrained
        delta = (self.scale * self.lora_B[self.active] @ self.lora_A[self.active]).detach()
        self.weight, self.pretrained = nn.Parameter(self.weight + delta, requires_grad=False), kept


class MergesOnce(LoRALinear):
    """Merges the A and B of the first merge ever after."""

    def merge(self):
        self.first = self.__dict__.get("first", self.merged())
        if self.pretrained is None:
            self.weight, self.pretrained = nn.Parameter(self.first, requires_grad=False), self.weight


class TrainsMerged(LoRALinear):
    def forward(self, x):
        return F.linear(x, self.weight, self.bias) if self.pretrained is not None else super().forward(x)


class SwitchesMerged(LoRALinear):
    def use(self, name):
        self.active = name


class SavesMerged(LoRALinear):
    def _save_to_state_dict(self, destination, prefix, keep_vars):
        nn.Linear._save_to_state_dict(self, destination, prefix, keep_vars)
        destination.pop(prefix + "pretrained", None)


class SavesBoth(LoRALinear):
    def _save_to_state_dict(self, destination, prefix, keep_vars):
        nn.Linear._save_to_state_dict(self, destination, prefix, keep_vars)


class LoadsIntoMerged(LoRALinear):
    """Loads into the place of the merged matrix, so that unmerging brings the old W back."""

    def _load_from_state_dict(self, *args):
        kept, self.pretrained = self.pretrained, None
        super()._load_from_state_dict(*args)
        self.pretrained = kept


class HidesW(LoRALinear):
    """Keeps W outside of the module's parameters, where no cast reaches it."""

    def merge(self):
        self.kept = self.weight.detach().clone()
        super().merge()

    def unmerge(self):
        if self.pretrained is not None:
            super().unmerge()
            self.weight = nn.Parameter(self.kept, requires_grad=False)


MISTAKES = {
    oracle.test_the_worked_example: [*SCALED, Detached],
    oracle.test_the_addition_is_scaled_by_alpha_over_r: SCALED,
    oracle.test_a_model_starts_as_it_was: [BothZero, BothRandom],
    oracle.test_a_layer_takes_over_the_linear_layers_own_W_and_b: [CopiesW, TrainsW],
    oracle.test_dropout_is_of_the_additions_input_and_in_training_alone: [DropsTheBase, DropsTheOutput],
    assert_bert_equal_to_peft: [*SCALED, Detached, TrainsW, MergesIntoW],
    layers.test_of_linear_layers_only_A_and_B_train: [TrainsW, BothZero],
    layers.test_the_backward_pass_stops_at_the_first_A: [TrainsW],
    layers.test_switching_adapters_is_exact_and_leaves_W: [UsesTheFirst, UsesTheSum],
    layers.test_training_one_adapter_leaves_the_others: [UsesTheFirst, UsesTheSum],
    layers.test_merging_one_of_several_adapters: [MergesTheFirst, SwitchesMerged, UsesTheFirst],
    merging.test_a_merged_model_has_the_same_outputs_and_W_comes_back: [MergesIntoW, MergesTwice, DropsTheBase],
    merging.test_a_hundred_merges_leave_every_bit_of_W: [MergesIntoW],
    merging.test_a_merged_model_refuses_to_train: [TrainsMerged, MergesIntoW],
    merging.test_a_merge_takes_A_and_B_as_they_are_then: [MergesOnce],
    merging.test_a_state_dict_has_the_pretrained_W_merged_or_not: [
        SavesMerged,
        SavesBoth,
        LoadsIntoMerged,
        MergesIntoW,
    ],
    merging.test_a_copy_of_a_merged_model_is_merged_and_shares_nothing: [MergesIntoW],
    merging.test_a_cast_takes_along_W_and_A_and_B: [HidesW, MergesIntoW],
    merging.test_a_merged_state_dict_is_a_plain_models: [SavesBoth, MergesIntoW],
}
WRONG = [(test, layer) for test, layers_of_it in MISTAKES.items() for layer in layers_of_it]


def run(test):
    """Call a test; one that has a parameter is called with the layers merged."""
    test(True) if test is merging.test_a_cast_takes_along_W_and_A_and_B else test()


@pytest.mark.parametrize(("test", "layer"), WRONG, ids=[f"{t.__name__}-{w.__name__}" for t, w in WRONG])
def test_a_wrong_layer_fails_the_test_that_guards_against_it(test, layer, monkeypatch):
    monkeypatch.setattr(lora, "LoRALinear", layer)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        run(test)


def test_a_subclass_without_a_mistake_passes_every_test(monkeypatch):
    """So it is the mistakes that fail above, and not the subclassing."""
    monkeypatch.setattr(lora, "LoRALinear", type("Same", (LoRALinear,), {}))
    for test in MISTAKES:
        run(test)


@pytest.mark.parametrize("name", ["bert_layers.1.out_dense.weight", "out_layer_norm.bias", "word_embedding.weight"])
def test_a_parameter_of_bert_that_trains_fails_the_test_of_frozen_weights(name):
    bert = add_lora(make_bert(torch.float32), 2, 3.0)
    next(p for n, p in bert.named_parameters() if n.endswith(name)).requires_grad_()
    with pytest.raises(AssertionError):
        layers.check_frozen(bert, answer, steps=2)
