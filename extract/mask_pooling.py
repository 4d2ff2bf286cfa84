"""Pooling under masks: one feature per instance slot and feature step, the map's mean over what the mask covers.

    u = Σ_xy B up(U) / (Σ_xy B + 1e-4)

up(U) is the map, stretched to the mask's size by linear interpolation whose outer samples are the outer cells' centres
(align_corners). It is a product with a matrix for the rows and one for the columns, so u is a weighted sum of the map's
cells, their weights A_rowsᵀ B A_columns / (Σ B + 1e-4), and the map is never stretched.

Source: Baradel et al. 2018, "Object Level Visual Reasoning in Videos", Eq. 6; the rest from its released code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ifcar.cache.schema import step_frames
from ifcar.errors import InputError

_SMALLEST_AREA = 1e-4
_FULL = 255  # of a mask's numbers: the cell is covered wholly


def mask_features(feature_map: Tensor, masks: Tensor, categories: Tensor) -> Tensor:
    """Average the feature map under every instance's mask, at the frame each feature step stands for.

    Args:
        feature_map: (B, C, T′, H, W), any floating dtype.
        masks: (B, T, N, h, w) uint8, 255 = covered wholly; T a multiple of T′.
        categories: (B, T, N) integer; 0 = empty slot, whose mask is not looked at.

    Returns:
        (B, T′, N, C, 1, 1) float32; empty slots are all zeros.

    Raises:
        InputError: the shapes do not fit together.
    """
    batch, _, num_steps, height, width = feature_map.shape
    if masks.shape[:3] != categories.shape or masks.ndim != 5 or len(masks) != batch:
        raise InputError(
            f"masks {tuple(masks.shape)} and categories {tuple(categories.shape)} do not fit a feature map "
            f"{tuple(feature_map.shape)}; expected (B, T, N, h, w) and (B, T, N) with the map's B"
        )
    steps = torch.from_numpy(step_frames(masks.shape[1], num_steps)).to(masks.device, non_blocking=True)
    present = categories.index_select(1, steps) != 0  # (B, T′, N)
    cover = masks.index_select(1, steps).float() / _FULL * present[..., None, None]
    rows = stretch(height, masks.shape[3], masks.device)
    columns = stretch(width, masks.shape[4], masks.device)
    area = cover.sum((3, 4)) + _SMALLEST_AREA
    weights = (rows.T @ cover @ columns).flatten(3) / area[..., None]  # (B, T′, N, H·W)
    cells = feature_map.permute(0, 2, 3, 4, 1).flatten(2, 3).float()  # (B, T′, H·W, C)
    return (weights @ cells)[..., None, None]


def stretch(num_cells: int, size: int, device: torch.device) -> Tensor:
    """Return (size, num_cells): how much each cell counts at each sample; the outer ones lie on the outer cells."""
    places = torch.linspace(0, num_cells - 1, size, device=device)
    distances = places[:, None] - torch.arange(num_cells, device=device)
    return (1 - distances.abs()).clamp(min=0)
