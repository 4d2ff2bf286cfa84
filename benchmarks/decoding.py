"""Where the time of a decoded clip goes: python benchmarks/decoding.py [--clips 48].

Clips of `benchmarks/clips.py`, as `extract --backbone i3d_r50` reads them (8 frames of 224²), in one thread of this
process: CPU milliseconds a clip in FFmpeg's opening and decoding, in its conversion to RGB, in Pillow's crop and
resize, and in all else, which the profiler makes longer. The named parts are compiled code that gives the frames their
bits, so their sum bounds what a faster reader could save. The last line is the share of CPU time that is left for a
backbone of `--backbone-ms` a clip.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import tempfile
import time
from pathlib import Path

from clips import write_videos
from extraction import make_config
from machine import save

from ifcar.pipelines.extraction.preparation import prepare
from ifcar.pipelines.progress import Silent

PARTS = {
    "opening": "av.container.core.open",
    "decoding": "'decode' of 'av.video.stream",
    "conversion to RGB": "'reformat' of 'av.video",
    "crop and resize": "'resize' of 'ImagingCore",
}


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=48)
    parser.add_argument("--backbone-ms", type=float, default=208.0, help="CPU time of the backbone; default: bf16's")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write_videos(Path("videos"), options.clips)
        views = prepare(make_config("cpu", "bf16", 8, 224, options.clips, 0), Silent()).views()
        for row in range(2):  # the first ones import
            views[row]
        profile, started = cProfile.Profile(), time.process_time()
        profile.enable()
        for row in range(options.clips):
            views[row]
        profile.disable()
        whole = time.process_time() - started
        os.chdir("/")
    seconds = dict.fromkeys(PARTS, 0.0)
    for (_, _, name), (_, _, own, _, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        for part, function in PARTS.items():
            seconds[part] += own if function in name else 0.0
    seconds["all else"] = whole - sum(seconds.values())
    found = {part: 1e3 * value / options.clips for part, value in seconds.items()}
    for part, value in found.items():
        print(f"{part}: {value:.1f} ms a clip")
    named = sum(found[part] for part in PARTS)
    bound = options.backbone_ms / (options.backbone_ms + named)
    print(f"the named {named:.1f} ms; beside them a backbone of {options.backbone_ms:.0f} ms has at most {bound:.3f}")
    print(save("decoding", {"ms_per_clip": found, "backbone_ms": options.backbone_ms, "bound": bound}, "cpu"))


if __name__ == "__main__":
    main()
