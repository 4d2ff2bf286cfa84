"""What ORN knows of an object: o = [b; u; c], its mask's code, its pooled features and its class (Eq. 6–8)."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ifcar.cache.arrays import CacheSpec
from ifcar.errors import CacheMismatchError
from ifcar.heads.contract import InstanceBatch
from ifcar.heads.dropout import Dropout
from ifcar.heads.orn_config import Feature, ORNConfig
from ifcar.heads.rows import RowNorm, add_up, keep_real, step_index

MOST_CELLS = 7  # a side, of a feature map whose cells are the objects
FULL, HALF = 255, 127  # a mask's numbers: wholly covered; at least half of a cell is more than this


class Objects(NamedTuple):
    """The objects of T′ steps.

    Args:
        features: o, (B, T′, N, D).
        facts: (B, T′, N, 3): 1 where an object is present and 0 elsewhere, the sum of u, and the sum of b and c.
        class_loss: (), Eq. 12–13; None where the config does not ask for it.
    """

    features: Tensor
    facts: Tensor
    class_loss: Tensor | None


def perceptron(in_dim: int, widths: Sequence[int], dropout: float, shape: tuple[int, ...]) -> nn.Sequential:
    """Return layers of Linear, dropout where there is any, and ReLU.

    Args:
        in_dim: of the input.
        widths: of the layers.
        dropout: rate.
        shape: of one clip's values, without their width.
    """
    layers = nn.Sequential()
    for number, width in enumerate(widths):
        layers.add_module(f"linear_{number}", nn.Linear(in_dim, width))
        if dropout:
            layers.add_module(f"dropout_{number}", Dropout(dropout, (*shape, width)))
        layers.add_module(f"relu_{number}", nn.ReLU())
        in_dim = width
    return layers


class InstanceObjects(nn.Module):
    """The instances of the cache, described by the features that the config names."""

    def __init__(self, config: ORNConfig, spec: CacheSpec, losses: Collection[str] = ()) -> None:
        super().__init__()
        self.config, self.num_steps, self.num_objects = config, spec.num_steps, spec.num_instances
        slots = (spec.num_steps, spec.num_instances)
        reads_classes = config.uses("class") or "object_class" in losses
        self.num_classes = len(spec.array("object_classes").classes) if reads_classes else 0
        if reads_classes and not self.num_classes:
            raise CacheMismatchError("head 'orn' needs the names of the classes of object_classes; this cache has none")
        normalised = config.uses("visual") and config.input_norm
        self.input_norm = RowNorm(spec.channels, affine=False) if normalised else None
        self.mask: nn.Sequential | None = None
        self.code: nn.Sequential | None = None
        if config.uses("shape"):
            pixels = math.prod(spec.shape("masks")[2:])
            self.mask = perceptron(pixels, [config.mask_dim] * 2, config.dropout, slots)
        if config.uses("class") and config.class_code == "mlp":
            self.code = perceptron(self.num_classes, [config.class_dim] * 2, config.dropout, slots)
        self.classes = nn.Linear(spec.channels, self.num_classes) if "object_class" in losses else None
        widths: dict[Feature, int] = {
            "visual": spec.channels,
            "shape": config.mask_dim,
            "class": self.num_classes if self.code is None else config.class_dim,
        }
        self.width = sum(widths[feature] for feature in config.features)

    def forward(self, batch: InstanceBatch, dtype: torch.dtype) -> Objects:
        """Describe the instances; with gate "presence", what empty slots hold changes nothing."""
        steps = step_index(batch.categories.shape[1], self.num_steps, batch.categories.device)
        present = batch.categories[:, steps] > 0
        real = present if self.config.gate == "presence" else torch.ones_like(present)
        parts: dict[Feature, Tensor] = {}
        if self.config.uses("visual"):
            parts["visual"] = self._visual(batch.array("instance_features"), real, dtype)
        if self.mask is not None:
            parts["shape"] = self._shape(self.mask, batch.array("masks")[:, steps], real, dtype)
        loss = None
        if self.num_classes:
            number = torch.where(real, batch.array("object_classes")[:, steps].long(), -1)
            if self.config.uses("class"):
                one_hot = self._one_hot(number, dtype)
                parts["class"] = one_hot if self.code is None else self.code(one_hot)
            if self.classes is not None:
                loss = self._class_loss(self.classes(parts["visual"]), number, present)
        order: tuple[Feature, ...] = ("shape", "visual", "class")
        if self.config.class_code == "mlp":
            order = ("visual", "shape", "class")
        described = {name: keep_real(parts[name], real) for name in order if name in parts}
        return Objects(torch.cat(list(described.values()), dim=-1), _facts(described, present), loss)

    def _visual(self, regions: Tensor, real: Tensor, dtype: torch.dtype) -> Tensor:
        """Return u, (B, T′, N, C), of (B, T′, N, C, P, P)."""
        pooled = regions.to(dtype).mean(dim=(-2, -1))
        if self.config.gate == "presence":
            pooled = torch.where(real.unsqueeze(-1), pooled, 0)
        return pooled if self.input_norm is None else self.input_norm(pooled, real)

    def _shape(self, layers: nn.Sequential, masks: Tensor, real: Tensor, dtype: torch.dtype) -> Tensor:
        """Return b, (B, T′, N, mask_dim), of (B, T′, N, h, w)."""
        cover = (masks > HALF).to(dtype) if self.config.binary_masks else masks.to(dtype) / FULL
        out: Tensor = layers(torch.where(real.unsqueeze(-1), cover.flatten(3), 0))
        return out

    def _one_hot(self, number: Tensor, dtype: torch.dtype) -> Tensor:
        """Return (…, classes) of the class numbers (…); all zeros for −1."""
        return (number.unsqueeze(-1) == torch.arange(self.num_classes, device=number.device)).to(dtype)

    def _class_loss(self, scores: Tensor, number: Tensor, present: Tensor) -> Tensor:
        """Return the cross entropy of the objects' classes; an object of no known class is no target."""
        log_shares = scores.log_softmax(-1)
        if self.config.class_reduction == "sum":
            real = keep_real(self._one_hot(number, log_shares.dtype), present)
            return -(log_shares * real).sum() / len(number)
        target = torch.where(present, number, 0).clamp(min=0)
        return -(log_shares * self._one_hot(target, log_shares.dtype)).sum(-1).mean()


