"""From a scene to pictures: table, clutter, instances in depth order, brightness."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import cv2
import numpy as np

from ifcar.extract.toybox.effects import apply_effect
from ifcar.extract.toybox.looks import shade
from ifcar.extract.toybox.scene import HEIGHT, WIDTH, Scene, Track
from ifcar.extract.toybox.sprites import CANVAS, Colour, FloatArray, Image, as_image, over

_MARGIN = 10
"""Pixels of table beyond each border, for camera shake."""
_TABLES: tuple[Colour, ...] = (
    (110, 150, 185),
    (85, 115, 145),
    (175, 180, 185),
    (120, 125, 125),
    (150, 165, 150),
    (165, 150, 130),
    (130, 150, 170),
    (100, 105, 120),
)
_WHITE: Colour = (255, 255, 255)
_WRIST = (CANVAS * 0.5, CANVAS * 0.93)


def render_frames(scene: Scene, seed: int, number: int, frames: Iterable[int] | None = None) -> Iterator[Image]:
    """Yield frames of `scene`, all by default, as (240, 320, 3) uint8 pictures, blue, green, red."""
    rng = np.random.default_rng([seed, number, 2])
    table = _draw_table(rng)
    ordered = sorted(scene.tracks, key=lambda track: track.depth)
    for frame in range(scene.num_frames) if frames is None else frames:
        shift = scene.camera[frame]
        x, y = _MARGIN - int(shift[0]), _MARGIN - int(shift[1])
        picture = as_image(table[y : y + HEIGHT, x : x + WIDTH].copy())
        for track in ordered:
            _draw_track(picture, track, frame, shift)
        yield as_image(cv2.convertScaleAbs(picture, alpha=float(scene.brightness[frame])))


def visible_masks(scene: Scene) -> Image:
    """Return how much of each pixel every instance covers, less what nearer ones and their arms hide.

    Returns:
        (F, M, 240, 320) uint8, 255 = all of it; an arm is no part of its hand. Where the picture is black nothing is
        seen.
    """
    masks = np.zeros((scene.num_frames, len(scene.tracks), HEIGHT, WIDTH), np.uint8)
    nearest_first = sorted(range(len(scene.tracks)), key=lambda k: scene.tracks[k].depth)[::-1]
    for frame in np.flatnonzero(scene.brightness > 0).tolist():
        shift = scene.camera[frame]
        clear = np.ones((HEIGHT, WIDTH), np.float32)
        for k in nearest_first:
            track = scene.tracks[k]
            placed = _placed(track, frame, shift)
            if placed is not None:
                image, region = placed
                alpha = image[..., 3] * np.float32(1 / 255)
                masks[frame, k][region] = np.rint(255 * alpha * clear[region])
                clear[region] *= 1 - alpha
            if track.out is not None:
                arm = np.zeros((HEIGHT, WIDTH), np.uint8)
                _draw_arm_of(track, arm, track.placement(frame, shift), _WHITE, _WHITE)
                clear *= cv2.bitwise_not(arm) * np.float32(1 / 255)
    return masks


def tight_boxes(masks: Image) -> FloatArray:
    """Return (…, 4) x1, y1, x2, y2 around what masks (…, h, w) cover by half or more; NaN where that is nothing."""
    boxes = np.full((*masks.shape[:-2], 4), np.nan)
    covered = np.asarray(masks > 127)
    for place in zip(*np.nonzero(covered.any(axis=(-2, -1))), strict=True):
        (top, bottom), (left, right) = (np.flatnonzero(covered[place].any(axis=axis))[[0, -1]] for axis in (1, 0))
        boxes[place] = left, top, right + 1, bottom + 1
    return boxes


def _draw_track(picture: Image, track: Track, frame: int, shift: FloatArray) -> None:
    if track.style is not None:
        colour = track.style.sleeve
        _draw_arm_of(track, picture, track.placement(frame, shift), colour, shade(colour, 0.6))
    placed = _placed(track, frame, shift)
    if placed is not None:
        image, region = placed
        part = picture[region]
        part[:] = over(image, as_image(np.ascontiguousarray(part)))


def _draw_arm_of(track: Track, picture: Image, matrix: FloatArray, colour: Colour, edge: Colour) -> None:
    if track.out is not None:
        _draw_arm(picture, matrix[:, :2] @ np.array(_WRIST) + matrix[:, 2], track.out, colour, edge)


def _placed(track: Track, frame: int, shift: FloatArray) -> tuple[Image, tuple[slice, slice]] | None:
    """Return a track's picture as it lies in a frame, and which rows and columns it fills; None outside of it."""
    matrix = track.placement(frame, shift)
    image = apply_effect(track.sprite, track.effect, track.progress, frame)
    corners = np.array([[0, 0], [CANVAS, 0], [0, CANVAS], [CANVAS, CANVAS]]) @ matrix[:, :2].T + matrix[:, 2]
    left, top = np.maximum(np.floor(corners.min(axis=0)), 0).astype(int)
    right, bottom = np.minimum(np.ceil(corners.max(axis=0)), (WIDTH, HEIGHT)).astype(int)
    if right - left < 2 or bottom - top < 2:
        return None
    local = matrix.copy()
    local[:, 2] -= (left, top)
    warped = as_image(cv2.warpAffine(image, local, (int(right - left), int(bottom - top))))
    return warped, (slice(top, bottom), slice(left, right))


