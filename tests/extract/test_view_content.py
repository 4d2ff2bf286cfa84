"""What tracks carry beside boxes: through selection, crop and mirror into a view's slots, against literal loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ifcar.cache.arrays import MASKS, ArraySpec, object_classes
from ifcar.errors import InputError
from ifcar.extract.datasets.contract import Clip
from ifcar.extract.frame_clock import FrameClock
from ifcar.extract.geometry import FULL_FRAME, Crop, boxes_to_crop, pictures_to_crop, random_crop
from ifcar.extract.picture_source import VideoInfo
from ifcar.extract.track_store import TrackStore
from ifcar.extract.tracks import Tracks
from ifcar.extract.view_content import fill_slots, with_background
from ifcar.extract.views import ViewPolicy, plan_view

CLASSES = object_classes(["hand", "cup", "box"])
SCORES = ArraySpec(name="scores", axes=("T", "N", 2), dtype="float32", role="layout", empty=-7)
SIZE = (20, 16)


def random_tracks(rng: np.random.Generator, num_frames: int = 5, num_tracks: int = 4) -> Tracks:
    """Tracks with gaps; each mask is the pixels whose centres lie in the box, of a frame of 20 × 16."""
    corners = rng.integers(0, (12, 9), (num_frames, num_tracks, 2))
    sides = rng.integers(2, 9, (num_frames, num_tracks, 2))
    boxes = np.concatenate([corners, corners + sides], -1).astype(np.float32)
    masks = np.zeros((num_frames, num_tracks, SIZE[1], SIZE[0]), np.uint8)
    for f in range(num_frames):
        for m in range(num_tracks):
            (x1, y1), (x2, y2) = corners[f, m], corners[f, m] + sides[f, m]
            masks[f, m, y1:y2, x1:x2] = 255
    boxes[rng.random((num_frames, num_tracks)) < 0.25] = np.nan
    return Tracks(
        frames=np.arange(num_frames) * 2,
        boxes=boxes,
        categories=rng.integers(1, 3, num_tracks).astype(np.uint8),
        values={
            "masks": masks,
            "object_classes": rng.integers(0, 3, (num_frames, num_tracks)).astype(np.int16),
            "scores": rng.random((num_frames, num_tracks, 2)).astype(np.float32),
        },
    )


def literal_picture(picture: NDArray[np.uint8], crop: Crop, flip: bool) -> NDArray[np.uint8]:
    """The mean coverage of every cell of the crop, one overlap of a cell and a picture element after another."""
    rows, columns = picture.shape
    out = np.zeros((28, 28))
    for i in range(28):
        for j in range(28):
            top = crop.cy - crop.h / 2 + crop.h * i / 28
            left = crop.cx - crop.w / 2 + crop.w * j / 28
            total = 0.0
            for y in range(rows):
                high = min(top + crop.h / 28, (y + 1) / rows) - max(top, y / rows)
                for x in range(columns) if high > 0 else ():
                    wide = min(left + crop.w / 28, (x + 1) / columns) - max(left, x / columns)
                    total += picture[y, x] * high * max(wide, 0.0)
            out[i, 27 - j if flip else j] = total * 28 * 28 / (crop.w * crop.h)
    return np.rint(out).astype(np.uint8)


@pytest.mark.parametrize("seed", range(4))
def test_a_mask_is_averaged_by_area_over_the_cells_of_the_crop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 256, (9 + 13 * seed, 31 - 6 * seed)).astype(np.uint8)
    crop, flip = random_crop(rng, min_scale=0.2), bool(seed % 2)
    np.testing.assert_array_equal(pictures_to_crop(picture, crop, flip), literal_picture(picture, crop, flip))


@pytest.mark.parametrize("flip", [False, True])
def test_a_mask_covers_the_area_and_the_middle_of_its_box(flip: bool) -> None:
    """Boxes and masks go through the same crop: a filled rectangle keeps its box's area and centre."""
    crop = Crop(0.45, 0.55, 0.5, 0.6)
    box = (5, 6, 12, 11)
    picture = np.zeros((16, 20), np.uint8)
    picture[box[1] : box[3], box[0] : box[2]] = 255
    share = pictures_to_crop(picture, crop, flip) / 255
    cx, cy, w, h = boxes_to_crop(box, SIZE, crop, flip)
    places = (np.arange(28) + 0.5) / 28
    assert share.mean() == pytest.approx(w * h, abs=1e-3)
    assert (share.sum(0) * places).sum() / share.sum() == pytest.approx(cx, abs=1e-3)
    assert (share.sum(1) * places).sum() / share.sum() == pytest.approx(cy, abs=1e-3)