class PixelObjects(nn.Module):
    """The cells of the feature map, averaged to at most 7 × 7 (14 × 14: cells of 2 × 2), described by their channels.

    All are present.
    """

    def __init__(self, config: ORNConfig, spec: CacheSpec) -> None:
        super().__init__()
        assert spec.grid_size is not None
        self.size = (min(spec.grid_size[0], MOST_CELLS), min(spec.grid_size[1], MOST_CELLS))
        self.num_steps, self.num_objects = spec.num_steps, self.size[0] * self.size[1]
        self.width = spec.channels
        self.input_norm = RowNorm(spec.channels, affine=False) if config.input_norm else None

    def forward(self, batch: InstanceBatch, dtype: torch.dtype) -> Objects:
        """Describe the cells of (B, T′, C, H, W)."""
        grid = batch.array("grid_features").to(dtype)
        cells = F.adaptive_avg_pool2d(grid.flatten(0, 1), self.size).flatten(2).transpose(1, 2)
        cells = cells.reshape(*grid.shape[:2], self.num_objects, self.width)  # (B, T′, N, C)
        if self.input_norm is not None:
            cells = self.input_norm(cells)
        return Objects(cells, _facts({"visual": cells}, torch.ones_like(cells[..., 0])), None)


def _facts(described: Mapping[Feature, Tensor], present: Tensor) -> Tensor:
    """Return `Objects.facts`."""
    any_part = next(iter(described.values()))
    sums = {name: part.sum(-1) for name, part in described.items()}
    zero = torch.zeros_like(any_part[..., 0])
    codes = add_up([zero, *(value for name, value in sums.items() if name != "visual")])
    return torch.stack([present.to(any_part.dtype), sums.get("visual", zero), codes], dim=-1)
