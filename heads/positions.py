"""The positions of a clip that a head attends over: places of the feature map, or bins of the instances' RoIs."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ifcar.cache.arrays import CacheSpec
from ifcar.errors import InputError
from ifcar.heads.contract import InstanceBatch
from ifcar.heads.rows import step_index

Features = Literal["grid", "instances"]


def read_arrays(features: Features) -> tuple[str, ...]:
    """Return the cache arrays that hold these positions."""
    return ("grid_features",) if features == "grid" else ("instance_features", "boxes", "categories")


def grouped_channels(spec: CacheSpec, num_groups: int) -> int:
    """Return C. Raises InputError when it is no multiple of `num_groups`."""
    if spec.channels % num_groups:
        raise InputError(
            f"num_groups is {num_groups}, but the cache has {spec.channels} channels; choose a divisor of them with "
            "--set num_groups=…"
        )
    return spec.channels


def read_positions(features: Features, batch: InstanceBatch, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return positions (B, P, C), zero where not real, and their mask (B, P), True = real.

    The order is step, row, column of the feature map, or step, slot, row, column of RoIs.
    """
    values = batch.array("grid_features" if features == "grid" else "instance_features")
    if features == "grid":
        positions = values.permute(0, 1, 3, 4, 2).flatten(1, 3)
        mask = torch.ones(positions.shape[:2], dtype=torch.bool, device=values.device)
    else:
        steps = step_index(batch.categories.shape[1], values.shape[1], values.device)
        real = batch.categories[:, steps] > 0  # (B, T′, N)
        values = torch.where(real[..., None, None, None], values, 0)
        positions = values.permute(0, 1, 2, 4, 5, 3).flatten(1, 4)
        mask = real.flatten(1).repeat_interleave(values.shape[4] * values.shape[5], dim=1)
    return positions.to(dtype, memory_format=torch.contiguous_format), mask
