"""`mediapipe-hands`: hands by the palm detector of MediaPipe Hands, 2,016 anchors on 192 × 192 pixels.

Source: Zhang et al. 2020, "MediaPipe Hands: On-device Real-time Hand Tracking"; network and anchors: MediaPipe (Google,
Apache-2.0). It gives a palm: a square around it, the wrist and the knuckles. Differs: the box of the whole hand is the
upright square of 1.8 times the palm's side, moved by a quarter of it from the wrist towards the middle finger's
knuckle; on 35 hands of ten clips of Something-Else it overlaps annotated boxes by 0.66 on average, the palm by 0.34 and
MediaPipe's own square of 2.6 by 0.49. Weights: package @mediapipe/hands, fetched and never installed.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ifcar.extract.backbones.downloads import PackageFile
from ifcar.extract.datasets.detections import FrameDetections
from ifcar.extract.detectors.contract import BACKGROUND, DETECTORS, DetectorFamily, Picture
from ifcar.extract.detectors.suppression import suppressed
from ifcar.extract.detectors.tflite import PackedDetector, PackedNetwork, centres, resized, shares

NAME: Final = "mediapipe-hands"
NETWORK: Final = PackedNetwork(
    file=PackageFile(
        package="@mediapipe/hands",
        version="0.4.1675469240",
        sha256="bdd5be939c60cbd72a49f4b6141407683cf2a67263598e1a44757d70b3dfcb8a",
        member="package/hands_solution_packed_assets.data",
        member_sha256="bdce7b66bfc5b39ba86a47775c98e0b186fe73f8308c2279f852af4c89ffdf42",
    ),
    start=11,
    stop=2341291,
    sha256="2f25e740121983f68ffc05f99991d524dc0ea812134f6316a26125816941ee85",
    license="Apache-2.0 (Google, MediaPipe)",
)
PUBLISHED: Final = NETWORK.published(NAME)
_SIDE: Final = 192
_ANCHORS: Final = centres([(24, 2), (12, 6)])
_SCORES, _BOXES = "Identity_1", "Identity"
_WRIST, _MIDDLE_KNUCKLE = 0, 2
_PALM_OVERLAP: Final = 0.3  # above which two palms are one, as in MediaPipe
_HAND_SIDE, _HAND_SHIFT = 1.8, 0.25


class MediapipeHands(PackedDetector):
    """Hands, each an upright square around the palm and fingers."""

    classes = (BACKGROUND, "hand")

    network, published = NETWORK, PUBLISHED

    def found(self, picture: Picture) -> FrameDetections:
        """Return the hands of a picture."""
        pixels, scale, corner = _on_square(picture)
        scores = shares(self._network.run(pixels, _SCORES)[:, 0])
        likely = scores >= self._least_score
        if not likely.any():
            return FrameDetections.none()
        found = self._network.run(pixels, _BOXES)[likely].astype(np.float64).reshape(-1, 9, 2)
        sides = found[:, 1] / scale
        points = np.delete(found, 1, axis=1) + _SIDE * _ANCHORS[likely][:, None]  # the centre, then seven points
        points = (points - corner) / scale
        boxes = hand_boxes(points[:, 0], sides, points[:, 1:])
        palms = np.concatenate([points[:, 0] - sides / 2, points[:, 0] + sides / 2], axis=1)
        kept = suppressed(palms, scores[likely], np.ones(len(palms), np.int64), _PALM_OVERLAP)
        return FrameDetections.of(boxes[kept], scores[likely][kept], np.ones(len(kept), np.int16))


def hand_boxes(
    centre: NDArray[np.float64], sides: NDArray[np.float64], points: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the boxes of hands (n, 4), x1, y1, x2, y2.

    Args:
        centre: (n, 2) of the palms.
        sides: (n, 2), width and height of the palms.
        points: (n, 7, 2), the wrist first, the middle finger's knuckle third.
    """
    side = sides.max(axis=1, keepdims=True)
    along = points[:, _MIDDLE_KNUCKLE] - points[:, _WRIST]
    along = along / np.linalg.norm(along, axis=1, keepdims=True).clip(min=1e-6)
    middle = centre + _HAND_SHIFT * side * along
    return np.concatenate([middle - _HAND_SIDE * side / 2, middle + _HAND_SIDE * side / 2], axis=1)


def _on_square(picture: Picture) -> tuple[NDArray[np.float32], float, NDArray[np.float64]]:
    """Return a picture in the middle of a black square, its scale, and where its corner lies there."""
    height, width = picture.shape[:2]
    scale = _SIDE / max(height, width)
    inner = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (_SIDE - inner[0]) // 2, (_SIDE - inner[1]) // 2
    square = np.zeros((_SIDE, _SIDE, 3), np.uint8)
    square[top : top + inner[1], left : left + inner[0]] = resized(picture, *inner)
    return square.astype(np.float32) / np.float32(255), scale, np.array([left, top], np.float64)


DETECTORS.register(
    NAME,
    DetectorFamily(load=MediapipeHands, summary="hands, small and fast (MediaPipe's palms)", published=PUBLISHED),
    __name__,
)
