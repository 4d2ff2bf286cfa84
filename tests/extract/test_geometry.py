"""Worked numbers of the box and crop conventions, and pixels against boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from ifcar.errors import InputError
from ifcar.extract.decode import read_frames
from ifcar.extract.geometry import FULL_FRAME, Crop, boxes_to_crop, center_crop, random_crop

FRAME = (320, 240)
CENTRE = center_crop(FRAME, 224 / 256)


def cxcywh_to_xyxy(boxes: ArrayLike, width: float, height: float) -> NDArray[np.float64]:
    """Return normalised boxes as (x1, y1, x2, y2) in pixels of the resized crop."""
    values = np.asarray(boxes, dtype=np.float64)
    centre, half = values[..., :2], values[..., 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=-1) * np.array([width, height] * 2)


def test_center_crop_of_the_worked_example_is_210_pixels_square() -> None:
    assert CENTRE.pixel_box(FRAME) == pytest.approx((55, 15, 265, 225))


@pytest.mark.parametrize(("flip", "expected"), [(False, (0.75, 0.25, 0.5, 0.5)), (True, (0.25, 0.25, 0.5, 0.5))])
def test_worked_example_of_the_module(flip: bool, expected: tuple[float, ...]) -> None:
    box = boxes_to_crop([160, 15, 265, 120], FRAME, CENTRE, flip)
    assert box.dtype == np.float32
    np.testing.assert_allclose(box, expected, atol=1e-6)


def test_normalised_box_comes_back_as_pixels_of_the_resized_crop() -> None:
    np.testing.assert_allclose(cxcywh_to_xyxy([0.75, 0.25, 0.5, 0.5], 224, 224), [112, 0, 224, 112])


def test_full_frame_round_trip() -> None:
    boxes = np.array([[[10, 20, 110, 220], [0, 0, 320, 240]]], dtype=np.float64)
    np.testing.assert_allclose(cxcywh_to_xyxy(boxes_to_crop(boxes, FRAME, FULL_FRAME, False), *FRAME), boxes, atol=1e-4)


def test_box_past_the_border_is_clipped() -> None:
    box = boxes_to_crop([-20, -5, 160, 400], FRAME, FULL_FRAME, False)
    np.testing.assert_allclose(box, [0.25, 0.5, 0.5, 1.0], atol=1e-6)


@pytest.mark.parametrize(
    "pixels",
    [
        pytest.param([np.nan] * 4, id="absent"),
        pytest.param([10, np.nan, 50, 60], id="half absent"),
        pytest.param([0, 15, 55, 225], id="touches the crop from outside"),
        pytest.param([-90, 30, -10, 60], id="outside the frame"),
        pytest.param([100, 100, 100, 150], id="no width"),
        pytest.param([150, 100, 100, 150], id="inverted"),
    ],
)
@pytest.mark.parametrize("flip", [False, True])
def test_box_without_area_is_all_zeros(pixels: list[float], flip: bool) -> None:
    assert not boxes_to_crop(pixels, FRAME, CENTRE, flip).any()


def test_bad_arguments_are_one_line_errors() -> None:
    for call in (
        lambda: Crop(0.1, 0.5, 0.5, 0.5),
        lambda: Crop(0.5, 0.5, 0.0, 0.5),
        lambda: Crop(float("nan"), 0.5, 0.5, 0.5),
        lambda: center_crop(FRAME, 1.2),
        lambda: random_crop(np.random.default_rng(0), min_scale=0.0),
        lambda: boxes_to_crop([1, 2, 3], FRAME, CENTRE, False),
        lambda: boxes_to_crop([1, 2, 3, 4], (0, 240), CENTRE, False),
    ):
        with pytest.raises(InputError, match="expected") as caught:
            call()
        assert "\n" not in str(caught.value)


def test_random_crops_stay_inside_and_cover_the_range() -> None:
    rng = np.random.default_rng(0)
    crops = [random_crop(rng) for _ in range(500)]
    areas = np.array([crop.w * crop.h for crop in crops])
    aspects = np.array([crop.w / crop.h for crop in crops])
    assert areas.min() >= 0.7**2 - 1e-9
    assert areas.min() < 0.55 and areas.max() > 0.9
    assert aspects.min() >= 1 / 1.1 - 1e-9 and aspects.max() <= 1.1 + 1e-9
    assert min(crop.cx - crop.w / 2 for crop in crops) >= -1e-9
    assert max(crop.cy + crop.h / 2 for crop in crops) <= 1 + 1e-9


def test_same_seed_draws_the_same_crop() -> None:
    assert random_crop(np.random.default_rng(3)) == random_crop(np.random.default_rng(3))


@pytest.mark.parametrize("seed", range(8))
def test_pixels_and_boxes_move_together(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x1, y1 = rng.integers(90, 140), rng.integers(60, 100)
    x2, y2 = x1 + rng.integers(40, 80), y1 + rng.integers(30, 60)
    frame = np.full((240, 320, 3), 20, dtype=np.uint8)
    frame[y1:y2, x1:x2] = 230
    Image.fromarray(frame).save(tmp_path / "0001.png")
    crop, flip = random_crop(rng), bool(seed % 2)

    seen = read_frames(tmp_path, [0], crop, 224, flip)[0, :, :, 0] > 125
    expected = cxcywh_to_xyxy(boxes_to_crop([x1, y1, x2, y2], FRAME, crop, flip), 224, 224)

    columns, rows = np.flatnonzero(seen.any(axis=0)), np.flatnonzero(seen.any(axis=1))
    found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    np.testing.assert_allclose(found, expected, atol=1.0)
