"""The picture of a clip: its sampled frames side by side, and its boxes as an overlay."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ifcar.cache.reader import CacheReader
from ifcar.cache.schema import Category
from ifcar.counts import count_of
from ifcar.extract.decode import probe
from ifcar.extract.limits import DecodeError
from ifcar.pipelines.pictures.clips import instance_colour, view_frames
from ifcar.pipelines.report.views import CachedViews

MOST_FRAMES = 8
COLUMNS = 4
CELL_WIDTH, CELL_GAP = 160, 3  # pixels
SHORTEST, TALLEST = 90, 240  # pixels
JPEG_QUALITY = 80
CLIPS_AT_ONCE = 256
MARGIN_COLOUR, BLANK_COLOUR = "#c3c9cf", "#eceff1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """A box of the overlay, in pixels of the strip."""

    x: float
    y: float
    width: float
    height: float
    slot: int
    subject: bool
    colour: str


@dataclass(frozen=True, kw_only=True, slots=True)
class FramePlace:
    """Where one sampled frame lies in the strip, in pixels, and its number in the video, from 1."""

    x: int
    y: int
    number: int


@dataclass(frozen=True, kw_only=True)
class Strip:
    """One clip's picture.

    Args:
        width: of the strip in pixels.
        height: of the strip in pixels.
        cell_width: of a frame in pixels.
        cell_height: of a frame in pixels.
        cells: one a frame.
        boxes: of all frames.
        jpeg: address of the frames' picture, a data URI at first, or empty: then only the boxes are drawn.
        alt: what it shows, in words.
    """

    width: int
    height: int
    cell_width: int
    cell_height: int
    cells: Sequence[FramePlace]
    boxes: Sequence[Box]
    jpeg: str
    alt: str


def make_strip(views: CachedViews, clip_id: str) -> Strip | None:
    """Return a clip's picture; None where the cache has no view of it."""
    row = views.rows.get(clip_id)
    if row is None:
        return None
    seen = views.batch(("boxes", "categories", "frame_indices", "crop"), [clip_id])
    boxes, categories, numbers, crop = (array[0].numpy() for array in seen.arrays.values())
    frames = _shown_frames(len(boxes))
    source = views.sources.get(clip_id)
    pixels, height = None, CELL_WIDTH
    if source is not None:
        pixels, height = _read_pixels(views.reader, row, source, frames, crop)
    return lay_out([int(numbers[t]) + 1 for t in frames], boxes[frames], categories[frames], pixels, height)


def plain_strips(views: CachedViews, clip_ids: Sequence[str]) -> dict[str, Strip]:
    """Return strips without pixels, by id, of the clips that have a view; many are read at a time."""
    known = [clip_id for clip_id in clip_ids if clip_id in views.rows]
    strips = {}
    for start in range(0, len(known), CLIPS_AT_ONCE):
        ids = known[start : start + CLIPS_AT_ONCE]
        seen = views.batch(("boxes", "categories", "frame_indices"), ids)
        boxes, categories, numbers = (array.numpy() for array in seen.arrays.values())
        frames = _shown_frames(boxes.shape[1])
        for clip_id, own, kinds, at in zip(ids, boxes, categories, numbers, strict=True):
            strips[clip_id] = lay_out((at[frames] + 1).tolist(), own[frames], kinds[frames], None, CELL_WIDTH)
    return strips


def _shown_frames(num_frames: int) -> NDArray[np.int64]:
    """Return which of a view's frames are shown, at even distances."""
    return np.unique(np.linspace(0, num_frames - 1, min(num_frames, MOST_FRAMES)).round().astype(np.int64))


