"""RoIAlign on ramp images, by two independent routes, and against torchvision's kernel."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision.ops import box_convert, roi_align

from ifcar.errors import InputError
from ifcar.extract.roi import pooled_size, roi_features
from ifcar.extract.view_options import PooledMode

HEIGHT, WIDTH = 14, 12


def ramp(a: float, b: float, c: float) -> NDArray[np.float64]:
    """Value a + b·x + c·y at continuous map coordinates; cell i has its centre at i + 0.5."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH] + 0.5
    return a + b * x + c * y


def bilinear(image: NDArray[np.float64], x: float, y: float) -> float:
    """Sample at continuous coordinates, literally; coordinates beyond the outer centres take the border's value."""
    height, width = image.shape
    u, v = min(max(x - 0.5, 0.0), width - 1.0), min(max(y - 0.5, 0.0), height - 1.0)
    x0, y0 = min(math.floor(u), width - 2), min(math.floor(v), height - 2)
    dx, dy = u - x0, v - y0
    top = image[y0, x0] * (1 - dx) + image[y0, x0 + 1] * dx
    bottom = image[y0 + 1, x0] * (1 - dx) + image[y0 + 1, x0 + 1] * dx
    return float(top * (1 - dy) + bottom * dy)


def pool_by_loop(image: NDArray[np.float64], box: tuple[float, ...], bins: int) -> NDArray[np.float64]:
    cx, cy, w, h = box
    x1, y1 = (cx - w / 2) * WIDTH, (cy - h / 2) * HEIGHT
    bin_w, bin_h = w * WIDTH / bins, h * HEIGHT / bins
    result = np.zeros((bins, bins))
    for row in range(bins):
        for column in range(bins):
            samples = [
                bilinear(image, x1 + (column + sx) * bin_w, y1 + (row + sy) * bin_h)
                for sy in (0.25, 0.75)
                for sx in (0.25, 0.75)
            ]
            result[row, column] = sum(samples) / 4
    return result


def pool(image: NDArray[np.float64], box: tuple[float, ...], mode: PooledMode) -> NDArray[np.float32]:
    feature_map = torch.from_numpy(image).float()[None, None, None]
    boxes = torch.tensor(box)[None, None, None]
    return roi_features(feature_map, boxes, torch.ones(1, 1, 1, dtype=torch.uint8), mode)[0, 0, 0, 0].numpy()


BOXES = [(0.5, 0.5, 0.4, 0.3), (0.41, 0.62, 0.33, 0.21), (0.7, 0.3, 0.05, 0.04)]


@pytest.mark.parametrize("box", BOXES)
def test_linear_ramp_pools_to_the_value_at_each_bins_centre(box: tuple[float, ...]) -> None:
    pooled = pool(ramp(3.0, 0.7, -1.3), box, "3")
    cx, cy, w, h = box
    offsets = (np.arange(3) - 1) / 3
    x, y = (cx + offsets * w) * WIDTH, (cy + offsets * h) * HEIGHT
    np.testing.assert_allclose(pooled, 3.0 + 0.7 * x[None, :] - 1.3 * y[:, None], rtol=1e-4)


@pytest.mark.parametrize("box", [*BOXES, (0.1, 0.9, 0.2, 0.2), (0.5, 0.5, 1.0, 1.0)])
def test_any_image_pools_as_the_literal_sampling_loop(box: tuple[float, ...]) -> None:
    image = np.random.default_rng(0).normal(size=(HEIGHT, WIDTH))
    np.testing.assert_allclose(pool(image, box, "3"), pool_by_loop(image, box, 3), atol=1e-5)


def test_seven_max_is_the_maximum_over_seven_by_seven_bins() -> None:
    image = np.random.default_rng(1).normal(size=(HEIGHT, WIDTH))
    pooled = pool(image, BOXES[1], "7-max")
    assert pooled.shape == (1, 1)
    np.testing.assert_allclose(pooled, pool_by_loop(image, BOXES[1], 7).max(), atol=1e-5)


