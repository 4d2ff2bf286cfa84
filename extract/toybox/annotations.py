"""From a scene to Something-Else's annotation records, with a careful annotator's small faults."""

from __future__ import annotations

from typing import Any

import numpy as np

from ifcar.extract.toybox.scene import HEIGHT, WIDTH, Scene
from ifcar.extract.toybox.sprites import FloatArray

_JITTER_PIXELS = 1.2
_DROPPED = 0.025
"""Share of boxes that are missing."""
_SHORTENED = 0.3
"""Share of videos whose last one to three frames carry no record."""
_MIN_VISIBLE = 0.25
"""A box is given when at least this share of it lies inside the frame."""
_MAX_HIDDEN = 0.92
"""A box is given when a nearer instance's box covers no more than this share of it."""


def annotation_records(scene: Scene, video_id: str, seed: int, number: int) -> list[dict[str, Any]]:
    """Return one record a frame as annotations.json holds them; frame k (1-based) is named ID/000k.jpg."""
    rng = np.random.default_rng([seed, number, 3])
    exact = [track.boxes(scene.camera) for track in scene.tracks]
    given = [box + _jitter(rng, len(box)) for box in exact]
    num_missing = int(rng.integers(1, 4)) if rng.random() < _SHORTENED else 0
    dropped = rng.random((scene.num_frames, len(scene.tracks))) < _DROPPED
    records = []
    for frame in range(scene.num_frames - num_missing):
        labels = []
        for index, track in enumerate(scene.tracks):
            if dropped[frame, index] or not _is_seen(scene, exact, index, frame):
                continue
            slot = "hand" if track.slot < 0 else f"{track.slot:04d}"
            x1, y1, x2, y2 = (round(float(value), 2) for value in given[index][frame])
            labels.append(
                {
                    "box2d": {"x1": x1, "y1": y1, "x2": x2, "y2": y2},
                    "category": track.category,
                    "standard_category": slot,
                    "gt_annotation": f"object {'hand' if track.slot < 0 else track.slot}",
                }
            )
        records.append(
            {
                "name": f"{video_id}/{frame + 1:04d}.jpg",
                "labels": labels,
                "gt_placeholders": list(scene.placeholders),
                "nr_instances": len(labels),
            }
        )
    return records


def _jitter(rng: np.random.Generator, num_frames: int) -> FloatArray:
    """Return (F, 4) slowly varying errors of about one to three pixels."""
    noise = rng.normal(0.0, _JITTER_PIXELS, (num_frames, 4))
    for frame in range(1, num_frames):
        noise[frame] = 0.6 * noise[frame - 1] + 0.8 * noise[frame]
    return np.asarray(np.clip(noise, -3.0, 3.0))


def _is_seen(scene: Scene, boxes: list[FloatArray], index: int, frame: int) -> bool:
    box = boxes[index][frame]
    inside = _overlap(box, np.array([0.0, 0.0, WIDTH, HEIGHT])) >= _MIN_VISIBLE
    depth = scene.tracks[index].depth
    return inside and not any(
        track.depth > depth and _overlap(box, boxes[other][frame]) > _MAX_HIDDEN
        for other, track in enumerate(scene.tracks)
    )


def _overlap(box: FloatArray, cover: FloatArray) -> float:
    """Return the share of `box` that lies inside `cover`."""
    size = np.minimum(box[2:], cover[2:]) - np.maximum(box[:2], cover[:2])
    return float(np.prod(np.maximum(size, 0.0)) / np.prod(box[2:] - box[:2]))
