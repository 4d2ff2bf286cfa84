"""Three cameras over one table: how each sees a recording.

"ego" zooms twice on the hands, shakes, and misses what lies elsewhere. "third-1" sees the whole table. "third-2" sees
it mirrored and in the dark, with something in the way. Shake, zoom, light and colours of each are its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ifcar.extract.toybox.activities import SECONDS, RecordingPlan
from ifcar.extract.toybox.encode import FRAMES_PER_SECOND
from ifcar.extract.toybox.motion import idle_hand
from ifcar.extract.toybox.render import render_frames
from ifcar.extract.toybox.scene import HEIGHT, WIDTH, Scene, changing_light, hand_tracks, plain_object, shaken_camera
from ifcar.extract.toybox.several import act_tracks
from ifcar.extract.toybox.sprites import FloatArray, Image, as_image

CAMERAS = ("ego", "third-1", "third-2")
"""View v000, v001 and v002."""
FILM_WIDTH, FILM_HEIGHT = 240, 180
NUM_FRAMES = SECONDS * FRAMES_PER_SECOND
_WIDE = FILM_WIDTH / WIDTH
_ZOOM = 2.0
_CORNERS = ((45.0, 40.0), (275.0, 40.0), (160.0, 30.0), (160.0, 205.0))
"""Where bystanders lie."""
_SCENE_STREAM, _CAMERA_STREAM = 12, 13


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What happens before the cameras.

    Args:
        scene: the table, with neither shake nor changes of light.
        acting: of each act the places in `scene.tracks` of its hands and objects.
    """

    scene: Scene
    acting: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Camera:
    """How a camera sees the table.

    Args:
        placements: (F, 2, 3) affine matrices from table to picture, both in pixels.
        light: (F,) factor on the picture.
        cast: (3,) factor on each colour.
        occluder: x1, y1, x2, y2 in the picture of what is in the way, or None.
    """

    placements: FloatArray
    light: FloatArray
    cast: FloatArray
    occluder: tuple[int, int, int, int] | None = None


def build_stage(plan: RecordingPlan, seed: int, *, acts: bool = True) -> Stage:
    """Lay out a recording: its acts, or an idle hand in their place, on a table where bystanders lie."""
    rng = np.random.default_rng([seed, plan.number, _SCENE_STREAM])
    style = [seed, plan.number, _SCENE_STREAM, 1]
    places = rng.permutation(_CORNERS)
    tracks = []
    for noun, place in zip(plan.bystanders, places, strict=False):
        tilt, longest = float(rng.uniform(-20, 20)), float(rng.uniform(38, 48))
        centre = np.tile(place + rng.uniform(-12, 12, 2), (NUM_FRAMES, 1))
        tracks.append(plain_object(noun, 0, tilt, longest, centre, depth=0))
    acting = []
    for number, act in enumerate(plan.acts if acts else ()):
        own = np.random.default_rng([seed, plan.number, _SCENE_STREAM, 2, number])
        first = len(tracks)
        tracks += act_tracks(act, NUM_FRAMES, len(tracks), own, np.random.default_rng(style))
        acting.append(tuple(range(first, len(tracks))))
    if not acts:
        tracks += hand_tracks(np.random.default_rng(style), [idle_hand(rng, np.linspace(0.0, 1.0, NUM_FRAMES))])
    still = np.zeros((NUM_FRAMES, 2))
    scene = Scene(tracks=tuple(tracks), placeholders=(), camera=still, brightness=np.ones(NUM_FRAMES))
    return Stage(scene=scene, acting=tuple(acting))


def camera_of(name: str, plan: RecordingPlan, stage: Stage, seed: int) -> Camera:
    """Return how a camera sees a stage; what it draws is of no other camera."""
    rng = np.random.default_rng([seed, plan.number, _CAMERA_STREAM, CAMERAS.index(name)])
    shake = shaken_camera(rng, NUM_FRAMES)
    light = rng.uniform(0.88, 1.12) * changing_light(rng, np.linspace(0.0, 1.0, NUM_FRAMES))
    cast = rng.uniform(0.92, 1.08, 3)
    if name == "ego":
        middle = _focus(plan, stage) + 1.5 * shake
        return Camera(placements=_placements(_ZOOM * _WIDE, middle), light=light, cast=cast)
    zoom = _WIDE * rng.uniform(0.95, 1.1)
    middle = np.array([WIDTH, HEIGHT]) / 2 + rng.uniform(-10, 10, 2) + 0.5 * shake
    if name == "third-1":
        return Camera(placements=_placements(zoom, middle), light=light, cast=cast)
    width, height = rng.integers((45, 50), (75, 95)).tolist()
    left, top = rng.integers(0, (FILM_WIDTH - width, FILM_HEIGHT - height)).tolist()
    return Camera(
        placements=_placements(zoom, middle, mirrored=True),
        light=0.55 * light,
        cast=cast,
        occluder=(left, top, left + width, top + height),
    )