def literal_slots(tracks: Tracks, num_instances: int, crop: Crop, flip: bool) -> dict[str, NDArray[Any]]:
    num_frames, num_tracks = tracks.boxes.shape[:2]
    out: dict[str, NDArray[Any]] = {
        "boxes": np.zeros((num_frames, num_instances, 4), np.float32),
        "categories": np.zeros((num_frames, num_instances), np.uint8),
        "masks": np.zeros((num_frames, num_instances, 28, 28), np.uint8),
        "object_classes": np.full((num_frames, num_instances), -1, np.int16),
        "scores": np.full((num_frames, num_instances, 2), -7, np.float32),
    }
    for t in range(num_frames):
        for n in range(num_tracks):
            box = boxes_to_crop(tracks.boxes[t, n], SIZE, crop, flip)
            mask = literal_picture(tracks.values["masks"][t, n], crop, flip)
            if not box.any() or not mask.any():
                continue
            out["boxes"][t, n], out["categories"][t, n], out["masks"][t, n] = box, tracks.categories[n], mask
            for name in ("object_classes", "scores"):
                out[name][t, n] = tracks.values[name][t, n]
    return out


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_slots_hold_what_a_literal_loop_puts_there(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tracks, crop, flip = random_tracks(rng), random_crop(rng, min_scale=0.3), bool(seed % 2)
    found = fill_slots(tracks, (MASKS, CLASSES, SCORES), 6, SIZE, crop, flip)
    expected = literal_slots(tracks, 6, crop, flip)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-6, err_msg=name)
        assert found[name].dtype == values.dtype


def test_a_mask_emptied_by_the_crop_is_an_empty_slot_and_one_that_was_never_there_is_not() -> None:
    boxes = np.array([[[0, 0, 20, 16]] * 3], np.float32)
    masks = np.zeros((1, 3, 16, 20), np.uint8)
    masks[0, 0, 1:3, 1:3] = masks[0, 1, 7:9, 9:11] = 255  # the first in a corner, the second in the middle
    tracks = Tracks(
        frames=np.zeros(1, np.int64),
        boxes=boxes,
        categories=np.array([1, 2, 2], np.uint8),
        values={"masks": masks, "object_classes": np.array([[0, 1, 2]], np.int16)},
    )
    middle = Crop(0.5, 0.5, 0.5, 0.5)
    found = fill_slots(tracks, (MASKS, CLASSES), 3, SIZE, middle, False)
    assert found["categories"].tolist() == [[0, 2, 2]] and found["object_classes"].tolist() == [[-1, 1, 2]]
    assert not found["boxes"][0, 0].any() and found["boxes"][0, 1:].any(-1).all()
    assert found["masks"].any((2, 3)).tolist() == [[False, True, False]]
    whole = fill_slots(tracks, (MASKS, CLASSES), 3, SIZE, FULL_FRAME, False)
    assert whole["categories"].tolist() == [[1, 2, 2]]


def test_values_are_selected_with_their_boxes() -> None:
    tracks = random_tracks(np.random.default_rng(5))
    marked = tracks.boxes.copy()
    marked[..., 0] = np.where(np.isfinite(marked[..., 0]), tracks.values["scores"][..., 0], np.nan)
    tracks = Tracks(frames=tracks.frames, boxes=marked, categories=tracks.categories, values=tracks.values)
    chosen = tracks.keep(3).at(np.array([8, 3, 0, 4]))
    assert chosen.boxes.shape == (4, 3, 4) and np.isnan(chosen.boxes[1]).all()
    for name in tracks.values:
        assert chosen.values[name].shape[:2] == (4, 3) and not chosen.values[name][1].any()
    there = np.isfinite(chosen.boxes[..., 0])
    np.testing.assert_array_equal(chosen.values["scores"][..., 0][there], chosen.boxes[..., 0][there])


