"""What a view shows: its frames and crop, and its instances in N slots, each array in the crop's own coordinates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ifcar.cache.arrays import MASKS, PICTURE_SIZES, ArraySpec
from ifcar.cache.schema import Category
from ifcar.errors import InputError
from ifcar.extract.geometry import Crop, boxes_to_crop, pictures_to_crop
from ifcar.extract.tracks import Tracks

BACKGROUND = "background"  # a class name
FULL_MASK = 255


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """One sampling of a clip.

    Args:
        frame_indices: (T,) int32 frame numbers of the source, from 0.
        crop: region of the frame.
        flip: mirrored.
        sampling_rate: frames of the source per sampled frame.
        augmented: drawn at random, for training only.
        arrays: what the instances are and where, by the name of the cache's array; boxes and categories among them.
    """

    frame_indices: NDArray[np.int32]
    crop: Crop
    flip: bool
    sampling_rate: float
    augmented: bool
    arrays: Mapping[str, NDArray[Any]]

    @property
    def boxes(self) -> NDArray[np.float32]:
        """(T, N, 4), (cx, cy, w, h) of the crop; zeros = empty."""
        return self.arrays["boxes"]

    @property
    def categories(self) -> NDArray[np.uint8]:
        """(T, N), values of `Category`."""
        return self.arrays["categories"]

    def row(self) -> dict[str, Any]:
        """Return all that a cache's row holds of the view, by array name; features and status are not of the view."""
        return {
            **self.arrays,
            "frame_indices": self.frame_indices,
            "crop": (self.crop.cx, self.crop.cy, self.crop.w, self.crop.h),
            "flip": self.flip,
            "sampling_rate": self.sampling_rate,
            "augmented": self.augmented,
        }


def fill_slots(
    tracks: Tracks,
    carried: Sequence[ArraySpec],
    num_instances: int,
    frame_size: tuple[int, int],
    crop: Crop,
    flip: bool,
) -> dict[str, NDArray[Any]]:
    """Put tracks into a view's instance slots.

    A slot is empty in every array where its track has no box, where the box lies outside of the crop, and where the
    crop cuts away all of a picture (a mask) that the track has there.

    Args:
        tracks: at most N, at the view's T frames.
        carried: the arrays that the tracks carry beside their boxes.
        num_instances: N.
        frame_size: (width, height) of the full frame in pixels.
        crop: the region that is seen.
        flip: mirrored after the crop.

    Returns:
        boxes (T, N, 4), categories (T, N) and the carried arrays, each (T, N, …).

    Raises:
        InputError: the tracks lack a carried array, or it has another type or shape.
    """
    num_frames, num_tracks = tracks.boxes.shape[:2]
    boxes = boxes_to_crop(tracks.boxes, frame_size, crop, flip)
    present = boxes.any(axis=-1)
    values: dict[str, NDArray[Any]] = {}
    for array in carried if num_tracks else ():
        given = _given(tracks, array)
        values[array.name] = given
        if array.is_picture:
            seen = values[array.name] = pictures_to_crop(given, crop, flip)
            present &= seen.any(axis=(2, 3)) | ~given.any(axis=(2, 3))
    arrays: dict[str, NDArray[Any]] = {
        "boxes": np.zeros((num_frames, num_instances, 4), np.float32),
        "categories": np.zeros((num_frames, num_instances), np.uint8),
    }
    values |= {"boxes": boxes, "categories": np.broadcast_to(tracks.categories, present.shape)}
    for array in carried:
        arrays[array.name] = _empty(array, num_frames, num_instances)
    for name, filled in arrays.items() if num_tracks else ():
        filled[:, :num_tracks][present] = values[name][present]
    return arrays


def has_background(array: ArraySpec) -> bool:
    """Return whether the array holds numbers of classes of which the first is the background."""
    return array.classes[:1] == (BACKGROUND,)


def with_background(
    tracks: Tracks, carried: Sequence[ArraySpec], num_instances: int, frame_size: tuple[int, int]
) -> Tracks:
    """Put into the last of N slots what the masks of a clip's tracks leave of the frame.

    It is an object over the whole frame, of class 0; absent in frames that the masks cover wholly. Source: released
    code of Baradel et al. 2018.

    Args:
        tracks: fewer than N, at the view's frames.
        carried: the arrays that they carry, masks among them.
        num_instances: N.
        frame_size: (width, height) of the full frame in pixels.

    Raises:
        InputError: the tracks lack a carried array, or it has another type or shape.
    """
    num_frames, num_tracks = tracks.boxes.shape[:2]
    places = (num_frames, num_instances - num_tracks)  # empty ones before the last
    values = {}
    for array in carried:
        given = _given(tracks, array) if num_tracks else None
        more = _empty(array, *places, sides=None if given is None else given.shape[2:])
        if array.name == MASKS.name:
            there = np.isfinite(tracks.boxes[..., 0])[..., None, None]
            more[:, -1] = FULL_MASK - (0 if given is None else np.where(there, given, 0).max(axis=1))
        elif has_background(array):
            more[:, -1] = 0
        values[array.name] = more if given is None else np.concatenate([given, more], axis=1)
    boxes = np.full((*places, 4), np.nan, np.float32)
    boxes[values[MASKS.name][:, -1].any(axis=(1, 2)), -1] = (0, 0, *frame_size)
    categories = np.broadcast_to(tracks.categories, (num_frames, num_tracks))
    return Tracks(
        frames=tracks.frames,
        boxes=np.concatenate([tracks.boxes, boxes], axis=1),
        categories=np.concatenate([categories, np.full(places, Category.OBJECT, np.uint8)], axis=1),
        values=values,
    )


def _empty(array: ArraySpec, *leading: int, sides: tuple[int, ...] | None = None) -> NDArray[Any]:
    """Return an array over frames and slots without anything in it, of the spec's own further axes or of these."""
    own = [axis if isinstance(axis, int) else PICTURE_SIZES[axis] for axis in array.axes[2:]]
    return np.full((*leading, *(own if sides is None else sides)), array.empty, np.dtype(array.dtype))


def _given(tracks: Tracks, array: ArraySpec) -> NDArray[Any]:
    """Return what the tracks carry of an array, (T, M, …); the sides of a picture are free."""
    if array.name not in tracks.values:
        raise InputError(f"the dataset lists the array {array.name!r} for its tracks, which do not carry it")
    given = tracks.values[array.name]
    expected = array.axes[2:]
    fits = given.ndim == 4 if array.is_picture else given.shape[2:] == expected
    if given.dtype != np.dtype(array.dtype) or given.shape[:2] != tracks.boxes.shape[:2] or not fits:
        raise InputError(
            f"tracks carry {array.name!r} as {given.dtype} {given.shape}; expected {array.dtype} "
            f"{(*tracks.boxes.shape[:2], *expected)}"
        )
    return given
