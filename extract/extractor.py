"""From decoded views to features: a backbone on a device."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor

from ifcar.cache.arrays import CacheSpec, RowArrays
from ifcar.config_fields import check_fields
from ifcar.errors import InputError, is_out_of_memory
from ifcar.extract.backbones.base import Backbone
from ifcar.extract.backbones.fold import channels_last, folded
from ifcar.extract.decoded_views import Decoded
from ifcar.extract.limits import BATCH_SIZES, WORKERS
from ifcar.extract.roi import arrays_of_maps, pooled_with
from ifcar.extract.view_options import PooledMode

logger = logging.getLogger(__name__)
ALL_EXPONENT_BITS = np.uint16(0x7C00)  # in float16 those of infinities and NaN, and of nothing else


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineOptions:
    """How fast, not what: nothing here but `precision` changes a feature by more than rounding.

    Args:
        batch_size: views per forward pass.
        num_workers: decoding processes; 0 decodes in the main process.
        device: where the backbone runs.
        precision: of the backbone's weights and activations, "fp32" or "bf16".
        compile: run the backbone through torch.compile, which takes minutes to begin with.
    """

    batch_size: Annotated[int, BATCH_SIZES] = 8
    num_workers: Annotated[int, WORKERS] = 1
    device: str = "cpu"
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False

    def __post_init__(self) -> None:
        check_fields(self)


class FeatureExtractor:
    """Pixels and boxes to the cache's feature arrays.

    Args:
        backbone: loaded network, or None where nothing is read.
        spec: the cache's dimensions.
        pooled: how instances are pooled.
        options: device and precision.

    Attributes:
        views_at_once: views that go through the network together, at most; halved when they do not fit in memory.
    """

    def __init__(self, backbone: Backbone | None, spec: CacheSpec, pooled: PooledMode, options: EngineOptions) -> None:
        self.device = torch.device(options.device)
        self.backbone = backbone
        self.dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
        if backbone is not None:
            self.backbone = channels_last(folded(backbone).to(self.device, self.dtype))
            if options.compile:
                self.backbone.compile()
        self.spec, self.pooled = spec, pooled
        self.views_at_once = options.batch_size

    def __call__(self, batch: Sequence[Decoded]) -> RowArrays:
        """Return the feature arrays of a batch of decoded views, each (len(batch), …) float16.

        A batch that does not fit in the device's memory is halved, and so are those after it.

        Raises:
            InputError: a single view does not fit.
        """
        return self.begin(batch)()

    def begin(self, batch: Sequence[Decoded]) -> Callable[[], RowArrays]:
        """Give a batch to the device, and return what waits for its features; see `__call__`."""
        parts: list[dict[str, Tensor]] = []
        done = 0
        while self.backbone is not None and done < len(batch):
            part = batch[done : done + self.views_at_once]
            try:
                parts.append(self._features(part))
                done += len(part)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if len(part) == 1:
                    raise InputError(
                        f"one view does not fit in the memory of {self.device}; take fewer --frames, a smaller --crop, "
                        "or --device cpu"
                    ) from error
                self.views_at_once = len(part) // 2
                logger.warning("%d views at once do not fit in memory; going on with %d", len(part), self.views_at_once)
        ready = None
        if parts and self.device.type == "cuda":
            ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
            ready.record()

        def features() -> RowArrays:
            if ready is not None:
                ready.synchronize()
            return {
                name: np.concatenate([part[name].numpy() for part in parts]) for name in (parts[0] if parts else ())
            }

        return features

    @torch.inference_mode()
    def _features(self, batch: Sequence[Decoded]) -> dict[str, Tensor]:
        """Return features in main memory, where a GPU may still have to write them."""
        assert self.backbone is not None
        inputs = self._sent([present(d.inputs) for d in batch])
        of_view = {
            name: self._sent([torch.from_numpy(present(d.view).arrays[name]) for d in batch])
            for name in pooled_with(self.pooled)
        }
        maps = self.backbone.checked(self.backbone(self.backbone.normalise(inputs).to(self.dtype)))
        out = arrays_of_maps(maps, of_view, self.pooled, self.spec.names("feature"), self.spec.grid_size)
        return {name: self._fetched(value.half()) for name, value in out.items()}

    def _sent(self, values: Sequence[Tensor]) -> Tensor:
        """Return values as one tensor on the device, which nothing waits for."""
        on_gpu = self.device.type == "cuda"
        stacked = torch.empty((len(values), *values[0].shape), dtype=values[0].dtype, pin_memory=on_gpu)
        return torch.stack(list(values), out=stacked).to(self.device, non_blocking=True)

    def _fetched(self, value: Tensor) -> Tensor:
        if self.device.type != "cuda":
            return value
        return torch.empty(value.shape, dtype=value.dtype, pin_memory=True).copy_(value, non_blocking=True)


def present(value: Any) -> Any:
    """Return a value that is there."""
    assert value is not None
    return value


def fault_of_features(features: RowArrays, place: int) -> str:
    """Return why the features at this place of a batch cannot be used, or an empty string."""
    for name, values in features.items():
        if ((values[place].view(np.uint16) & ALL_EXPONENT_BITS) == ALL_EXPONENT_BITS).any():  # far faster than isfinite
            return f"{name} leave the range of float16 (±65504) or are not finite; check the weights"
    return ""