def test_each_step_takes_the_boxes_of_the_first_frame_of_its_window() -> None:
    generator = torch.Generator().manual_seed(0)
    feature_map = torch.rand((2, 5, 2, 7, 7), generator=generator)
    boxes = torch.rand((2, 8, 3, 4), generator=generator) * 0.4 + 0.3
    categories = torch.ones((2, 8, 3), dtype=torch.uint8)
    pooled = roi_features(feature_map, boxes, categories, "3")
    assert pooled.shape == (2, 2, 3, 5, 3, 3)
    alone = roi_features(feature_map[1:, :, 1:], boxes[1:, 4:5, 2:], categories[1:, 4:5, 2:], "3")
    torch.testing.assert_close(pooled[1, 1, 2], alone[0, 0, 0])


def test_empty_slots_are_zeros_whatever_they_hold() -> None:
    feature_map = torch.ones((1, 2, 1, 7, 7), dtype=torch.bfloat16)
    boxes = torch.tensor([[[[0.5, 0.5, 0.5, 0.5], [math.nan, math.inf, 3.0, -1.0]]]])
    for mode in ("3", "7-max"):
        pooled = roi_features(feature_map, boxes, torch.tensor([[[2, 0]]], dtype=torch.uint8), mode)
        assert pooled.dtype == torch.float32
        assert pooled.shape[-1] == pooled_size(mode)
        torch.testing.assert_close(pooled[0, 0, 0], torch.ones_like(pooled[0, 0, 0]))
        assert (pooled[0, 0, 1] == 0).all()


def test_memory_layout_of_the_map_does_not_matter() -> None:
    feature_map = torch.rand((2, 4, 3, 7, 7), generator=torch.Generator().manual_seed(0))
    boxes, categories = torch.full((2, 3, 2, 4), 0.5), torch.ones((2, 3, 2))
    torch.testing.assert_close(
        roi_features(feature_map.contiguous(memory_format=torch.channels_last_3d), boxes, categories, "3"),
        roi_features(feature_map, boxes, categories, "3"),
    )


def test_shapes_that_do_not_fit_are_one_line_errors() -> None:
    feature_map, boxes = torch.zeros((1, 2, 2, 7, 7)), torch.zeros((1, 4, 3, 4))
    for bad_boxes, bad_categories in (
        (boxes, torch.zeros((1, 4, 2))),
        (boxes[:, :3], torch.zeros((1, 3, 3))),
        (boxes.expand(2, -1, -1, -1), torch.zeros((2, 4, 3))),
    ):
        with pytest.raises(InputError):
            roi_features(feature_map, bad_boxes, bad_categories, "3")


@pytest.mark.parametrize("bins", [3, 7])
def test_boxes_anywhere_pool_as_torchvisions_roi_align(bins: int) -> None:
    """Boxes inside, across and beyond the map's edge, thin ones and ones of no size."""
    generator = torch.Generator().manual_seed(3)
    feature_map = torch.randn((4, 6, 2, 9, 13), generator=generator)
    boxes = torch.rand((4, 4, 5, 4), generator=generator) * 2 - 0.5
    boxes[..., 2:] = boxes[..., 2:].abs() * torch.tensor([0.0, 0.01, 0.3, 1.0, 2.0])[:, None]
    pooled = roi_features(feature_map, boxes, torch.ones((4, 4, 5)), "3" if bins == 3 else "7-max")
    scale = torch.tensor([13.0, 9.0, 13.0, 9.0])
    for step, frame in enumerate((0, 2)):
        corners = box_convert(boxes[:, frame] * scale, "cxcywh", "xyxy")
        expected = roi_align(feature_map[:, :, step], list(corners), bins, sampling_ratio=2, aligned=True)
        if bins == 7:
            expected = expected.amax(dim=(2, 3), keepdim=True)
        torch.testing.assert_close(pooled[:, step], expected.unflatten(0, (4, 5)), atol=1e-5, rtol=1e-5)
