"""RoIAlign: one pooled feature per instance slot and feature step."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import torch
from torch import Tensor
from torchvision.ops import box_convert, roi_align

from ifcar.cache.schema import step_frames
from ifcar.errors import InputError, nearest

PooledMode = Literal["3", "7-max"]
POOLED_MODES: tuple[PooledMode, ...] = ("3", "7-max")


def parse_pooled_mode(text: str) -> PooledMode:
    """Return `text` as a pooled mode.

    Raises:
        InputError: unknown mode; the message lists the known ones.
    """
    for mode in POOLED_MODES:
        if text == mode:
            return mode
    hint = nearest(text, POOLED_MODES)
    raise InputError(f"unknown pooled mode {text!r}{hint or '.'} Expected one of: {', '.join(POOLED_MODES)}")


def pooled_size(mode: PooledMode) -> int:
    """Return P, the bins a side that are stored: 3 for "3", 1 for "7-max"."""
    return 3 if mode == "3" else 1


def arrays_of_map(
    feature_map: Tensor, boxes: Tensor, categories: Tensor, mode: PooledMode, names: Collection[str]
) -> dict[str, Tensor]:
    """Return the feature arrays called `names`, as a cache holds them for each view.

    Args:
        feature_map: (B, C, T′, H, W), float32.
        boxes: (B, T, N, 4), see `roi_features`.
        categories: (B, T, N).
        mode: of RoIAlign.
        names: among instance_features (B, T′, N, C, P, P), frame_features (B, T′, C) and grid_features
            (B, T′, C, H, W); others are passed over.
    """
    arrays: dict[str, Tensor] = {}
    if "instance_features" in names:
        arrays["instance_features"] = roi_features(feature_map, boxes, categories, mode)
    if "frame_features" in names:
        arrays["frame_features"] = feature_map.mean(dim=(3, 4)).transpose(1, 2)
    if "grid_features" in names:
        arrays["grid_features"] = feature_map.transpose(1, 2)
    return arrays


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
        mode: "3" or "7-max".

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
    steps = torch.from_numpy(step_frames(boxes.shape[1], num_steps)).to(boxes.device)
    present = categories.index_select(1, steps) != 0  # (B, T′, N)
    num_instances = present.shape[2]
    scale = boxes.new_tensor([width, height, width, height], dtype=torch.float32)
    corners = box_convert(boxes.index_select(1, steps).float() * scale, "cxcywh", "xyxy")
    # An empty slot may hold anything, NaN included; it is given an empty box and overwritten below.
    corners = torch.where(present[..., None], corners, 0.0).flatten(0, 2)  # (B·T′·N, 4)
    maps = feature_map.transpose(1, 2).flatten(0, 1).float()  # (B·T′, C, H, W)
    image = torch.arange(batch * num_steps, device=boxes.device).repeat_interleave(num_instances)
    rois = torch.cat([image[:, None].to(corners.dtype), corners], dim=1)
    bins = 3 if mode == "3" else 7
    pooled = roi_align(maps, rois, output_size=bins, spatial_scale=1.0, sampling_ratio=2, aligned=True)
    if mode == "7-max":
        pooled = pooled.amax(dim=(2, 3), keepdim=True)
    pooled = pooled.unflatten(0, (batch, num_steps, num_instances))
    result: Tensor = torch.where(present[..., None, None, None], pooled, 0.0)
    return result
