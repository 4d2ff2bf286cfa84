"""What a form of box files gives, and the registry of forms."""

from __future__ import annotations

import codecs
import re
from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal
from unicodedata import normalize
from xml.etree import ElementTree

from ifcar.errors import InputError
from ifcar.extract.datasets.strict_json import read_json
from ifcar.extract.limits import MAX_COORDINATE, MAX_FRAME_NUMBER
from ifcar.registry import Registry
from ifcar.text_files import decode_text

Numbered = Literal["from 0", "from 1", "as named", "in ms"]
Corners = tuple[float, float, float, float]
_BEGIN_BYTES = 1 << 16
_MAX_XML_BYTES = 1 << 28
_NUMBER = re.compile(r"(?P<before>.*?)[ ._-]*(?P<number>[0-9]{1,12})", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Box:
    """A box in a frame.

    Args:
        frame: the frame's number as the file counts.
        kind: name of the class.
        corners: (x1, y1, x2, y2), in pixels or in shares of the sides, see `FileBoxes`.
        track: which of its class it is, the same in all frames; None: boxes of a class are linked by overlap.
    """

    frame: int
    kind: str
    corners: Corners
    track: str | None = None


@dataclass(kw_only=True, slots=True)
class FileBoxes:
    """What a file says of some videos.

    Args:
        numbered: where frame numbers begin. "as named": they stand in the names of pictures, and count from 0 where one
            of them is 0, else from 1. "in ms": they are milliseconds of the video's clock.
        in_shares: whether corners are shares of the frame's sides and not pixels.
        boxes: by video.
        frames: by video, the frames that the file lists, those without a box too.
        sizes: by video, the (width, height) that the file states of its pictures, where corners are pixels of these.
        unread: names of columns that are not read.
    """

    numbered: Numbered
    in_shares: bool = False
    boxes: dict[str, list[Box]] = field(default_factory=dict)
    frames: dict[str, set[int]] = field(default_factory=dict)
    sizes: dict[str, set[tuple[int, int]]] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)

    def add_frame(self, video: str, frame: int) -> None:
        """Add a frame that the file lists."""
        self.boxes.setdefault(video, [])
        self.frames.setdefault(video, set()).add(frame)

    def add_size(self, video: str, width: Any, height: Any) -> None:
        """Add the size of a picture, as numbers or text; what is no size states none."""
        sides = (_number(width), _number(height))
        if all(0 < side <= MAX_COORDINATE for side in sides):
            self.sizes.setdefault(video, set()).add((round(sides[0]), round(sides[1])))

    def add(self, video: str, frame: int, kind: str, corners: Corners, track: str | None = None) -> None:
        """Add a box, see `Box`, and its frame."""
        self.add_frame(video, frame)
        self.boxes[video].append(Box(frame, kind, corners, track))


class BoxFile:
    """A file that may hold boxes.

    Args:
        path: the file.
        inside: its path below the folder of box files, or its name.
        videos: names of the videos that there are, in composed Unicode (NFC).
    """

    def __init__(self, path: Path, inside: PurePosixPath, videos: Collection[str]) -> None:
        self.path, self.inside, self.videos = path, inside, videos

    @cached_property
    def begin(self) -> bytes:
        """The first bytes, without UTF-8's byte order mark."""
        with self.path.open("rb") as file:
            return file.read(_BEGIN_BYTES).removeprefix(codecs.BOM_UTF8)

    @cached_property
    def text(self) -> str:
        """The file's text. Raises InputError when it is not UTF-8."""
        return decode_text(self.path.read_bytes(), self.path)

    @property
    def is_json(self) -> bool:
        """Whether the file begins as JSON."""
        return self.begin.lstrip()[:1] in (b"{", b"[")

    @cached_property
    def json(self) -> Any:
        """The file's JSON, None where it does not begin as JSON. Raises InputError when it is damaged."""
        return read_json(self.path) if self.is_json else None

    @cached_property
    def xml(self) -> ElementTree.Element | None:
        """The root of the file's XML, None where it does not begin as XML. Raises InputError when it is damaged."""
        if self.begin.lstrip()[:1] != b"<":
            return None
        size = self.path.stat().st_size
        if size > _MAX_XML_BYTES:
            raise InputError(f"{self.path}: {size:,} bytes of XML; up to {_MAX_XML_BYTES:,} are read, divide it")
        if "<!DOCTYPE" in self.text or "<!ENTITY" in self.text:  # entities may unfold to more than there is memory
            raise InputError(f"{self.path}: XML that declares a DOCTYPE; expected annotations without one")
        parser = ElementTree.XMLParser(encoding="utf-8")  # noqa: S314  (declarations are refused above)
        try:
            return ElementTree.fromstring(self.text.encode(), parser)  # noqa: S314
        except ElementTree.ParseError as error:
            raise InputError(f"{self.path}: damaged XML ({error}); export it again") from error

    def video(self, name: str | None = None) -> str:
        """Return the video that a name means, or else the file's own place: a folder that it is in, or its name."""
        own = [*self.inside.parts[:-1], self.inside.stem]
        return self._first_known([*([] if name is None else _names(name)), *own])

    def picture(self, name: str, where: str) -> tuple[str, int]:
        """Return the video and the frame number of a picture's name, as cup/0012.jpg, cup_0012.jpg or frame_0012.png.

        Raises:
            InputError: the name ends without a number.
        """
        path = PurePosixPath(name.replace("\\", "/"))
        found = _NUMBER.fullmatch(path.stem)
        if found is None or int(found["number"]) > MAX_FRAME_NUMBER:
            raise InputError(
                f"{where}: the picture's name {name!r:.120} does not end with a frame number; expected VIDEO/0001.jpg "
                "or VIDEO_0001.jpg"
            )
        folders = [part for parent in reversed(path.parts[:-1]) for part in _names(parent)]
        own = [*self.inside.parts[:-1], self.inside.stem]
        return self._first_known([*folders, found["before"], *own]), int(found["number"])

    def _first_known(self, names: list[str]) -> str:
        names = [normalize("NFC", name) for name in names if name]
        return next((name for name in names if name in self.videos), names[0])