def test_a_view_shows_what_its_tracks_carry_at_its_frames_in_its_crop() -> None:
    tracks = random_tracks(np.random.default_rng(1), num_frames=12)
    policy = ViewPolicy(frames=3, instances=2, augmented_views=1, flip=True)
    video = VideoInfo(clock=FrameClock(num_frames=24, fps=None), width=SIZE[0], height=SIZE[1])
    view = plan_view(
        policy,
        Clip(clip_id="7", source=None, frame_size=None),
        tracks,
        video,
        None,
        view_number=1,
        carried=(MASKS, CLASSES, SCORES),
    )
    seen = tracks.keep(2).at(view.frame_indices.astype(np.int64))
    for name, values in literal_slots(seen, 2, view.crop, view.flip).items():
        np.testing.assert_allclose(view.arrays[name], values, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(("num_tracks", "instances"), [(4, 4), (2, 6), (0, 2)])
def test_background_is_in_the_last_slot_what_the_kept_masks_leave_of_the_frame(num_tracks: int, instances: int) -> None:
    classes = object_classes(["background", "hand", "cup"])
    tracks = random_tracks(np.random.default_rng(3), num_frames=12, num_tracks=num_tracks)
    policy = ViewPolicy(frames=3, instances=instances, background=True, augmented_views=1, flip=True)
    video = VideoInfo(clock=FrameClock(num_frames=24, fps=None), width=SIZE[0], height=SIZE[1])
    clip, carried = Clip(clip_id="7", source=None, frame_size=None), (MASKS, classes, SCORES)
    view = plan_view(policy, clip, tracks, video, None, view_number=1, carried=carried)
    kept = tracks.keep(instances - 1).at(view.frame_indices.astype(np.int64))
    for name, values in literal_slots(kept, instances, view.crop, view.flip).items():
        np.testing.assert_allclose(view.arrays[name][:, :-1], values[:, :-1], atol=1e-6, err_msg=name)
    for t in range(3):
        left = np.full((SIZE[1], SIZE[0]), 255, np.uint8)
        for box, mask in zip(kept.boxes[t], kept.values["masks"][t], strict=True):
            if np.isfinite(box[0]):
                left[mask > 0] = 0
        np.testing.assert_array_equal(view.arrays["masks"][t, -1], literal_picture(left, view.crop, view.flip))
    assert (view.arrays["object_classes"][:, -1] == 0).all() and (view.categories[:, -1] == 2).all()
    assert (view.arrays["scores"][:, -1] == SCORES.empty).all()
    np.testing.assert_allclose(
        view.boxes[:, -1], [boxes_to_crop((0, 0, *SIZE), SIZE, view.crop, view.flip)] * 3, atol=1e-6
    )


def test_background_is_absent_where_masks_cover_the_frame() -> None:
    tracks = Tracks(
        frames=np.zeros(1, np.int64),
        boxes=np.array([[[0, 0, *SIZE]]], np.float32),
        categories=np.array([2], np.uint8),
        values={"masks": np.full((1, 1, 4, 4), 255, np.uint8)},
    )
    found = fill_slots(with_background(tracks, (MASKS,), 3, SIZE), (MASKS,), 3, SIZE, FULL_FRAME, False)
    assert found["categories"].tolist() == [[2, 0, 0]] and not found["masks"][0, 1:].any()


def test_tracks_come_back_from_the_store_with_all_they_carry() -> None:
    store = TrackStore()
    rng = np.random.default_rng(2)
    kept = {str(n): random_tracks(rng, num_frames=n + 1, num_tracks=n) for n in (3, 0, 1)}
    for clip_id, tracks in kept.items():
        store.add(clip_id, tracks)
    for clip_id, tracks in kept.items():
        found = store.get(clip_id)
        np.testing.assert_array_equal(found.boxes, tracks.boxes)
        assert found.values.keys() == tracks.values.keys()
        for name, values in tracks.values.items():
            np.testing.assert_array_equal(found.values[name], values)
            assert found.values[name].dtype == values.dtype
    bare = Tracks(frames=np.zeros(0, np.int64), boxes=np.zeros((0, 0, 4), np.float32), categories=np.zeros(0, np.uint8))
    with pytest.raises(InputError, match="'9': its tracks carry"):
        store.add("9", bare)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "lists the array 'object_classes' for its tracks, which do not carry it"),
        ({"object_classes": np.zeros((5, 4), np.int64)}, "int64 .5, 4.; expected int16 .5, 4."),
        ({"object_classes": np.zeros((5, 1), np.int16)}, "int16 .5, 1.; expected int16 .5, 4."),
    ],
)
def test_tracks_that_carry_something_else_than_their_dataset_lists_are_refused(
    values: dict[str, NDArray[Any]], message: str
) -> None:
    tracks = random_tracks(np.random.default_rng(0))
    bad = Tracks(frames=tracks.frames, boxes=tracks.boxes, categories=tracks.categories, values=values)
    with pytest.raises(InputError, match=message):
        fill_slots(bad, (CLASSES,), 4, SIZE, FULL_FRAME, False)
