"""The ATen front end: laws of masking, in-place operators, refusals."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from reference_networks import SIZE, Everything
from torch import Tensor, nn

from lmonnx.errors import OptionError, SourceError, UnsupportedOpError
from lmonnx.exporters.sources.seeds import seeded
from lmonnx.masking import MaskRules
from lmonnx.reference import mask_aware


@pytest.fixture(scope="module")
def network() -> Everything:
    torch.manual_seed(0)
    return Everything().eval()


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.randn(3, 3, *SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture(scope="module")
def mask() -> Tensor:
    return torch.rand(3, 1, *SIZE, generator=torch.Generator().manual_seed(2)) > 0.6


@pytest.fixture(scope="module")
def aware(network: Everything) -> Any:
    return mask_aware(network)


def run(function: Callable[[Tensor], Any], image: Tensor, mask: Tensor, **rules: Any) -> Any:
    """A function of the image as a mask-aware network."""

    class Network(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return function(x)

    return mask_aware(Network().eval(), rules=MaskRules(**rules))(image, mask)


def test_all_true_is_the_original(network: Everything, aware: Any, image: Tensor) -> None:
    original = copy.deepcopy(network).double()(image)
    kept = torch.ones(3, 1, *SIZE, dtype=torch.bool)
    exact = mask_aware(network, rules=MaskRules(average="area"))(image, kept)
    torch.testing.assert_close(exact, original, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(aware(image, kept), original, rtol=0, atol=1e-6)  # mean(m) + 1e-8


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
def test_a_removed_pixel_changes_nothing(aware: Any, image: Tensor, mask: Tensor, value: float) -> None:
    expected, found = aware(image, mask), aware(torch.where(mask, image, value), mask)
    assert torch.equal(expected, found)
    assert not torch.equal(expected, aware(image, torch.ones_like(mask)))


@pytest.mark.parametrize("largest", [True, False])
def test_the_first_of_equal_numbers(largest: bool, image: Tensor, mask: Tensor) -> None:
    found = run(lambda x: x.mean((2, 3)).repeat(1, 9).topk(5, largest=largest), image, torch.zeros_like(mask))
    assert torch.equal(found[1], torch.arange(5).expand(3, -1))


def test_rows_are_independent_and_batches_broadcast(aware: Any, image: Tensor, mask: Tensor) -> None:
    together = aware(image, mask)
    for row in range(3):
        alone = aware(image[row : row + 1], mask[row : row + 1])
        torch.testing.assert_close(alone, together[row : row + 1], rtol=0, atol=1e-12)
    assert torch.equal(aware(image[:1], mask), aware(image[:1].expand(3, -1, -1, -1), mask))
    assert torch.equal(aware(image, mask[:1]), aware(image, mask[:1].expand(3, -1, -1, -1)))


def test_all_false_is_finite_and_blind(aware: Any, image: Tensor, mask: Tensor) -> None:
    nothing = aware(image, torch.zeros_like(mask))
    assert nothing.isfinite().all()
    assert torch.equal(nothing[0], nothing[1])


@pytest.mark.parametrize("keep", ["some", "none"])
def test_gradients_reach_the_image_and_the_parameters(
    network: Everything, aware: Any, image: Tensor, mask: Tensor, keep: str
) -> None:
    mask = mask if keep == "some" else torch.zeros_like(mask)
    image = image.clone().requires_grad_()
    network.zero_grad()
    aware(image, mask).sum().backward()
    assert image.grad is not None
    assert image.grad.isfinite().all()
    assert not image.grad[~mask.expand_as(image)].any()
    assert image.grad.any() == (keep == "some")
    for parameter in network.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


def test_nan_under_the_mask_and_a_logarithm_of_zero_leave_gradients_finite(image: Tensor, mask: Tensor) -> None:
    class Logarithm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return torch.log(x.abs() * self.scale).mean((2, 3))

    network = Logarithm().eval()
    mask_aware(network)(torch.where(mask, image, math.nan), mask).sum().backward()
    assert network.scale.grad is not None
    assert network.scale.grad.isfinite().all()


def test_gradients_of_an_all_true_mask_are_the_originals(network: Everything, image: Tensor) -> None:
    aware = mask_aware(network, rules=MaskRules(average="area"))
    leaf = image.clone().requires_grad_()
    (found,) = torch.autograd.grad(aware(leaf, torch.ones(3, 1, *SIZE, dtype=torch.bool)).sum(), leaf)
    (expected,) = torch.autograd.grad(copy.deepcopy(network).double()(leaf).sum(), leaf)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_parameters_are_read_at_every_call(network: Everything, aware: Any, image: Tensor, mask: Tensor) -> None:
    before = aware(image, mask)
    with torch.no_grad():
        network.head.bias.add_(1.0)
    torch.testing.assert_close(aware(image, mask), before + 1.0)
    with torch.no_grad():
        network.head.bias.sub_(1.0)


def test_other_sizes_are_exported_again(network: Everything, mask: Tensor, image: Tensor) -> None:
    aware = mask_aware(network, size=SIZE)
    single = aware(image.float(), mask)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), aware(image, mask), rtol=1e-3, atol=1e-3)
    assert len(aware._programs) == 1
    assert aware(image[..., :13], mask[..., :13]).shape == (3, 5)
    assert len(aware._programs) == 2
    assert next(network.parameters()).dtype == torch.float32


def test_structure_of_the_outputs_is_kept(image: Tensor, mask: Tensor) -> None:
    found = run(lambda x: {"map": x, "pair": (x.mean((2, 3)), x.amax((2, 3)))}, image, mask)
    assert torch.equal(found["map"], torch.where(mask, image, 0))
    kept = torch.where(mask, image, 0).sum((2, 3)) / (mask.double().sum((2, 3)) + 1e-8 * SIZE[0] * SIZE[1])
    torch.testing.assert_close(found["pair"][0], kept, rtol=1e-13, atol=1e-13)
    assert torch.equal(found["pair"][1], torch.where(mask, image, -math.inf).amax((2, 3)))


def test_concat_keeps_by_the_rule(image: Tensor) -> None:
    mask = torch.zeros(1, 1, *SIZE, dtype=torch.bool)
    mask[..., 8, 7] = True

    def branches(x: Tensor) -> Tensor:
        big = F.max_pool2d(x, 3, 1, 1)
        return torch.cat([x, big, big, F.max_pool2d(big, 3, 1, 1)], 1)

    kept = {rule: (run(branches, image[:1], mask, concat=rule) != 0).any(1).sum().item() for rule in CONCAT}
    assert kept == CONCAT
    zeroed = run(branches, image[:1], mask, concat="any")
    assert zeroed[:, :3].count_nonzero() == 3


CONCAT = {"all": 1, "majority": 9, "any": 25}


def relu_of_a_name_used_twice(x: Tensor) -> Tensor:
    y = x + 1
    z = y
    y.relu_()
    return (y + z.mul_(2)).sum((2, 3))


def in_place_on_a_copy(x: Tensor) -> Tensor:
    y = x + 1
    z = y.clone().relu_()
    return (y + z).sum((2, 3))


def in_place_through_dropout(x: Tensor) -> Tensor:
    y = x * 1
    F.dropout(y, 0.5, training=False).relu_()
    return y.sum((2, 3))


def in_place_on_a_last_view(x: Tensor) -> Tensor:
    return (x + 1).permute(0, 2, 3, 1).relu_().sum((1, 2))


def in_place_on_a_part(x: Tensor) -> Tensor:
    y = x + 1
    stack = torch.stack([y, y * 2])
    y.mul_(5)
    return (stack.sum(0).relu_() + stack.mean(0) + y).sum((2, 3))


IN_PLACE = [
    in_place_on_a_part,
    relu_of_a_name_used_twice,
    in_place_on_a_copy,
    in_place_through_dropout,
    in_place_on_a_last_view,
]


@pytest.mark.parametrize("function", IN_PLACE)
def test_in_place_writes_to_every_name(function: Callable[[Tensor], Tensor], image: Tensor) -> None:
    found = run(function, image, torch.ones(3, 1, *SIZE, dtype=torch.bool))
    torch.testing.assert_close(found, function(image), rtol=1e-12, atol=1e-12)


def in_place_on_a_view(x: Tensor) -> Tensor:
    y = x + 1
    y.permute(0, 2, 3, 1).relu_()
    return y.sum((2, 3))


def in_place_under_a_view(x: Tensor) -> Tensor:
    y = x + 1
    z = y.transpose(2, 3)
    y.relu_()
    return z.sum((2, 3))


REFUSED = {
    "transposed convolution": (lambda x: F.conv_transpose2d(x, torch.ones(3, 2, 2, 2).to(x)), "transposed"),
    "softmax over space": (lambda x: torch.softmax(x, 3), "softmax over space"),
    "cumulative sum": (lambda x: torch.cumsum(x, 3), "along an axis"),
    "product over space": (lambda x: x @ torch.ones(SIZE[1], 2).to(x), "a product over space"),
    "product of two maps": (lambda x: x.transpose(2, 3) @ x, "two activations"),
    "reduction over all": (lambda x: x.mean(), "reduces the batch"),
    "moved batch": (lambda x: x.transpose(0, 1), "moves the batch"),
    "merged batch": (lambda x: x.flatten(0, 1), "merges or splits the batch"),
    "space merged with channels": (lambda x: x.reshape(x.shape[0], 3 * SIZE[0], SIZE[1], 1), "merges space"),
    "indices": (lambda x: torch.max(x, 1)[1] + 1, "indices"),
    "pending pad": (lambda x: torch.relu(F.pad(x, (1, 1))), "constant Pad"),
    "pending output": (lambda x: F.pad(x, (1, 1)), "constant Pad"),
    "two constants": (lambda x: F.max_pool2d(F.pad(F.pad(x, (1, 1)), (1, 1), value=1.0), 2), "follows a Pad"),
    "pad of the batch": (lambda x: F.pad(x, (0, 0, 0, 0, 0, 0, 1, 1)), "pads the batch"),
    "window without two axes": (lambda x: F.conv2d(x.transpose(1, 2), torch.ones(1, SIZE[0], 1, 1).to(x)), "window"),
    "raised rank": (lambda x: x + torch.zeros(2, 1, 1, 1, 1).to(x), "broadcast"),
    "in place on a view": (in_place_on_a_view, "view"),
    "in place on a stack": (lambda x: torch.stack([x, x]).mul_(2).sum(0), "moves the batch"),
    "in place under a view": (in_place_under_a_view, "view"),
    "concatenated batch": (lambda x: torch.cat([x, x], 0), "batch"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_meaning_is_refused(name: str, image: Tensor, mask: Tensor) -> None:
    function, why = REFUSED[name]
    with pytest.raises(UnsupportedOpError, match=why):
        run(function, image, mask)


def test_every_independent_offence_is_named(image: Tensor, mask: Tensor) -> None:
    with pytest.raises(UnsupportedOpError) as caught:
        run(lambda x: (torch.cumsum(x, 2) + torch.cumsum(x, 3)).relu(), image, mask)
    operators = [offence.operator for offence in caught.value.offences]
    assert operators == ["aten.cumsum.default"] * 2
    assert caught.value.offences[0].inputs == ("batch×3×17×15",)


def test_arguments_are_checked(network: Everything, aware: Any, image: Tensor, mask: Tensor) -> None:
    for wrong in (mask.float(), mask[:, 0], mask[..., 1:], mask[:2]):
        with pytest.raises(OptionError):
            aware(image, wrong)
    with pytest.raises(OptionError):
        aware(image.long(), mask)
    with pytest.raises(OptionError, match="training"):
        mask_aware(copy.deepcopy(network).train())


def test_an_untraceable_module_is_named(image: Tensor, mask: Tensor) -> None:
    with pytest.raises(SourceError, match="Network"):
        run(lambda x: x if x.sum().item() > 0 else -x, image, mask)


def test_a_module_that_writes_its_buffers_is_refused(image: Tensor, mask: Tensor) -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            self.calls.add_(1)
            return x.sum((2, 3)) + self.calls

    module = Counting().eval()
    with pytest.raises(UnsupportedOpError, match="buffer"):
        mask_aware(module)(image, mask)
    assert module.calls.item() == 0


class Takes(nn.Module):
    """Channels of a convolution, in order or out of it."""

    def __init__(self, *, out_of_order: bool) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.conv, self.out_of_order = nn.Conv2d(3, 4, 3, padding=1), out_of_order
        self.register_buffer("order", torch.tensor([2, -4]))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.out_of_order:
            x = torch.cat([x.index_select(1, self.order % 4), x.select(1, 1).unsqueeze(1)], 1)
        return x.mean((2, 3))


def test_channels_can_be_taken(image: Tensor, mask: Tensor) -> None:
    in_order, out_of_order = (mask_aware(Takes(out_of_order=o).double().eval())(image, mask) for o in (False, True))
    torch.testing.assert_close(out_of_order, in_order[:, [2, 0, 1]], rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:The tensor attribute:UserWarning")
def test_weights_that_a_hook_computes() -> None:
    """Of which PyTorch makes no deep copy."""
    conv = torch.nn.utils.weight_norm(torch.nn.Conv2d(3, 4, 3))
    network = torch.nn.Sequential(conv, torch.nn.BatchNorm2d(4), torch.nn.AdaptiveAvgPool2d(1)).eval()
    seeded(network, 0)
    image, mask = torch.rand(1, 3, 9, 9, dtype=torch.float64), torch.ones(1, 1, 9, 9, dtype=torch.bool)
    with torch.no_grad():
        torch.testing.assert_close(mask_aware(network)(image, mask).float(), network(image.float()))