def _names(name: str) -> list[str]:
    """Return what a video may be called whose file or folder has this name."""
    path = PurePosixPath(name.replace("\\", "/"))
    return [path.name, path.stem]


class BoxForm(ABC):
    """A form in which files state boxes.

    Attributes:
        name: what messages call it.
        first_pixel: what the form calls the picture's first column and row. Pixel p covers p − first to p − first + 1:
            the left edge of a box that begins with pixel x1 is x1 − first; where pixels count from 1, the right edge of
            one that ends with pixel x2, included, is x2.
    """

    name: ClassVar[str]
    first_pixel: ClassVar[Literal[0, 1]] = 0

    @abstractmethod
    def owns(self, file: BoxFile) -> bool:
        """Return whether a file's content is of this form; a content that two forms own is refused."""

    @abstractmethod
    def read(self, file: BoxFile) -> FileBoxes:
        """Read a file that is of this form. Raises InputError naming the place of what is not."""


FORMS: Registry[BoxForm] = Registry("form of boxes")


def register_form(form: type[BoxForm]) -> type[BoxForm]:
    """Class decorator: add the form to `FORMS` under its name."""
    FORMS.register(form.name, form(), form.__module__)
    return form


def corners(where: str, values: Collection[Any], *, sides: bool, first_pixel: int = 0) -> Corners:
    """Return the edges of a box, those of the picture being 0 and its sides, from four numbers or from their text.

    Args:
        where: names the box, for messages.
        values: x1, y1 and then x2, y2, or width and height.
        sides: whether the last two are width and height.
        first_pixel: see `BoxForm`; of the whole of a picture of 64 × 48, which is 0, 0, 64, 48 from 0, forms that count
            from 1 say 1, 1, 64, 48, with corners as with sides.

    Raises:
        InputError: they are not four finite numbers, or absurd.
    """
    numbers = [_number(value) for value in values]
    # A comparison with NaN is False.
    if len(numbers) != 4 or not all(abs(number) <= MAX_COORDINATE for number in numbers):
        expected = "x, y, width, height" if sides else "x1, y1, x2, y2"
        raise InputError(f"{where}: box {list(values)!r:.120}; expected four finite numbers {expected}")
    x, y, right, low = numbers
    x, y = x - first_pixel, y - first_pixel
    return (x, y, x + right, y + low) if sides else (x, y, right, low)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return float("nan")
    try:
        return float(value)
    except (ValueError, OverflowError):
        return float("nan")


def check_upright(where: str, rotation: Any) -> None:
    """Raise InputError for a box that is turned by some degrees, as a number or text; None is upright."""
    if rotation is not None and _number(rotation) != 0:
        raise InputError(f"{where}: a box turned by {rotation!r:.40} degrees; expected boxes along the picture's sides")


def frame_number(where: str, value: Any, *, least: int) -> int:
    """Return a frame number, from JSON or as text. Raises InputError when it is none."""
    text = value.strip() if isinstance(value, str) else str(value) if type(value) is int else ""
    if not (text.isascii() and text.isdecimal() and least <= int(text[:13]) <= MAX_FRAME_NUMBER):
        raise InputError(f"{where}: frame {value!r:.40}; expected a whole number from {least}")
    return int(text)
