"""Writing of pictures as WebM, the same bytes every time."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import av
import cv2

from ifcar.extract.toybox.scene import HEIGHT, WIDTH
from ifcar.extract.toybox.sprites import Image, as_image

FRAMES_PER_SECOND = 12
_CODEC_OPTIONS = {"deadline": "realtime", "cpu-used": "8", "row-mt": "0", "crf": "34", "b": "0"}


def write_video(path: Path, frames: Iterable[Image]) -> None:
    """Encode (240, 320, 3) uint8 pictures (blue, green, red) as VP9 into the WebM file `path`."""
    with av.open(str(path), "w", format="webm", container_options={"fflags": "bitexact"}) as container:
        stream = container.add_stream("libvpx-vp9", rate=FRAMES_PER_SECOND, options=_CODEC_OPTIONS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
        for picture in frames:
            planes = as_image(cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode(None))
