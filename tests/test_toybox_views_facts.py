"""What must show on toybox-views, on two seeds, from colours and change in a grid of cells and loudness of bands."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ifcar.cache.arrays import CacheSpec
from ifcar.cache.joining import join_caches
from ifcar.cache.protocols import LabelSpace, ProtocolTable
from ifcar.cache.schema import Provenance, Split, Status
from ifcar.cache.segments import Stream
from ifcar.cache.writer import CacheWriter
from ifcar.extract.audio import SAMPLE_RATE
from ifcar.extract.log_mel import PATCH_SAMPLES, log_mel
from ifcar.extract.toybox.activities import ACTIVITIES, RecordingPlan, plan_recording
from ifcar.extract.toybox.cameras import FILM_HEIGHT, FILM_WIDTH, acting_boxes, films_of
from ifcar.extract.toybox.sounds import recording_sound
from ifcar.pipelines.feed.batches import open_batches
from ifcar.pipelines.fit import fit
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.runs.resolve import make_run_config
from ifcar.pipelines.runs.schedule import ScheduleConfig
from ifcar.pipelines.runs.trained import open_trained

pytestmark = pytest.mark.slow
RECORDINGS, WINDOWS, STEPS, SIDE, CAMERAS = 30, 4, 8, 4, ("ego", "third-1")
SHOWN = np.arange(0, 24, 3)  # frames of a window


def cells_of(pictures: list[np.ndarray], start: int) -> np.ndarray:
    """Return (T′, 6, 4, 4): colours, and how much they change from the frame before."""
    small = [cv2.resize(p, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32) / 64 for p in pictures]
    change = [
        cv2.resize(cv2.absdiff(pictures[k], pictures[max(k - 1, 0)]), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        for k in start + SHOWN
    ]
    steps = [
        np.concatenate([small[k], c.astype(np.float32) / 16], -1) for k, c in zip(start + SHOWN, change, strict=True)
    ]
    return np.stack(steps).transpose(0, 3, 1, 2)


def bands_of(sound: np.ndarray, start: int) -> np.ndarray:
    """Return (T′, 64, 1, 1) the log-mel around each step, a mean over its time."""
    padded = np.pad(sound, PATCH_SAMPLES)
    begins = PATCH_SAMPLES // 2 + (start + SHOWN) * SAMPLE_RATE // 12
    return np.stack([log_mel(padded[b : b + PATCH_SAMPLES]).mean(0) for b in begins])[:, :, None, None]


def write_cache(path: Path, plans: list[RecordingPlan], maps: dict[str, list[np.ndarray]]) -> Path:
    """Write a cache whose clips are the windows of each camera."""
    channels, side = next(iter(maps.values()))[0].shape[1:3]
    spec = CacheSpec.standard(
        num_frames=STEPS, num_steps=STEPS, num_instances=1, channels=channels, grid_size=(side, side)
    )
    clips = [(camera, place) for camera in maps for place in range(len(plans) * WINDOWS)]
    own = [plans[place // WINDOWS] for _, place in clips]
    activity = np.array([list(ACTIVITIES).index(plan.activity) for plan in own], np.int16)
    table = ProtocolTable(
        name="split-2",
        spaces=(LabelSpace(name="activity", kind="single", classes=tuple(ACTIVITIES), targets=activity),),
        split=np.array([Split.TRAIN if plan.is_train else Split.TEST for plan in own], np.uint8),
        groups=np.array([plan.number for plan in own], np.int32),
        group_names=tuple(plan.video_id for plan in plans),
        group_kind="recording",
    )
    writer = CacheWriter.create(
        path,
        spec=spec,
        provenance=Provenance(identity={"dataset": {"name": "made"}, "backbone": {"name": path.stem}}),
        clip_ids=[f"{camera} {place}" for camera, place in clips],
        segments=[f"{place}" for _, place in clips],
        cameras=[camera for camera, _ in clips],
        num_views=1,
        protocols=[table],
    )
    found = np.stack([maps[camera][place] for camera, place in clips])
    rows = spec.empty_rows(len(clips))
    rows["status"][:], rows["grid_features"][:], rows["frame_features"][:] = Status.DONE, found, found.mean((-1, -2))
    writer.write_block(0, rows)
    return path


@pytest.mark.parametrize("seed", [0, 1])
def test_streams_find_their_moment_in_each_other_and_look_at_what_acts(seed: int, tmp_path: Path) -> None:
    plans = [plan_recording(seed, number) for number in range(RECORDINGS)]
    maps: dict[str, list[np.ndarray]] = {"ego": [], "third-1": []}
    heard = []
    for plan in plans:
        films, sound = films_of(plan, seed), recording_sound(plan, seed)
        for start in range(0, 24 * WINDOWS, 24):
            for camera in CAMERAS:
                maps[camera].append(cells_of(films[camera], start))
            heard.append(bands_of(sound, start))
    video = write_cache(tmp_path / "video.zarr", plans, maps)
    sounds = write_cache(tmp_path / "sound.zarr", plans, {"": heard})
    join = join_caches(
        {
            "ego": Stream(cache=video, cameras=("ego",)),
            "third": Stream(cache=video, cameras=("third-1",)),
            "audio": Stream(cache=sounds),
        },
        tmp_path / "all.join.json",
    )
    config = make_run_config(
        "ccau",
        join.path,
        preset="small",
        aux_weights={"align": 1.0},
        schedule=ScheduleConfig(kind="paper", epochs=60, batch_size=40),
    )
    trained = open_trained(fit(config, Silent(), out=tmp_path / "run").run.path)
    batches = open_batches(trained.reader, trained.arrays, [trained.tested], "cpu", "auto")
    told = trained.head.eval().explain(batches.batch(trained.tested.rows[:, 0]))
    n = len(trained.tested)
    own = torch.arange(n)
    found = {}
    for one, other in (("ego", "third"), ("ego", "audio")):
        products = told[f"{one}/context"] @ told[f"{other}/context"].T
        found[other] = float(torch.stack([(p.argmax(1) == own).float() for p in (products, products.T)]).mean())
    shares = {}
    for stream, camera in (("ego", "ego"), ("third", "third-1")):
        mass, area = 0.0, 0.0
        for k, segment in enumerate(trained.tested.names):
            number, window = divmod(int(segment), WINDOWS)
            boxes = acting_boxes(camera, plans[number], seed)[24 * window : 24 * window + 24].reshape(4, 6, 4)
            for block, weights in zip(boxes, told[f"{stream}/attention"][k], strict=True):
                picture = np.zeros((6, FILM_HEIGHT, FILM_WIDTH), np.float32)
                for frame, (x1, y1, x2, y2) in enumerate(block.astype(int)):
                    picture[frame, y1:y2, x1:x2] = 1
                covered = cv2.resize(picture.mean(0), (SIDE, SIDE), interpolation=cv2.INTER_AREA).ravel()
                mass, area = mass + float((weights.numpy() * covered).sum()), area + float(covered.mean())
        shares[stream] = mass / area
    print(seed, n, found, shares)
    assert found["third"] > 5 / n and found["audio"] > 2 / n
    assert min(shares.values()) > 1.1
