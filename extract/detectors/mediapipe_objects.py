"""`mediapipe-objects`: 23 classes of Open Images by MediaPipe Objectron's SSD-MobileNetV2 on 300 × 300 pixels.

Source: Liu et al. 2016, "SSD: Single Shot MultiBox Detector"; Sandler et al. 2018 (MobileNetV2); network and anchors:
MediaPipe (Google, Apache-2.0). 1,917 anchors: six square grids, whose boxes grow from 0.2 to 0.95 of the picture's side
at aspects 1, 2, 1/2, 3 and 1/3, and one more of aspect 1 between two grids' sizes. Its scores are low, and TensorFlow
Lite's own runtime gives the same ones: a person who fills a picture gets 0.47. Weights: package
@mediapipe/objectron, fetched and never installed.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ifcar.extract.backbones.downloads import PackageFile
from ifcar.extract.datasets.detections import FrameDetections
from ifcar.extract.detectors.contract import BACKGROUND, DETECTORS, DetectorFamily, DetectorRequest, Picture
from ifcar.extract.detectors.tflite import PackedDetector, PackedNetwork, centres, resized, shares

NAME: Final = "mediapipe-objects"
CLASSES: Final = (
    BACKGROUND,
    *("bicycle", "boot", "laptop", "person", "chair", "cattle", "desk", "cat", "computer mouse", "computer monitor"),
    *("box", "mug", "coffee cup", "stationary bicycle", "table", "bottle", "high heels", "vehicle", "footwear", "dog"),
    *("book", "camera", "car"),
)
NETWORK: Final = PackedNetwork(
    file=PackageFile(
        package="@mediapipe/objectron",
        version="0.4.1675468480",
        sha256="fc3e37b326b05e8f596099c90b3e0931b05a56cd3160b9ac450b621794bac94c",
        member="package/objectron_solution_packed_assets.data",
        member_sha256="470986ca5df183f41698da6de74b027d838fe289d77b5ab094497d350bee664e",
    ),
    start=184,
    stop=9987912,
    sha256="d0a5255bf8c4f5a0bc4240741a76c41d5e939f7655078f945f50ab53a9375da6",
    license="Apache-2.0 (Google, MediaPipe), trained on Open Images",
)
PUBLISHED: Final = NETWORK.published(NAME)
_SIDE: Final = 300
_GRIDS: Final = (19, 10, 5, 3, 2, 1)
_SCALES: Final = (0.2, 0.95)
_ASPECTS: Final = (1.0, 2.0, 0.5, 3.0, 0.3333)
_LOWEST: Final = ((0.1, 1.0), (0.2, 2.0), (0.2, 0.5))  # (scale, aspect) of the anchors of the finest grid
_STEPS: Final = np.array([10.0, 10.0, 5.0, 5.0])  # by which y, x, height and width are divided
_SCORES, _BOXES = "raw_outputs/class_predictions", "raw_outputs/box_encodings"


def anchors() -> NDArray[np.float64]:
    """Return the anchors (1917, 4): centre x and y, width and height in shares of the picture."""
    shapes: list[list[tuple[float, float]]] = []
    low, high = _SCALES
    scales = [low + (high - low) * grid / (len(_GRIDS) - 1) for grid in range(len(_GRIDS))] + [1.0]
    for grid in range(len(_GRIDS)):
        own = [(scales[grid], aspect) for aspect in _ASPECTS]
        shapes.append([*own, (math.sqrt(scales[grid] * scales[grid + 1]), 1.0)] if grid else list(_LOWEST))
    sides = [
        np.tile([(s * math.sqrt(a), s / math.sqrt(a)) for s, a in own], (side * side, 1))
        for side, own in zip(_GRIDS, shapes, strict=True)
    ]
    middle = centres([(side, len(own)) for side, own in zip(_GRIDS, shapes, strict=True)])
    return np.concatenate([middle, np.concatenate(sides)], axis=1)


class MediapipeObjects(PackedDetector):
    """Boxes of 23 classes."""

    classes = CLASSES

    network, published = NETWORK, PUBLISHED

    def __init__(self, request: DetectorRequest) -> None:
        super().__init__(request)
        self._anchors = anchors()

    def found(self, picture: Picture) -> FrameDetections:
        """Return the objects of a picture."""
        height, width = picture.shape[:2]
        pixels = resized(picture, _SIDE, _SIDE).astype(np.float32) / 127.5 - 1
        scores = shares(self._network.run(pixels, _SCORES))
        scores[:, 0] = 0
        anchor, number = np.nonzero(scores >= self._least_score)
        if not len(anchor):
            return FrameDetections.none()
        found = self._network.run(pixels, _BOXES)[anchor].astype(np.float64) / _STEPS
        own = self._anchors[anchor]
        middle = found[:, 1::-1] * own[:, 2:] + own[:, :2]
        sides = np.exp(found[:, :1:-1].clip(max=10)) * own[:, 2:]
        boxes = np.concatenate([middle - sides / 2, middle + sides / 2], axis=1) * [width, height, width, height]
        return FrameDetections.of(boxes, scores[anchor, number], number)


DETECTORS.register(
    NAME,
    DetectorFamily(
        load=MediapipeObjects,
        summary=f"persons and {len(CLASSES) - 2} classes of objects, small and fast (MediaPipe's SSD-MobileNetV2)",
        published=PUBLISHED,
        scores=(0.2, 0.35, 0.4),
    ),
    __name__,
)