def _draw_arm(picture: Image, wrist: FloatArray, out: FloatArray, colour: Colour, edge: Colour) -> None:
    """Draw a sleeve from the wrist along `out` past the border."""
    across = np.array([-out[1], out[0]])
    outline = np.array([wrist - across * 14, wrist + across * 14, wrist + out * 400 + across * 26])
    outline = np.concatenate([outline, [wrist + out * 400 - across * 26]])
    points = [np.round(outline * 16).astype(np.int32)]
    cv2.fillPoly(picture, points, colour, cv2.LINE_AA, 4)
    cv2.polylines(picture, points, True, edge, 2, cv2.LINE_AA, 4)


def _draw_table(rng: np.random.Generator) -> Image:
    """Draw a table top with grain, a light falling from one side, and clutter that nobody annotates."""
    width, height = WIDTH + 2 * _MARGIN, HEIGHT + 2 * _MARGIN
    base = np.array(_TABLES[int(rng.integers(len(_TABLES)))]) + rng.uniform(-15, 15, 3)
    grains = ((width // 40, height // 3), (width // 6, height // 6), (width // 2, height // 2))
    columns, rows = grains[int(rng.integers(len(grains)))]
    noise = rng.normal(0.0, 1.0, (rows, columns)).astype(np.float32)
    grain = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC) * rng.uniform(3, 8)
    slope = np.linspace(-1, 1, width)[None, :] * rng.uniform(-18, 18)
    fall = np.linspace(-1, 1, height)[:, None] * rng.uniform(-18, 18)
    table = np.clip(base + (grain + slope + fall)[..., None], 0, 255).astype(np.uint8)
    for _ in range(int(rng.integers(0, 4))):
        _draw_clutter(as_image(table), rng, base)
    return as_image(table)


def _draw_clutter(table: Image, rng: np.random.Generator, base: FloatArray) -> None:
    """Draw one flat thing in a muted colour: a sheet, a coaster or a pencil."""
    tone = np.clip(base + rng.uniform(-50, 50) + rng.uniform(-10, 10, 3), 0, 255)
    colour = (int(tone[0]), int(tone[1]), int(tone[2]))
    x, y = int(rng.uniform(20, WIDTH)), int(rng.uniform(20, HEIGHT))
    kind = int(rng.integers(3))
    if kind == 0:
        box = ((x, y), (rng.uniform(25, 60), rng.uniform(20, 50)), rng.uniform(0, 90))
        cv2.fillPoly(table, [np.round(cv2.boxPoints(box)).astype(np.int32)], colour, cv2.LINE_AA)
    elif kind == 1:
        cv2.circle(table, (x, y), int(rng.uniform(9, 22)), colour, -1, cv2.LINE_AA)
    else:
        end = (x + int(rng.uniform(-60, 60)), y + int(rng.uniform(-60, 60)))
        cv2.line(table, (x, y), end, colour, 5, cv2.LINE_AA)
