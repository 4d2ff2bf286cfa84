"""Pictures of cached clips: the sampled frames, as the network saw them, with the boxes that it was given."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from ifcar.cache.reader import CacheReader
from ifcar.cache.schema import Category, Status
from ifcar.errors import CacheMismatchError, InputError, MissingDataError
from ifcar.extract.datasets.catalog import DATASETS
from ifcar.extract.decode import read_frames
from ifcar.extract.geometry import Crop
from ifcar.pipelines.folders import file_name, folder
from ifcar.pipelines.labels.kinds import kind_of
from ifcar.pipelines.pictures.fonts import codes_note, fit_fonts, write_codes

SUBJECT_COLOUR, OBJECT_COLOURS = "#e69f00", ("#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442")
SIDE = 224
logger = logging.getLogger(__name__)


def draw_clips(reader: CacheReader, clip_ids: Sequence[str], out: Path, data_root: Path | None = None) -> list[Path]:
    """Draw one PNG a clip: its T frames with boxes; subjects dashed and orange, objects in one colour a slot.

    Args:
        reader: the open cache.
        clip_ids: clips to draw; empty for the first ten that are extracted.
        out: folder for the pictures.
        data_root: the dataset's folder, when it is not at its default place. Without its videos, boxes alone are drawn,
            and a warning says why.

    Raises:
        InputError: the cache has no such clip, or none of them is extracted.
        MissingDataError, CacheMismatchError: the named folder is not there, or not what the cache was made from.
    """
    unknown = [c for c in clip_ids if c not in reader.clip_ids]
    if unknown:
        raise InputError(f"{reader.path}: no clip {unknown[0]!r}; `ifcar cache info` lists examples")
    done = reader.status()[:: reader.rows_per_clip] == Status.DONE
    extracted = [clip_id for clip_id, there in zip(reader.clip_ids, done, strict=True) if there]
    missing = [c for c in clip_ids if c not in extracted]
    if missing or not extracted:
        what = f"clip {missing[0]!r}" if missing else "no clip"
        raise InputError(
            f"{reader.path}: {what} is {'not ' if missing else ''}extracted, so there is nothing to draw; run "
            "`ifcar extract` again, with --retry-failed for failed clips"
        )
    try:
        sources = find_sources(reader, data_root)
    except (MissingDataError, CacheMismatchError) as error:
        if data_root is not None and (isinstance(error, CacheMismatchError) or not data_root.is_dir()):
            raise
        logger.warning("boxes alone are drawn, without pixels: %s", error)
        sources = {}
    out.mkdir(parents=True, exist_ok=True)
    labels = _labels(reader)
    paths = []
    undrawn: set[str] = set()
    for clip_id in clip_ids or extracted[:10]:
        number = reader.clip_ids.index(clip_id)
        paths.append(out / f"{file_name(clip_id)}.png")
        camera = reader.clips.cameras[number]
        title = f"{clip_id}{f', camera {camera}' if camera else ''}: {labels.get(clip_id, 'unlabelled')}"
        undrawn |= _draw(reader, number * reader.rows_per_clip, sources.get(clip_id), title, paths[-1])
    if undrawn:
        logger.warning("%s", codes_note(undrawn))
    return paths


def find_sources(reader: CacheReader, data_root: Path | None = None) -> dict[str, Path]:
    """Return the video or folder of frames of each clip, by clip id, whether or not the cache's backbone read pixels.

    Args:
        reader: the open cache.
        data_root: the dataset's folder, when it is not at its default place.

    Raises:
        MissingDataError, InputError: the dataset's files are not there or not usable.
        CacheMismatchError: they are not what the cache was made from, so boxes and pixels may not belong together.
    """
    identity = reader.identity["dataset"]
    dataset_type = DATASETS.get(str(identity["name"]))
    dataset = dataset_type(data_root or folder("data") / dataset_type.default_root)
    dataset.num_instances = reader.spec.num_instances
    if not dataset.root.is_dir():
        raise MissingDataError(f"{dataset.root}: no such folder; name the videos' folder with --data-root")
    listing = dataset.listing(needs_pixels=True)
    if listing.digest != identity.get("annotations"):
        raise CacheMismatchError(f"{dataset.root}: other annotations than those that {reader.path} was made from")
    return {clip.clip_id: clip.source for clip in listing.clips if clip.source is not None}


def view_frames(reader: CacheReader, row: int, source: Path, frames: Sequence[int], side: int) -> NDArray[np.uint8]:
    """Read frames of a cached view, cropped and mirrored as the network saw them.

    Args:
        reader: the open cache.
        row: the view's row.
        source: its video or folder of frames.
        frames: which of the T frames, from 0.
        side: S, of the result in pixels.

    Returns:
        (len(frames), S, S, 3) uint8 RGB.

    Raises:
        DecodeError: a frame cannot be read.
    """
    where = np.array([row])
    numbers = reader.read_rows("frame_indices", where)[0]
    crop = Crop(*(float(v) for v in reader.read_rows("crop", where)[0]))
    return read_frames(source, [int(numbers[t]) for t in frames], crop, side, bool(reader.read_rows("flip", where)[0]))


def instance_colour(slot: int, category: int) -> str:
    """Return the colour of an instance's box: one for all subjects, for objects one a slot."""
    return SUBJECT_COLOUR if category == Category.SUBJECT else OBJECT_COLOURS[slot % len(OBJECT_COLOURS)]


