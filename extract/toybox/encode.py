"""Writing of pictures as video, the same bytes every time."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import av
import cv2
from av.container import OutputContainer
from av.video.stream import VideoStream

from ifcar.extract.toybox.scene import HEIGHT, WIDTH
from ifcar.extract.toybox.sprites import Image, as_image

FRAMES_PER_SECOND = 12
_VP9 = {"deadline": "realtime", "cpu-used": "8", "row-mt": "0", "crf": "34", "b": "0"}
_BITEXACT = {"fflags": "bitexact"}
_MJPEG = {"qmin": "3", "qmax": "3"}


def write_video(path: Path, frames: Iterable[Image]) -> None:
    """Encode (240, 320, 3) uint8 pictures (blue, green, red) as VP9 into the WebM file `path`."""
    with av.open(str(path), "w", format="webm", container_options=_BITEXACT) as container:
        _encode(container, container.add_stream("libvpx-vp9", rate=FRAMES_PER_SECOND, options=_VP9), frames, "yuv420p")


def write_separate_frames(path: Path, frames: Iterable[Image]) -> None:
    """Encode them as Motion JPEG into the MP4 file `path`: equal pictures stay equal, wherever they are in a video."""
    with av.open(str(path), "w", format="mp4", container_options=_BITEXACT) as container:
        _encode(container, container.add_stream("mjpeg", rate=FRAMES_PER_SECOND, options=_MJPEG), frames, "yuvj420p")


def _encode(container: OutputContainer, stream: VideoStream, frames: Iterable[Image], pixel_format: str) -> None:
    stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixel_format
    stream.codec_context.thread_count = 1
    stream.codec_context.flags |= av.codec.context.Flags.bitexact
    for picture in frames:
        planes = as_image(cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420))
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        container.mux(stream.encode(frame.reformat(format=pixel_format)))
    container.mux(stream.encode(None))
