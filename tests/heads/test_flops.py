"""Operations of a training step at the paper's size, counted by torch and by hand."""

from __future__ import annotations

from typing import Any

import pytest
from fixtures.flops import PAPER_BATCH, PAPER_CLASSES, count_training_flops
from fixtures.plain_orn import plain_orn

SLOTS = PAPER_BATCH * 4
ROWS = SLOTS * 4  # an instance at a step
D = 1024


def product(rows: int, in_dim: int, out_dim: int, *, first: bool = False) -> int:
    """Forward, gradient of the weights and, unless the layer is the first, gradient of its input; + and × count 1."""
    return (2 if first else 3) * 2 * rows * in_dim * out_dim


FRONT_END = (
    product(ROWS, 512 * 9, 512, first=True)
    + product(ROWS, 4, 256, first=True)
    + product(ROWS, 256, 512)
    + 3 * product(ROWS, 512, 512)  # of the first one's 768 inputs, 256 are the category's, of which there are three
)
DECODERS = product(2 * SLOTS, D, 6)


def lstm(windows: int) -> int:
    """Two layers: input products of 4 steps, state products of 3; a window of 2 steps shares the first layer's."""
    main = 2 * (product(ROWS, D, 4 * D) + product(3 * SLOTS, D, 4 * D))
    return main + windows * product(4 * SLOTS, D, 4 * D)


def classifier(width: int) -> int:
    return product(PAPER_BATCH, width, PAPER_CLASSES)


BY_HAND = {
    "paper": (
        FRONT_END
        + 3 * product(ROWS, 2 * D, D)  # edge types
        + product(ROWS, D, D)  # ψS
        + lstm(windows=0)
        + product(SLOTS, 4 * D, 512)
        + product(SLOTS, 512, 512)
        + DECODERS
        + classifier(512)
    ),
    "released": (
        FRONT_END
        + 4 * product(ROWS, 2 * D, D)
        + 2 * product(ROWS, D, D)  # residual, ψS
        + lstm(windows=1)  # of the two windows, one begins the main pass
        + product(SLOTS, 4 * D, D)
        + product(SLOTS, D, 512)
        + DECODERS
        + classifier(512)
    ),
}


@pytest.mark.parametrize(("preset", "limit"), [("paper", 180e9), ("released", 230e9)])
def test_sfi_takes_the_arithmetic_that_a_hand_count_gives(preset: str, limit: float) -> None:
    counted = count_training_flops("sfi", preset, losses=["prediction"])
    assert counted <= limit
    assert counted == pytest.approx(BY_HAND[preset], rel=1e-3)  # what is left: sums over the N pairs of an instance


HEADS: dict[str, int] = {
    "strg": FRONT_END + 11 * product(ROWS, D, D) + product(PAPER_BATCH, 4 * D, D) + classifier(D),
    "nl": FRONT_END
    + 4 * product(ROWS, D, 512)
    + product(ROWS, D, 512)
    + product(SLOTS, 4 * 512, 512)
    + classifier(512),
    "stin": FRONT_END
    + product(ROWS, 2 * D, 512)
    + product(ROWS, 512, 512)
    + product(SLOTS, 4 * 512, 512)
    + product(SLOTS, 512, 512)
    + classifier(512),
}


@pytest.mark.parametrize("name", HEADS)
def test_other_heads_multiply_each_instance_once_by_each_matrix(name: Any) -> None:
    assert count_training_flops(name) == pytest.approx(HEADS[name], rel=1e-2)


def test_orn_multiplies_each_object_and_not_each_pair_by_the_first_layer() -> None:
    objects, related, pairs = 32 * 8 * 10, 32 * 7 * 10, 32 * 7 * 10**2
    width = 100 + 2048 + 81
    by_hand = (
        product(objects, 784, 100, first=True)
        + product(objects, 100, 100)
        + product(objects, 2048, 81, first=True)  # the object-class loss
        + 2 * product(related, width, 512)
        + 2 * product(pairs, 512, 512)
        + product(32 * 7, 512, 3 * 256)
        + product(32 * 6, 256, 3 * 256)
        + product(32 * 8, 2048, 3 * 512, first=True)
        + product(32 * 7, 512, 3 * 512)
        + product(32, 256 + 512, PAPER_CLASSES)
    )
    counted = count_training_flops("orn", losses=["object_class"])
    assert counted == pytest.approx(by_hand, rel=1e-2)  # what is left: sums over pairs, and the draw, as products
    plain = count_training_flops("orn", form=plain_orn, losses=["object_class"])
    assert plain - counted == pytest.approx(product(pairs, 2 * width, 512) - 2 * product(related, width, 512), rel=1e-2)
