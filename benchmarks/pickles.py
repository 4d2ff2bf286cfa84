"""Reading Action Genome's two pickles in full size: python benchmarks/pickles.py [--frames N].

Writes files of the published form (288,782 frames, two to six listed objects each, up to two persons with key points)
and reads each with `load_pickle`: seconds, and processor seconds of this process and of the one that unpickles.
"""

from __future__ import annotations

import argparse
import pickle
import random
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import save

from ifcar.extract.safe_pickle import load_pickle

CLASSES = ("bed", "book", "chair", "closet/cabinet", "cup/glass/bottle", "dish", "laptop", "light", "table", "window")
RELATIONS = ("looking_at", "unsure", "in_front_of", "on_the_side_of", "beneath", "holding", "touching", "sitting_on")
FRAMES_PER_VIDEO = 30


def action_genome(num_frames: int) -> dict[str, dict[str, Any]]:
    """Return what the two files hold, by the files' names."""
    draw, rng = random.Random(0), np.random.default_rng(0)
    objects: dict[str, Any] = {}
    persons: dict[str, Any] = {}
    for number in range(num_frames):
        if number % FRAMES_PER_VIDEO == 0:
            video, classes = f"{number:06d}.mp4", draw.sample(CLASSES, draw.randint(2, 6))
        name, frame, size = f"{video}/{number:06d}.png", f"{number:06d}", draw.randint(0, 2)
        objects[name] = [
            {
                "class": kind,
                "bbox": tuple(draw.random() * 200 for _ in range(4)) if is_visible else None,
                "attention_relationship": [draw.choice(RELATIONS)] if is_visible else None,
                "spatial_relationship": draw.sample(RELATIONS, draw.randint(1, 2)) if is_visible else None,
                "contacting_relationship": [draw.choice(RELATIONS)] if is_visible else None,
                "metadata": {"tag": f"{video}/{kind}/{frame}", "set": "train"},
                "visible": is_visible,
            }
            for kind in classes
            for is_visible in [draw.random() < 0.5]
        ]
        persons[name] = {
            "bbox": rng.random((size, 4), np.float32),
            "bbox_score": rng.random(size, np.float32),
            "bbox_size": (480, 270),
            "bbox_mode": "xyxy",
            "keypoints": rng.random((size, 17, 3), np.float32),
        }
    return {"object_bbox_and_relationship.pkl": objects, "person_bbox.pkl": persons}


def processor_seconds() -> float:
    """Return the processor time of this process and of those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def main() -> None:
    """Write, read, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=288_782)
    options = parser.parse_args()
    measured = {}
    with tempfile.TemporaryDirectory() as folder:
        files = action_genome(options.frames)
        for name in list(files):
            path = Path(folder) / name
            path.write_bytes(pickle.dumps(files.pop(name), 3))
            spent, started = processor_seconds(), time.perf_counter()
            load_pickle(path)
            seconds, spent = time.perf_counter() - started, processor_seconds() - spent
            measured[name] = {"megabytes": path.stat().st_size / 1e6, "seconds": seconds, "cpu_seconds": spent}
            print(f"{name}: {path.stat().st_size / 1e6:.0f} MB, {seconds:.1f} s, {spent:.1f} CPU-s")
    print(save("pickles", {"frames": options.frames, "files": measured}))


if __name__ == "__main__":
    main()
