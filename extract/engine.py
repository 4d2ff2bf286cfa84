"""The extraction engine: worker processes decode ahead, the backbone runs, a thread writes finished blocks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ifcar.cache.schema import CacheSpec, Status, zeros_for_rows
from ifcar.cache.writer import CacheWriter
from ifcar.errors import InputError
from ifcar.extract.backbones.base import Backbone
from ifcar.extract.backbones.fold import folded
from ifcar.extract.datasets.contract import Clip
from ifcar.extract.decode import VideoInfo, probe, read_frames
from ifcar.extract.roi import PooledMode, roi_features
from ifcar.extract.tracks import Tracks
from ifcar.extract.views import View, ViewPolicy, plan_view

logger = logging.getLogger(__name__)
RowArrays = dict[str, NDArray[Any]]
MAX_BATCH, MAX_WORKERS = 4096, 256


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

    batch_size: int = 8
    num_workers: int = 1
    device: str = "cpu"
    precision: str = "fp32"
    compile: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.batch_size <= MAX_BATCH or not 0 <= self.num_workers <= MAX_WORKERS:
            raise InputError(
                f"batch size {self.batch_size} and workers {self.num_workers}: expected 1 to {MAX_BATCH} and 0 to "
                f"{MAX_WORKERS}"
            )
        if self.precision not in ("fp32", "bf16"):
            raise InputError(f"precision is {self.precision!r}; expected fp32 or bf16")


def choose_device(device: str | None) -> str:
    """Return the named device, or cuda where there is one, else cpu. Raises InputError when cuda is named in vain."""
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if chosen.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"--device {chosen}: torch sees no CUDA device; use --device cpu")
    return chosen


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoded:
    """One row's view with its pixels, or the reason why there are none.

    Args:
        row: the cache's row.
        view: the sampled view, when the source could be read.
        frames: (T, S, S, 3) uint8, when the backbone reads pixels.
        failure: one line, when the source could not be read.
    """

    row: int
    view: View | None = None
    frames: Tensor | None = None
    failure: str = ""


class ViewDataset(Dataset[Decoded]):
    """Row number → decoded view.

    Args:
        clips: the cache's clips, in order.
        tracks: gives a clip's boxes by its id.
        annotation_fps: the rate that annotated frame numbers count in.
        training: (num_clips,) True where some protocol trains on the clip.
        policy: how views are sampled.
        reads_pixels: False for backbone `none`.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        tracks: Callable[[str], Tracks],
        annotation_fps: float,
        training: NDArray[np.bool_],
        policy: ViewPolicy,
        *,
        reads_pixels: bool,
    ) -> None:
        self.clips, self.training, self.policy = clips, training, policy
        self.tracks, self.annotation_fps = tracks, annotation_fps
        self.reads_pixels = reads_pixels

    def __len__(self) -> int:
        return len(self.clips) * self.policy.num_views

    def __getitem__(self, row: int) -> Decoded:
        try:
            view = self.plan(row)
            frames = None
            if self.reads_pixels:
                source = _present(self.clips[row // self.policy.num_views].source)
                pixels = read_frames(source, view.frame_indices.tolist(), view.crop, self.policy.crop_size, view.flip)
                frames = torch.from_numpy(pixels)
        except (InputError, OSError) as error:
            return Decoded(row=row, failure=str(error))
        return Decoded(row=row, view=view, frames=frames)

    def plan(self, row: int) -> View:
        """Return a row's view without its pixels. Raises InputError when the source cannot be read."""
        number, view_number = divmod(row, self.policy.num_views)
        clip = self.clips[number]
        return plan_view(
            self.policy,
            clip.clip_id,
            self.tracks(clip.clip_id),
            self._video_info(clip),
            self.annotation_fps,
            view_number=view_number,
            is_training=bool(self.training[number]),
        )

    def _video_info(self, clip: Clip) -> VideoInfo:
        if self.reads_pixels:
            assert clip.source is not None
            return probe(clip.source)
        assert clip.frame_size is not None
        last = int(self.tracks(clip.clip_id).frames[-1])
        return VideoInfo(num_frames=last + 1, fps=None, width=clip.frame_size[0], height=clip.frame_size[1])


class FeatureExtractor:
    """Pixels and boxes to the cache's feature arrays.

    Args:
        backbone: loaded network, or None when no pixels are read.
        spec: the cache's dimensions.
        pooled: RoIAlign mode.
        options: device and precision.
    """

    def __init__(self, backbone: Backbone | None, spec: CacheSpec, pooled: PooledMode, options: EngineOptions) -> None:
        self.device = torch.device(options.device)
        self.backbone = backbone
        self.dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
        if backbone is not None:
            self.backbone = folded(backbone).to(self.device, self.dtype).to(memory_format=torch.channels_last_3d)
            if options.compile:
                self.backbone.compile()
        self.spec, self.pooled = spec, pooled

    @torch.inference_mode()
    def __call__(self, batch: Sequence[Decoded]) -> RowArrays:
        """Return the feature arrays of a batch of decoded views, each (len(batch), …) float16."""
        if self.backbone is None:
            return {}
        frames = torch.stack([_present(d.frames) for d in batch]).to(self.device)
        boxes = torch.stack([torch.from_numpy(_present(d.view).boxes) for d in batch]).to(self.device)
        categories = torch.stack([torch.from_numpy(_present(d.view).categories) for d in batch]).to(self.device)
        feature_map = self.backbone(self.backbone.normalise(frames).to(self.dtype)).float()  # (B, C, T′, H, W)
        out = {
            "instance_features": roi_features(feature_map, boxes, categories, self.pooled),
            "frame_features": feature_map.mean(dim=(3, 4)).transpose(1, 2),
        }
        if self.spec.grid_size is not None:
            out["grid_features"] = feature_map.transpose(1, 2)
        return {name: value.half().cpu().numpy() for name, value in out.items()}


def _present(value: Any) -> Any:
    assert value is not None
    return value


def extract_rows(
    writer: CacheWriter,
    views: ViewDataset,
    extractor: FeatureExtractor,
    options: EngineOptions,
    rows_of_block: Iterable[tuple[int, Sequence[int], RowArrays | None]],
    on_rows: Callable[[int, int], None],
) -> None:
    """Compute and commit blocks.

    A batch never crosses a block, so a block's bytes do not depend on where an earlier run stopped.

    Args:
        writer: the open cache.
        views: decodes rows.
        extractor: turns decoded views into features.
        options: batch size and workers.
        rows_of_block: (block, rows to compute, the block's arrays as far as they stand, or None) in order.
        on_rows: called with (rows just finished, how many of them failed).
    """
    plan = list(rows_of_block)
    order = [row for _, rows, _ in plan for row in rows]
    loader = DataLoader(
        views,
        sampler=order,
        batch_size=None,
        num_workers=options.num_workers,
        prefetch_factor=2 * options.batch_size if options.num_workers else None,
        multiprocessing_context="fork" if options.num_workers else None,
    )
    decoded = iter(loader)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer") as thread:
        writing: Future[None] | None = None
        for block, rows, arrays in plan:
            started = time.perf_counter()
            filled, failures = _compute_block(writer, block, rows, arrays, decoded, extractor, options, on_rows)
            if writing is not None:
                writing.result()
            writing = thread.submit(writer.write_block, block, filled, failures)
            logger.debug("block %d computed in %.1f s", block, time.perf_counter() - started)
        if writing is not None:
            writing.result()


def _compute_block(
    writer: CacheWriter,
    block: int,
    rows: Sequence[int],
    arrays: RowArrays | None,
    decoded: Iterator[Decoded],
    extractor: FeatureExtractor,
    options: EngineOptions,
    on_rows: Callable[[int, int], None],
) -> tuple[RowArrays, dict[int, str]]:
    """Compute one block's rows; return its arrays and the reasons of its failed rows."""
    first = writer.rows_of(block).start
    filled = zeros_for_rows(extractor.spec, len(writer.rows_of(block))) if arrays is None else arrays
    failures: dict[int, str] = {}
    batch: list[Decoded] = []
    for count in range(len(rows)):
        item = next(decoded)
        if item.failure:
            failures[item.row] = item.failure
            on_rows(1, 1)
        else:
            batch.append(item)
        if batch and (len(batch) == options.batch_size or count == len(rows) - 1):
            bad = _fill(filled, batch, extractor(batch), first)
            failures.update(bad)
            on_rows(len(batch), len(bad))
            batch = []
    for row in failures:
        for name in filled:
            filled[name][row - first] = 0
        filled["status"][row - first] = Status.FAILED
    return filled, failures


def _fill(filled: RowArrays, batch: Sequence[Decoded], features: RowArrays, first: int) -> dict[int, str]:
    """Put a batch's results into the block's arrays; return the rows whose features are not finite in float16."""
    bad: dict[int, str] = {}
    for place, item in enumerate(batch):
        view, i = _present(item.view), item.row - first
        filled["boxes"][i] = view.boxes
        filled["categories"][i] = view.categories
        filled["frame_indices"][i] = view.frame_indices
        filled["crop"][i] = (view.crop.cx, view.crop.cy, view.crop.w, view.crop.h)
        filled["flip"][i] = view.flip
        filled["sampling_rate"][i] = view.sampling_rate
        filled["augmented"][i] = view.augmented
        filled["status"][i] = Status.DONE
        for name, values in features.items():
            filled[name][i] = values[place]
        fault = fault_of_features(features, place)
        if fault:
            bad[item.row] = fault
    return bad


def fault_of_features(features: RowArrays, place: int) -> str:
    """Return why the features at this place of a batch cannot be used, or an empty string."""
    for name, values in features.items():
        if not np.isfinite(values[place]).all():
            return f"{name} leave the range of float16 (±65504) or are not finite; check the weights"
    return ""
