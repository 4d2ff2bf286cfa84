"""Folders of clips for the benchmarks: videos of Something-Something's kind, or tiny frames for very many clips.

A video has 240 lines, 12 frames a second, 45 frames, VP9 in WebM, some 80 kB, as the dataset's own.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT, NUM_FRAMES, FPS = 427, 240, 45, 12
TINY_FRAMES = 12


def write_videos(root: Path, num_clips: int, num_videos: int = 12) -> None:
    """Write a Something-Else folder of `num_clips` clips with boxes of their own, linked to `num_videos` videos."""
    videos = root / "videos"
    videos.mkdir(parents=True)
    rng = np.random.default_rng(0)
    num_videos = min(num_clips, num_videos)
    paths, contents = [videos / f"{k}.webm" for k in range(num_videos)], [render(rng) for _ in range(num_videos)]
    with ThreadPoolExecutor() as threads:  # the encoder runs outside of Python
        list(threads.map(encode, paths, contents))
    for clip in range(num_videos, num_clips):
        (videos / f"{clip}.webm").hardlink_to(videos / f"{clip % num_videos}.webm")
    write_annotations(root, num_clips, NUM_FRAMES, 1.0)


def write_folders(root: Path, num_clips: int) -> None:
    """Write a Something-Else folder of `num_clips` clips with boxes of their own, all linked to 12 tiny pictures."""
    shared = root / "frames" / "shared"
    shared.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for k in range(TINY_FRAMES):
        cv2.imwrite(str(shared / f"{k + 1:04d}.jpg"), rng.integers(0, 255, (24, 32, 3), dtype=np.uint8))
    for clip in range(num_clips):
        (root / "frames" / str(clip)).symlink_to("shared")
    (root / "videoid2size.json").write_text(json.dumps({str(clip): [32, 24] for clip in range(num_clips)}))
    write_annotations(root, num_clips, TINY_FRAMES, 32 / WIDTH)


def write_annotations(root: Path, num_clips: int, num_frames: int, scale: float) -> None:
    """Write annotations.json, clip by clip."""
    rng = np.random.default_rng(1)
    with (root / "annotations.json").open("w") as file:
        file.write("{")
        for clip in range(num_clips):
            text = json.dumps(records(str(clip), num_frames, scale, rng))
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


def records(clip_id: str, num_frames: int, scale: float, rng: np.random.Generator) -> list[dict[str, object]]:
    """Return a clip's annotation: a hand and a thing in every frame, in pixels of a frame `scale` times as large."""
    out: list[dict[str, object]] = []
    x, y, dx, dy = (float(v) for v in rng.uniform((20, 20, -0.4, -0.4), (200, 100, 1.4, 1)))
    for k in range(num_frames):
        left, top = x + k * dx, y + k * dy
        thing, hand = (left, top, left + 90, top + 70), (left + 40, top + 30, left + 140, top + 110)
        labels = [
            {"standard_category": category, "box2d": dict(zip(("x1", "y1", "x2", "y2"), box, strict=True))}
            for category, box in (
                ("0000", [round(scale * v, 2) for v in thing]),
                ("hand", [round(scale * v, 2) for v in hand]),
            )
        ]
        out.append({"name": f"{clip_id}/{k + 1:04d}.jpg", "labels": labels})
    return out
