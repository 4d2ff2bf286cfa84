"""Videos and annotations of Something-Something's kind: 240 lines, 12 frames a second, VP9 in WebM."""

from __future__ import annotations

import json
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT, NUM_FRAMES, FPS = 427, 240, 45, 12


def write_videos(root: Path, num_clips: int, num_videos: int = 12) -> None:
    """Write a Something-Else folder of `num_clips` clips with boxes of their own, linked to `num_videos` videos."""
    videos = root / "videos"
    videos.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for k in range(num_videos):
        encode(videos / f"{k}.webm", render(rng))
    for clip in range(num_videos, num_clips):
        (videos / f"{clip}.webm").hardlink_to(videos / f"{clip % num_videos}.webm")
    with (root / "annotations.json").open("w") as file:
        file.write("{")
        for clip in range(num_clips):
            text = json.dumps(records(str(clip), rng))
            file.write(f'{", " if clip else ""}"{clip}": {text}')
        file.write("}")


def render(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return (NUM_FRAMES, HEIGHT, WIDTH, 3) frames: a textured desk, two things that move over it, camera noise."""

    def texture(width: int, height: int) -> NDArray[np.float32]:
        coarse = rng.uniform(20, 220, (max(2, height // 24), max(2, width // 24), 3)).astype(np.float32)
        fine = rng.normal(0, 8, (height, width, 3)).astype(np.float32)
        return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) + cv2.blur(fine, (2, 2)))

    desk = texture(WIDTH + 20, HEIGHT)
    things = [texture(90, 70), texture(60, 110)]
    starts, ends = rng.uniform(0.1, 0.6, (2, 2)), rng.uniform(0.1, 0.6, (2, 2))
    frames = np.empty((NUM_FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    for k in range(NUM_FRAMES):
        share = k / NUM_FRAMES
        shake = round(8 + 6 * np.sin(k / 5))
        frame = desk[:, shake : shake + WIDTH].copy()
        for thing, start, end in zip(things, starts, ends, strict=True):
            x, y = ((start + share * (end - start)) * (WIDTH, HEIGHT)).astype(int)
            part = frame[y : y + thing.shape[0], x : x + thing.shape[1]]
            part[:] = thing[: part.shape[0], : part.shape[1]]
        frames[k] = (frame + rng.normal(0, 4, frame.shape)).clip(0, 255)
    return frames


def encode(path: Path, frames: NDArray[np.uint8]) -> None:
    """Write frames as VP9, at about the size of the dataset's own files, some 80 kB."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx-vp9", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        stream.options = {"crf": "27", "b": "0", "cpu-used": "5", "row-mt": "0"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def records(clip_id: str, rng: np.random.Generator) -> list[dict[str, object]]:
    """Return a clip's annotation: a hand and a thing in every frame."""
    out: list[dict[str, object]] = []
    x, y, dx, dy = rng.uniform(20, 200), rng.uniform(20, 100), rng.uniform(-0.4, 3), rng.uniform(-0.4, 1)
    for k in range(NUM_FRAMES):
        left, top = x + k * dx, y + k * dy
        box = {"x1": left, "y1": top, "x2": left + 90, "y2": top + 70}
        hand = {"x1": left + 40, "y1": top + 30, "x2": left + 160, "y2": top + 130}
        labels = [{"standard_category": "0000", "box2d": box}, {"standard_category": "hand", "box2d": hand}]
        out.append({"name": f"{clip_id}/{k + 1:04d}.jpg", "labels": labels})
    return out
