"""A clip from the middle of a film: python benchmarks/films.py [--frames 9000] [--rounds 5].

32 frames from two thirds of a film of 640 × 360 (H.264, a key frame every 250 frames at most): from the last key frame
before them, with the film's index known and with a walk for it, and by plain PyAV from the first frame; each in one
thread, in turn, medians. The pictures must be equal. Works in a temporary folder.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from machine import facts, interleaved, median, save
from numpy.typing import NDArray

from ifcar.extract.decode import open_source, probe

WIDTH, HEIGHT = 640, 360


def write_film(path: Path, num_frames: int) -> None:
    """Write scenes of moving noise, 300 frames each."""
    rng = np.random.default_rng(0)
    scenes = [rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8) for _ in range(8)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(30))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"preset": "ultrafast", "crf": "35"}
        for number in range(num_frames):
            pixels = np.roll(scenes[number // 300 % len(scenes)], number, axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=9000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    here = facts()
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "film.mp4"
        write_film(film, arguments.frames)
        info = probe(film)
        first = 2 * arguments.frames // 3
        wanted = list(range(first, first + 64, 2))

        def known() -> NDArray[np.uint8]:
            with open_source(film, info) as source:
                return np.stack([np.asarray(picture) for _, picture in source.pictures(wanted)])

        def walked() -> NDArray[np.uint8]:
            with open_source(film) as source:
                return np.stack([np.asarray(picture) for _, picture in source.pictures(wanted)])

        def counted() -> NDArray[np.uint8]:
            with av.open(str(film)) as container:
                container.streams.video[0].thread_type = "NONE"
                frames = enumerate(itertools.islice(container.decode(video=0), wanted[-1] + 1))
                return np.stack([frame.to_ndarray(format="rgb24") for number, frame in frames if number in wanted])

        sides = {"index known": known, "walked": walked, "every frame decoded": counted}
        for side in (known, walked):
            np.testing.assert_array_equal(side(), counted())
        seconds = {name: median(values) for name, values in interleaved(sides, arguments.rounds).items()}
    for name, value in seconds.items():
        print(f"{name}: {value:.2f} s a clip")
    print(save("films", {**here, "frames": arguments.frames, "seconds": seconds}))


if __name__ == "__main__":
    main()