def _focus(plan: RecordingPlan, stage: Stage) -> FloatArray:
    """Return (F, 2) where the person looks: at the hands that act, a little late, and never off the table."""
    looked = np.empty((NUM_FRAMES, 2))
    for act, places in zip(plan.acts, stage.acting, strict=True):
        hands = [stage.scene.tracks[k].centre for k in places if stage.scene.tracks[k].out is not None]
        span = slice(act.start_frame, act.stop_frame)
        looked[span] = np.mean(hands, axis=0)[span]
    half = np.array([FILM_WIDTH, FILM_HEIGHT]) / (2 * _ZOOM * _WIDE)
    looked = np.clip(looked, half * 0.8, np.array([WIDTH, HEIGHT]) - half * 0.8)
    for frame in range(1, NUM_FRAMES):
        looked[frame] = 0.7 * looked[frame - 1] + 0.3 * looked[frame]
    return looked


def _placements(zoom: float, middle: FloatArray, *, mirrored: bool = False) -> FloatArray:
    """Return (F, 2, 3) matrices that put `middle`, (F, 2) or (2,), into the middle of the picture."""
    linear = np.diag([-zoom if mirrored else zoom, zoom])
    offset = np.array([FILM_WIDTH, FILM_HEIGHT]) / 2 - np.broadcast_to(middle, (NUM_FRAMES, 2)) @ linear.T
    return np.concatenate([np.broadcast_to(linear, (NUM_FRAMES, 2, 2)), offset[..., None]], axis=2)


def film(camera: Camera, table: Sequence[Image], frames: Sequence[int]) -> list[Image]:
    """Return the pictures (180, 240, 3) that a camera takes of the table's pictures, which are of these frames."""
    pictures = []
    for frame, picture in zip(frames, table, strict=True):
        seen = cv2.warpAffine(
            picture,
            camera.placements[frame],
            (FILM_WIDTH, FILM_HEIGHT),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        levels = np.outer(np.arange(256), camera.light[frame] * camera.cast)[None]
        lit = as_image(cv2.LUT(seen, np.clip(np.rint(levels), 0, 255).astype(np.uint8)))
        if camera.occluder is not None:
            x1, y1, x2, y2 = camera.occluder
            lit[y1:y2, x1:x2] = 18
        pictures.append(lit)
    return pictures


def films_of(
    plan: RecordingPlan, seed: int, *, private: bool = False, frames: Sequence[int] = range(NUM_FRAMES)
) -> dict[str, list[Image]]:
    """Return the pictures that each camera takes of a recording.

    Args:
        plan: of the recording.
        seed: of the data set.
        private: only "ego" sees the acts; the others see the same table and an idle hand.
        frames: which of the recording.
    """
    shown = build_stage(plan, seed)
    table = list(render_frames(shown.scene, seed, plan.number, frames))
    others = table
    if private:
        others = list(render_frames(build_stage(plan, seed, acts=False).scene, seed, plan.number, frames))
    return {
        name: film(camera_of(name, plan, shown, seed), table if name == "ego" else others, frames) for name in CAMERAS
    }


def acting_boxes(name: str, plan: RecordingPlan, seed: int) -> FloatArray:
    """Return (F, 4) x1, y1, x2, y2 around the hands and objects that act, in a camera's picture and cut to it."""
    stage = build_stage(plan, seed)
    camera = camera_of(name, plan, stage, seed)
    around = np.empty((NUM_FRAMES, 4))
    for act, places in zip(plan.acts, stage.acting, strict=True):
        span = slice(act.start_frame, act.stop_frame)
        boxes = np.stack([stage.scene.tracks[k].boxes(stage.scene.camera) for k in places])[:, span]
        shown = (boxes[..., 2] > 0) & (boxes[..., 0] < WIDTH) & (boxes[..., 3] > 0) & (boxes[..., 1] < HEIGHT)
        low = np.where(shown[..., None], boxes[..., :2], np.inf).min(axis=0)
        high = np.where(shown[..., None], boxes[..., 2:], -np.inf).max(axis=0)
        around[span] = np.concatenate([low, high], axis=1)
    around = np.where(np.isfinite(around), around, 0.0)
    linear, offset = camera.placements[..., :2], camera.placements[..., 2]
    corners = np.stack([(linear @ around[:, k : k + 2, None])[..., 0] + offset for k in (0, 2)])
    size = np.array([FILM_WIDTH, FILM_HEIGHT])
    low, high = np.clip(corners.min(axis=0), 0, size), np.clip(corners.max(axis=0), 0, size)
    return np.concatenate([low, high], axis=1)