def _labels(reader: CacheReader) -> dict[str, str]:
    labels: dict[str, str] = {}
    for name in reader.protocol_names():
        for space in reader.protocol(name).spaces:
            if space.over == "clip":
                shown = kind_of(space).shown(space.targets, len(space.classes))
                for number in np.flatnonzero(shown.any(axis=1)):
                    names = [space.classes[k] for k in np.flatnonzero(shown[number])]
                    labels.setdefault(reader.clip_ids[number], ", ".join(names))
    return labels


def _draw(reader: CacheReader, row: int, source: Path | None, title: str, path: Path) -> set[str]:
    """Draw a row; return the characters of its title that no installed font has."""
    boxes, categories = reader.table("boxes")[row], reader.table("categories")[row]
    numbers = reader.table("frame_indices")[row].tolist()
    frames = None if source is None else view_frames(reader, row, source, range(len(numbers)), SIDE)
    columns = min(len(boxes), 8)
    rows = -(-len(boxes) // columns)
    figure = Figure(figsize=(1.9 * columns, 2.1 * rows + 0.4))
    axes = figure.subplots(rows, columns, squeeze=False)
    for t, axis in enumerate(axes.flat):
        axis.set_axis_off()
        if t >= len(boxes):
            continue
        blank = np.full((SIDE, SIDE, 3), 245, np.uint8)
        axis.imshow(blank if frames is None else frames[t], extent=(0, 1, 1, 0), aspect="equal")
        axis.set_title(f"frame {numbers[t] + 1}", fontsize=7, pad=2)
        for slot, (box, category) in enumerate(zip(boxes[t], categories[t], strict=True)):
            if category == Category.EMPTY:
                continue
            subject = category == Category.SUBJECT
            colour = instance_colour(slot, category)
            corner = (box[0] - box[2] / 2, box[1] - box[3] / 2)
            style = "--" if subject else "-"
            axis.add_patch(Rectangle(corner, box[2], box[3], fill=False, ec=colour, lw=1.6, ls=style))
            axis.text(
                corner[0] + 0.01,
                corner[1] + 0.01,
                str(slot),
                fontsize=6,
                color="white",
                va="top",
                bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.6},
            )
    about = "(dashed: hand or person; solid: object; number: slot)"
    figure.suptitle(f"{title}   {about}", fontsize=8, parse_math=False)  # a `$` in an id is a `$`
    undrawn = fit_fonts(figure)
    write_codes(figure, undrawn)
    figure.tight_layout(rect=(0, 0, 1, 0.98))
    figure.savefig(path, dpi=110)
    return undrawn
