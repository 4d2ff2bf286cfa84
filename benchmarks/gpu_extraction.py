"""Part extraction of `benchmarks/gpu.py`: backbones from memory in every form, and from videos beside the decoders."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from backbones import FRAMES, backbone, flops_a_clip, views
from clips import write_videos
from extraction import decode_rate, end_to_end, make_config
from gpu_check import difference
from gpu_rows import Rows
from machine import median, peaks, repeated, tf32
from torch import Tensor, nn

from ifcar.extract.backbones.base import Backbone
from ifcar.extract.backbones.fold import channels_last, folded
from ifcar.extract.backbones.spec import INSTANCES

BATCH = {"i3d_r50": 64, "slowfast_r50": 32, "i3d_inception": 64}
SMALL_BATCH = 2  # clips: a CPU without bfloat16 of its own takes twenty times as long for it
MOST_SECONDS = 2.0  # of a batch; a form that takes longer is timed on fewer views
COMPILE_SECONDS = 60.0  # expected for one form


@dataclass(frozen=True)
class Form:
    """How a backbone runs.

    Args:
        precision: "fp32", "tf32" or "bf16".
        side_by_side: whether a place's channels lie side by side in memory.
        folds: whether normalisation is folded into convolutions.
        compiles: whether it goes through torch.compile.
        tries: whether cuDNN times its algorithms at first (`torch.backends.cudnn.benchmark`).
    """

    precision: str
    side_by_side: bool = True
    folds: bool = True
    compiles: bool = False
    tries: bool = False

    @property
    def name(self) -> str:
        """The form in words."""
        parts = [
            self.precision,
            "folded" if self.folds else "plain",
            "channels last" if self.side_by_side else "channels first",
        ]
        return ", ".join([*parts, *(["compiled"] if self.compiles else []), *(["cuDNN tries"] if self.tries else [])])

    @property
    def dtype(self) -> torch.dtype:
        """The type of weights and activations."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    def build(self, net: Backbone, device: str) -> nn.Module:
        """Return the backbone in this form."""
        form = (folded(net) if self.folds else copy.deepcopy(net)).to(device, self.dtype)
        if self.side_by_side:
            channels_last(form)
        return torch.compile(form) if self.compiles else form  # type: ignore[return-value]


PLAIN = Form("fp32", side_by_side=False, folds=False)
AS_EXTRACTED = (Form("bf16"), Form("fp32"), Form("tf32"))
MORE = (PLAIN, Form("bf16", side_by_side=False), Form("bf16", tries=True), Form("tf32", side_by_side=False))
COMPILED = (Form("bf16", compiles=True), Form("fp32", compiles=True))


def run(rows: Rows) -> None:
    """Measure: what `extract` does first, then other forms, and what has to be compiled last."""
    known = dict(rows.measure("peaks", partial(peaks, rows.device, small=rows.small)))
    crop = 16 if rows.small else 224
    names = ["i3d_r50"] if rows.small else list(FRAMES)
    workers = 1 if rows.small else os.cpu_count() or 1
    clips = 10 if rows.small else 2048
    rows.measure("videos", partial(make_videos, clips, 1 if rows.small else 12))
    for name in names:
        forms_of(name, AS_EXTRACTED, rows, crop, known)
        for precision in ("bf16", "fp32") if name == "i3d_r50" and not rows.small else ("bf16",):
            batch = SMALL_BATCH if rows.small else BATCH[name]
            config = make_config(rows.device, precision, batch, crop, clips, workers, name)
            if precision == "bf16":
                rows.measure(f"{name}, decoders alone", partial(decoders, config), expected=15)
            rows.measure(f"{name}, {precision}, end to end", partial(from_videos, config), expected=25)
    for name in names:
        forms_of(name, MORE if name == "i3d_r50" else MORE[1:2], rows, crop, known)
    if rows.device.startswith("cuda"):
        for name in names:
            forms_of(name, COMPILED[:1], rows, crop, known, expected=COMPILE_SECONDS)
        forms_of("i3d_r50", COMPILED[1:], rows, crop, known, expected=COMPILE_SECONDS)


def make_videos(clips: int, videos: int) -> dict[str, int]:
    """Write the folder of clips."""
    write_videos(Path("videos"), clips, videos)
    return {"clips": clips, "videos": videos}


def forms_of(
    name: str, forms: tuple[Form, ...], rows: Rows, crop: int, known: Mapping[str, float], *, expected: float = 5
) -> None:
    """Measure some forms of one backbone, each against the plain one's features of a few views."""
    if rows.left() < expected:
        rows.measure(f"{name}, {forms[0].name}", dict, expected=expected)
        return
    net = backbone(rows.device, name)
    pixels = views(rows.device, SMALL_BATCH if rows.small else BATCH[name], crop, FRAMES[name])
    few = net.normalise(pixels[:4])
    with torch.inference_mode():
        reference = net(few)[INSTANCES]
    flops = flops_a_clip(net, few[:1])
    for form in forms:
        measured = partial(time_form, form, net, pixels, reference, rows)
        rows.measure(
            f"{name}, {form.name}", lambda m=measured, f=form: m(flops, known.get(f.precision)), expected=expected
        )


def time_form(
    form: Form, net: Backbone, pixels: Tensor, reference: Tensor, rows: Rows, flops: float, peak: float | None
) -> dict[str, Any]:
    """Return the rate of a batch from memory, its share of the measured peak, and the error of the features."""
    torch.backends.cudnn.benchmark, device = form.tries, rows.device
    module = form.build(net, device)

    def batch(count: int) -> Callable[[], Tensor]:
        video = net.normalise(pixels[:count]).to(form.dtype)
        if not form.side_by_side:
            video = video.contiguous()
        return lambda: module(video)[INSTANCES]

    with torch.inference_mode(), tf32(form.precision == "tf32"):
        count = len(pixels)
        few = batch(count if form.compiles else len(reference))  # every size of batch would be compiled anew
        error = difference(few()[: len(reference)].float(), reference)
        if not form.compiles and count > len(reference):
            seconds = median(repeated(few, device, seconds=0, least=1))
            count = max(len(reference), min(count, int(len(reference) * MOST_SECONDS / seconds)))
        if device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats()
        least, box = (1, 0.0) if rows.small else (3, 0.6)
        seconds = median(repeated(batch(count), device, seconds=box, least=least))
    torch.backends.cudnn.benchmark = False
    return {
        "clips_per_sec": count / seconds,
        "views": count,
        "gflop_per_clip": flops / 1e9,
        "tflop_per_sec": count * flops / seconds / 1e12,
        "share_of_peak": count * flops / seconds / peak if peak else None,
        "relative_error": error,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if device.startswith("cuda") else None,
    }


def decoders(config: Any) -> dict[str, Any]:
    """Return the rate of the decoders alone."""
    return {"clips_per_sec": decode_rate(config), "decoders": config.workers, "clips": config.limit}


def from_videos(config: Any) -> dict[str, Any]:
    """Return what `extract` from videos takes, beside the backbone alone."""
    return {**end_to_end(config), "decoders": config.workers}
