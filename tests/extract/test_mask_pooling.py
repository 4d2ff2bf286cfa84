"""Pooling under masks against the stretched map, summed pixel by pixel."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ifcar.errors import InputError
from ifcar.extract.mask_pooling import mask_features
from ifcar.extract.roi import arrays_of_maps, pooled_size


def test_a_feature_is_the_stretched_map_s_mean_under_the_mask() -> None:
    g = torch.Generator().manual_seed(0)
    feature_map = torch.randn((2, 5, 2, 14, 11), generator=g)
    masks = torch.randint(0, 256, (2, 4, 3, 28, 28), generator=g).to(torch.uint8)
    masks[0, 0, 0] = 0  # present, but nothing is covered
    categories = torch.ones((2, 4, 3), dtype=torch.uint8)
    categories[1, :, 2] = 0
    pooled = mask_features(feature_map, masks, categories)
    assert pooled.shape == (2, 2, 3, 5, 1, 1) and pooled_size("mask") == 1
    for clip, step, slot in torch.cartesian_prod(*(torch.arange(n) for n in pooled.shape[:3])).tolist():
        up = F.interpolate(feature_map[clip, :, step][None], (28, 28), mode="bilinear", align_corners=True)[0]
        cover = masks[clip, 2 * step, slot] / 255 if categories[clip, 2 * step, slot] else torch.zeros(28, 28)
        expected = (cover * up).sum((1, 2)) / (cover.sum() + 1e-4)
        torch.testing.assert_close(pooled[clip, step, slot, :, 0, 0], expected, rtol=1e-5, atol=1e-5)


def test_mode_mask_pools_under_masks_and_needs_no_boxes() -> None:
    maps = {"instances": torch.rand(1, 3, 2, 7, 7)}
    view = {"masks": torch.full((1, 2, 2, 28, 28), 255, dtype=torch.uint8), "categories": torch.tensor([[[1, 0]] * 2])}
    (pooled,) = arrays_of_maps(maps, view, "mask", ["instance_features"]).values()
    torch.testing.assert_close(pooled, mask_features(maps["instances"], view["masks"], view["categories"]))
    assert (pooled[:, :, 0] > 0).all() and (pooled[:, :, 1] == 0).all()


def test_masks_of_other_slots_than_the_categories_are_refused() -> None:
    masks = torch.zeros((1, 2, 3, 28, 28), dtype=torch.uint8)
    for categories in (torch.zeros(1, 2, 2), torch.zeros(1, 3, 3)):
        with pytest.raises(InputError, match="do not fit a feature map"):
            mask_features(torch.zeros(1, 4, 2, 7, 7), masks, categories)