def lay_out(
    numbers: Sequence[int],
    boxes: NDArray[np.float32],
    categories: NDArray[np.uint8],
    pixels: Sequence[Image.Image] | None,
    cell_height: int,
    *,
    margin: float = 0.0,
) -> Strip:
    """Return frames side by side.

    Args:
        numbers: n, of the frames, from 1.
        boxes: (n, N, 4) cx, cy, w, h in shares of the picture.
        categories: (n, N).
        pixels: the n pictures, or None.
        cell_height: of a frame in pixels, see `cell_height`.
        margin: what is shown around each picture, in shares of its sides.
    """
    columns = min(COLUMNS, len(numbers))
    cells = [
        FramePlace(
            x=place % columns * (CELL_WIDTH + CELL_GAP), y=place // columns * (cell_height + CELL_GAP), number=number
        )
        for place, number in enumerate(numbers)
    ]
    width = columns * (CELL_WIDTH + CELL_GAP) - CELL_GAP
    height = -(-len(numbers) // columns) * (cell_height + CELL_GAP) - CELL_GAP
    share = 1 / (1 + 2 * margin)
    inner = np.array([0.5, 0.5, 0, 0]) * (1 - share) + boxes * share  # in shares of the cell
    drawn = pixels
    if pixels is None and margin:  # where a picture ends shows on one alone
        drawn = [Image.new("RGB", (CELL_WIDTH, cell_height), BLANK_COLOUR)] * len(cells)
    return Strip(
        width=width,
        height=height,
        cell_width=CELL_WIDTH,
        cell_height=cell_height,
        cells=cells,
        boxes=[
            box
            for cell, own, kinds in zip(cells, inner, categories, strict=True)
            for box in _boxes(own, kinds, cell, cell_height)
        ],
        jpeg="" if drawn is None else _sheet(drawn, cells, width, height, cell_height, share),
        alt=_words(cells, categories, has_pixels=pixels is not None),
    )


def cell_height(width: float, height: float) -> int:
    """Return how high a frame of these proportions is drawn."""
    return int(np.clip(round(CELL_WIDTH * height / width), SHORTEST, TALLEST))


def _read_pixels(
    reader: CacheReader, row: int, source: Path, frames: NDArray[np.int64], crop: NDArray[np.float32]
) -> tuple[list[Image.Image] | None, int]:
    """Return the frames in the video's own proportions and their height; (None, …) where they cannot be read."""
    try:
        info = probe(source)
        squares = view_frames(reader, row, source, frames.tolist(), max(CELL_WIDTH, TALLEST))
    except DecodeError:
        return None, CELL_WIDTH
    height = cell_height(float(crop[2]) * info.width, float(crop[3]) * info.height)
    return [Image.fromarray(square) for square in squares], height


def _sheet(
    pixels: Sequence[Image.Image],
    cells: Sequence[FramePlace],
    width: int,
    height: int,
    cell_height: int,
    share: float,
) -> str:
    """Return the strip's pictures, each as this share of its cell's sides, in the middle of it."""
    sheet = Image.new("RGB", (width, height), "white")
    size = (round(CELL_WIDTH * share), round(cell_height * share))
    for picture, cell in zip(pixels, cells, strict=True):
        corner = (cell.x + (CELL_WIDTH - size[0]) // 2, cell.y + (cell_height - size[1]) // 2)
        if share < 1:
            sheet.paste(MARGIN_COLOUR, (cell.x, cell.y, cell.x + CELL_WIDTH, cell.y + cell_height))
        sheet.paste(picture.resize(size, Image.Resampling.LANCZOS), corner)
    out = io.BytesIO()
    sheet.save(out, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()


def _boxes(boxes: NDArray[np.float32], categories: NDArray[np.uint8], cell: FramePlace, cell_height: int) -> list[Box]:
    return [
        Box(
            x=round(cell.x + float(cx - w / 2) * CELL_WIDTH, 1),
            y=round(cell.y + float(cy - h / 2) * cell_height, 1),
            width=round(float(w) * CELL_WIDTH, 1),
            height=round(float(h) * cell_height, 1),
            slot=slot,
            subject=bool(category == Category.SUBJECT),
            colour=instance_colour(slot, int(category)),
        )
        for slot, ((cx, cy, w, h), category) in enumerate(zip(boxes, categories, strict=True))
        if category != Category.EMPTY
    ]


def _words(cells: Sequence[FramePlace], categories: NDArray[np.uint8], *, has_pixels: bool) -> str:
    counts = [
        int((categories == category).any(axis=0).sum()) for category in (int(Category.SUBJECT), int(Category.OBJECT))
    ]
    subjects = count_of(counts[0], "hand or person", "hands or persons")
    objects = count_of(counts[1], "object")
    numbers = ", ".join(str(cell.number) for cell in cells)
    what = "Sampled frames with boxes" if has_pixels else "Boxes of the sampled frames, without pixels"
    return f"{what}: frames {numbers}; {subjects}, {objects}."
