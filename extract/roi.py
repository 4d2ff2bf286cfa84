"""RoIAlign: one pooled feature per instance slot and feature step; and which way instances are pooled.

RoIAlign is linear in the map: a bin is a weighted sum of its cells, each weight a product of one factor for the row and
one for the column. So it is a matrix product, weights (bins, cells) × map (cells, channels), and runs at the machine's
full rate on a map that keeps its channels side by side.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ifcar.cache.schema import step_frames
from ifcar.errors import InputError
from ifcar.extract.backbones.spec import FRAMES, INSTANCES, map_of
from ifcar.extract.mask_pooling import mask_features
from ifcar.extract.view_options import PooledMode


def pooled_size(mode: PooledMode) -> int:
    """Return P, the bins a side that are stored: 3 for "3", else 1; 0 for "none", which pools no instances."""
    return {"3": 3, "none": 0}.get(mode, 1)


def pooled_with(mode: PooledMode) -> tuple[str, ...]:
    """Return the names of a view's arrays that say where its instances are pooled."""
    return () if mode == "none" else ("masks" if mode == "mask" else "boxes", "categories")


def arrays_of_maps(
    maps: Mapping[str, Tensor],
    of_view: Mapping[str, Tensor],
    mode: PooledMode,
    names: Collection[str],
    grid_size: tuple[int, int] | None = None,
) -> dict[str, Tensor]:
    """Return the feature arrays called `names`, as a cache holds them for each view.

    Args:
        maps: name → (B, C, T′, H, W), float32; see `BackboneSpec.maps`.
        of_view: the arrays `pooled_with(mode)`: categories (B, T, N), and boxes (B, T, N, 4) or masks (B, T, N, h, w).
        mode: how instances are pooled, see `roi_features` and `mask_features`.
        names: among instance_features (B, T′, N, C, P, P), frame_features (B, T′, C) and grid_features
            (B, T′, C, H, W); others are passed over.
        grid_size: (H, W) of grid_features, which divide those of the map: each cell is the mean of as many of the map's
            as that takes. None: those of the map.
    """
    arrays: dict[str, Tensor] = {}
    instances, frames = maps[map_of(maps, INSTANCES)], maps[map_of(maps, FRAMES)]
    if "instance_features" in names:
        where, categories = (of_view[name] for name in pooled_with(mode))
        pool = mask_features if mode == "mask" else partial(roi_features, mode=mode)
        arrays["instance_features"] = pool(instances, where, categories)
    if "frame_features" in names:
        as_it_lies = frames.permute(0, 2, 3, 4, 1)  # in memory, channels last
        arrays["frame_features"] = as_it_lies.flatten(2, 3).mean(dim=2)
    if "grid_features" in names:
        arrays["grid_features"] = _pooled_grid(instances.transpose(1, 2), grid_size)
    return arrays


def _pooled_grid(cells: Tensor, size: tuple[int, int] | None) -> Tensor:
    """Return (B, T′, C, H, W) of these H and W, the mean over equal parts of the map."""
    if size is None or cells.shape[-2:] == size:
        return cells
    pooled = F.adaptive_avg_pool2d(cells.flatten(0, 1), size)
    return pooled.view(*cells.shape[:3], *size)


def roi_features(feature_map: Tensor, boxes: Tensor, categories: Tensor, mode: PooledMode) -> Tensor:
    """Pool the feature map inside every instance's box, at the frame each feature step stands for.

    Step t′ of T′ is pooled with the boxes of frame `step_frames(T, T′)[t′]`, the first frame of its window.
    A box spans [0, 1] of the crop and so [0, W] × [0, H] of the map, cell i covering [i, i + 1) (aligned=True,
    no offset of half a cell); every bin is the mean of 2 × 2 bilinear samples. "3" keeps 3 × 3 bins, "7-max"
    takes the maximum over 7 × 7 bins.

    Args:
        feature_map: (B, C, T′, H, W), any floating dtype.
        boxes: (B, T, N, 4), (cx, cy, w, h) normalised to the crop; T a multiple of T′.
        categories: (B, T, N) integer; 0 = empty slot, whose box is not looked at.
        mode: "3" or "7-max"; the others are no RoIAlign.

    Returns:
        (B, T′, N, C, P, P) float32 with P = `pooled_size(mode)`; empty slots are all zeros.

    Raises:
        InputError: the shapes do not fit together.
    """
    batch, _, num_steps, height, width = feature_map.shape
    if boxes.shape != (batch, *categories.shape[1:], 4) or categories.shape[0] != batch:
        raise InputError(
            f"boxes {tuple(boxes.shape)} and categories {tuple(categories.shape)} do not fit a feature map "
            f"{tuple(feature_map.shape)}; expected (B, T, N, 4) and (B, T, N) with the map's B"
        )
    steps = torch.from_numpy(step_frames(boxes.shape[1], num_steps)).to(boxes.device, non_blocking=True)
    present = categories.index_select(1, steps) != 0  # (B, T′, N)
    # An empty slot may hold anything, NaN included; it is given an empty box and overwritten below.
    at_steps = torch.where(present[..., None], boxes.index_select(1, steps).float(), 0.0).flatten(0, 1)  # (B·T′, N, 4)
    bins = 3 if mode == "3" else 7
    columns = bin_weights(at_steps[..., 0], at_steps[..., 2], bins, width)
    rows = bin_weights(at_steps[..., 1], at_steps[..., 3], bins, height)
    weights = torch.einsum("snph,snqw->snpqhw", rows, columns).flatten(1, 3).flatten(2)  # (B·T′, N·bins², H·W)
    maps = feature_map.permute(0, 2, 3, 4, 1).flatten(0, 1).flatten(1, 2).float()  # (B·T′, H·W, C)
    pooled = torch.bmm(weights, maps).view(batch, num_steps, -1, bins, bins, maps.shape[2]).permute(0, 1, 2, 5, 3, 4)
    if mode == "7-max":
        pooled = pooled.amax(dim=(4, 5), keepdim=True)
    return torch.where(present[..., None, None, None], pooled, 0.0)


def bin_weights(centers: Tensor, sizes: Tensor, bins: int, num_cells: int) -> Tensor:
    """Return how much each cell along one axis of the map counts in each bin of each box.

    A bin is the mean of two samples, at ¼ and ¾ of it. A sample at p, in cells from the centre of the first one, is
    shared linearly by the two centres around it; beyond the outer centres it takes the border's value, and more than a
    cell beyond them it counts nothing, as in torchvision's `roi_align`.

    Args:
        centers: (…) of the boxes, in [0, 1] of the axis.
        sizes: (…) of the boxes, in the same unit.
        bins: bins a box.
        num_cells: cells along the axis.

    Returns:
        (…, bins, num_cells) float32.
    """
    offsets = (torch.arange(2 * bins, device=centers.device) + 0.5) / (2 * bins) - 0.5
    places = (centers[..., None] + offsets * sizes[..., None]) * num_cells - 0.5  # (…, 2·bins)
    counts = (places >= -1) & (places <= num_cells)
    distances = places.clamp(0, num_cells - 1)[..., None] - torch.arange(num_cells, device=centers.device)
    shares = (1 - distances.abs()).clamp(min=0) * counts[..., None]
    return (shares[..., 0::2, :] + shares[..., 1::2, :]) / 2
