"""Forms that are rows of numbers: MOTChallenge's, a file a video, and YOLO's, a file a picture.

Names of the class numbers stand in a file beside them, a name a line: labels.txt, classes.txt or obj.names, in the same
folder or one above it. MOT counts classes from 1, YOLO from 0. Without such a file a class is called by its number.
"""

from __future__ import annotations

import re
from pathlib import Path

from ifcar.errors import InputError
from ifcar.extract.datasets.box_files.contract import BoxFile, BoxForm, FileBoxes, corners, frame_number, register_form
from ifcar.text_files import read_text

CLASS_FILES = ("labels.txt", "classes.txt", "obj.names")
_NUMBER = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_MOT_ROW = re.compile(rf"\s*[0-9]+(?:\.0*)?\s*(?:,\s*{_NUMBER}\s*){{5,9}}\r?")
_YOLO_ROW = re.compile(rf"\s*[0-9]+(?:\s+{_NUMBER}){{4,}}\s*")


@register_form
class MotText(BoxForm):
    """frame from 1, id, x, y, width, height, and perhaps confidence, class, visibility, in pixels from 1.

    MOTChallenge defines all frame numbers, ids and boxes as counted from 1.
    A row whose confidence is 0 is left out, as MOTChallenge marks what does not count. An id of −1 is none.
    """

    name = "MOT text"
    first_pixel = 1

    def owns(self, file: BoxFile) -> bool:
        return _first_row(file, _MOT_ROW)

    def read(self, file: BoxFile) -> FileBoxes:
        names, found, video = _class_names(file.path), FileBoxes(numbered="from 1"), file.video()
        for where, line in _lines(file):
            fields = [field.strip() for field in line.split(",")]
            if not _MOT_ROW.fullmatch(line):
                raise InputError(f"{where}: {line!r:.80}; expected frame, id, x, y, width, height, … of numbers")
            frame = frame_number(where, fields[0].split(".")[0], least=1)
            found.add_frame(video, frame)
            if len(fields) > 6 and float(fields[6]) == 0:
                continue
            number = int(float(fields[7])) if len(fields) > 7 else -1
            kind = _kind(where, names, number, first=1) if number > 0 else "object"
            track = None if float(fields[1]) < 0 else f"{float(fields[1]):g}"
            own = corners(where, fields[2:6], sides=True, first_pixel=self.first_pixel)
            found.add(video, frame, kind, own, track)
        return found


@register_form
class YoloText(BoxForm):
    """class, cx, cy, width, height in shares of the frame's sides, and perhaps a confidence, and the number of a track.

    Of six numbers the last is the track where all such numbers of the file are whole, else the confidence.
    """

    name = "YOLO text"

    def owns(self, file: BoxFile) -> bool:
        """See `BoxForm`; an empty file is a picture without boxes."""
        return file.inside.suffix == ".txt" and (not file.begin.strip() or _first_row(file, _YOLO_ROW))

    def read(self, file: BoxFile) -> FileBoxes:
        names, found = _class_names(file.path), FileBoxes(numbered="as named", in_shares=True)
        video, frame = file.picture(str(file.inside), str(file.path))
        found.add_frame(video, frame)
        rows = [(where, line.split()) for where, line in _lines(file)]
        has_tracks = all(len(fields) == 7 or (len(fields) == 6 and fields[5].isdecimal()) for _, fields in rows)
        for where, fields in rows:
            if not 5 <= len(fields) <= 7 or not _YOLO_ROW.fullmatch(" ".join(fields)):
                raise InputError(f"{where}: {len(fields)} values; expected class cx cy width height, boxes alone")
            cx, cy, w, h = corners(where, fields[1:5], sides=False)
            if not all(-0.5 <= value <= 1.5 for value in (cx, cy, w, h)):
                raise InputError(f"{where}: box {fields[1:5]}; expected shares of the frame's sides, 0 to 1")
            kind = _kind(where, names, int(fields[0]), first=0)
            own = (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
            found.add(video, frame, kind, own, fields[-1] if has_tracks else None)
        return found


def _first_row(file: BoxFile, form: re.Pattern[str]) -> bool:
    first = next((line for line in file.begin.splitlines() if line.strip()), b"")
    return form.fullmatch(first.decode("utf-8", "replace")) is not None


def _lines(file: BoxFile) -> list[tuple[str, str]]:
    lines = enumerate(file.text.splitlines(), 1)
    return [(f"{file.path} line {number}", line) for number, line in lines if line.strip()]


def _class_names(path: Path) -> list[str]:
    for folder in list(path.parents)[:3]:
        for name in CLASS_FILES:
            if (folder / name).is_file():
                return [line.strip() for line in read_text(folder / name).splitlines() if line.strip()]
    return []


def _kind(where: str, names: list[str], number: int, *, first: int) -> str:
    if not names:
        return str(number)
    if not first <= number < first + len(names):
        raise InputError(
            f"{where}: class {number}; expected {first} to {first + len(names) - 1}, as names are beside it"
        )
    return names[number - first]
