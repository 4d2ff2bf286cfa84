"""Writing of pictures, and sound, as video, the same bytes every time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import av
import cv2
import numpy as np
from av.container import OutputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from ifcar.extract.audio import SAMPLE_RATE
from ifcar.extract.toybox.scene import HEIGHT, WIDTH
from ifcar.extract.toybox.sprites import Image, as_image

FRAMES_PER_SECOND = 12
_VP9 = {"deadline": "realtime", "cpu-used": "8", "row-mt": "0", "crf": "34", "b": "0"}
_BITEXACT = {"fflags": "bitexact"}
_MJPEG = {"qmin": "3", "qmax": "3"}


def write_video(path: Path, frames: Iterable[Image]) -> None:
    """Encode (240, 320, 3) uint8 pictures (blue, green, red) as VP9 into the WebM file `path`."""
    with av.open(str(path), "w", format="webm", container_options=_BITEXACT) as container:
        stream = container.add_stream("libvpx-vp9", rate=FRAMES_PER_SECOND, options=_VP9)
        _set_up(stream, "yuv420p", (WIDTH, HEIGHT))
        _encode(container, stream, frames)


def write_separate_frames(path: Path, frames: Iterable[Image]) -> None:
    """Encode them as Motion JPEG into the MP4 file `path`: equal pictures stay equal, wherever they are in a video."""
    with av.open(str(path), "w", format="mp4", container_options=_BITEXACT) as container:
        stream = container.add_stream("mjpeg", rate=FRAMES_PER_SECOND, options=_MJPEG)
        _set_up(stream, "yuvj420p", (WIDTH, HEIGHT))
        _encode(container, stream, frames)


def write_film(path: Path, frames: Sequence[Image], sound: NDArray[np.float32] | None) -> None:
    """Encode pictures of one size as VP9, and mono sound in [−1, 1] as FLAC, into the Matroska file `path`."""
    height, width = frames[0].shape[:2]
    with av.open(str(path), "w", format="matroska", container_options=_BITEXACT) as container:
        pictures = container.add_stream("libvpx-vp9", rate=FRAMES_PER_SECOND, options=_VP9)
        track = None if sound is None else container.add_stream("flac", rate=SAMPLE_RATE, layout="mono", format="s16")
        _set_up(pictures, "yuv420p", (width, height))
        if track is not None and sound is not None:
            track.codec_context.flags |= av.codec.context.Flags.bitexact
            samples = np.rint(sound * np.iinfo(np.int16).max).astype(np.int16)
            heard = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
            heard.sample_rate, heard.pts = SAMPLE_RATE, 0
            container.mux(track.encode(heard))
            container.mux(track.encode(None))
        _encode(container, pictures, frames)


def _set_up(stream: VideoStream, pixel_format: str, size: tuple[int, int]) -> None:
    (stream.width, stream.height), stream.pix_fmt = size, pixel_format
    stream.codec_context.thread_count = 1
    stream.codec_context.flags |= av.codec.context.Flags.bitexact


def _encode(container: OutputContainer, stream: VideoStream, frames: Iterable[Image]) -> None:
    for picture in frames:
        planes = as_image(cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420))
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        container.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
    container.mux(stream.encode(None))
