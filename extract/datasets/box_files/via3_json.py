"""VGG Image Annotator's JSON (VIA 3): rectangles on pictures, or at seconds of videos.

    {"project", "config", "attribute": {id: {"aname", "options": {key: name}}}, "file": {id: {"fname", "type"}},
     "view": {id: {"fid_list": [file id]}}, "metadata": {id: {"vid": view id, "z": [second], "xy": [2, x, y, w, h],
     "av": {attribute id: key or text}}}}

Stretches of time (two or more seconds, no shape) are no boxes and passed over. A region's class and track are told by
its attributes as in VIA 2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ifcar.errors import InputError
from ifcar.extract.datasets.box_files.contract import BoxFile, BoxForm, FileBoxes, corners, register_form
from ifcar.extract.datasets.box_files.via_json import class_and_track
from ifcar.extract.limits import MAX_FRAME_NUMBER

_KEYS = ("project", "attribute", "file", "view", "metadata")
_PICTURE, _VIDEO = 2, 4
_RECTANGLE = 2


@register_form
class Via3Json(BoxForm):
    name = "VIA 3 JSON"

    def owns(self, file: BoxFile) -> bool:
        return isinstance(file.json, dict) and set(_KEYS) <= set(file.json)

    def read(self, file: BoxFile) -> FileBoxes:
        content: dict[str, Mapping[str, Any]] = {}
        for key in _KEYS[1:]:
            content[key] = _mapping(f"{file.path}: {key}", file.json[key])
        kinds = {_file_of(file, content, view)["type"] for view in content["view"]}
        if not kinds <= {_PICTURE, _VIDEO} or len(kinds) > 1:
            raise InputError(f"{file.path}: files of type {sorted(kinds)}; expected pictures (2) or videos (4)")
        of_videos = _VIDEO in kinds
        found = FileBoxes(numbered="in ms" if of_videos else "as named")
        for view in content["view"] if not of_videos else ():  # pictures without a box are listed too
            found.add_frame(*file.picture(_file_of(file, content, view)["fname"], f"{file.path}: view {view}"))
        for key, region in content["metadata"].items():
            where = f"{file.path}: metadata {key!r:.40}"
            shape = _mapping(where, region).get("xy")
            if shape == []:
                continue
            if not isinstance(shape, list) or shape[0] != _RECTANGLE:
                raise InputError(f"{where}: shape {shape!r:.60}; expected a rectangle [2, x, y, width, height]")
            name = _file_of(file, content, str(region.get("vid")), where)["fname"]
            video, frame = (
                (file.video(name), _milliseconds(where, region.get("z"))) if of_videos else file.picture(name, where)
            )
            kind, track = class_and_track(where, _named(where, content["attribute"], region.get("av")))
            found.add(video, frame, kind, corners(where, shape[1:], sides=True), track)
        return found


def _mapping(where: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{where}: {value!r:.40}; expected a mapping")
    return value


def _file_of(file: BoxFile, content: Mapping[str, Mapping[str, Any]], view: str, where: str = "") -> Mapping[str, Any]:
    """Return what is said of the one file of a view."""
    where = where or f"{file.path}: view {view!r:.40}"
    files = _mapping(where, content["view"].get(view)).get("fid_list")
    if not isinstance(files, list) or len(files) != 1:
        raise InputError(f"{where}: files {files!r:.60} in its view; expected one")
    own = _mapping(where, content["file"].get(str(files[0])))
    if not isinstance(own.get("fname"), str) or not own["fname"] or type(own.get("type")) is not int:
        raise InputError(f"{where}: file {files[0]!r:.40} states no fname or type; expected a text and a number")
    return own


def _milliseconds(where: str, seconds: Any) -> int:
    if not isinstance(seconds, list) or len(seconds) != 1 or not isinstance(seconds[0], int | float):
        raise InputError(f"{where}: z is {seconds!r:.60}; expected the one second at which the box is seen")
    second = float(seconds[0])
    if not math.isfinite(second) or not 0 <= second < MAX_FRAME_NUMBER / 1000:
        raise InputError(f"{where}: z is {second:g}; expected a second of the video, from 0")
    return round(1000 * second)


def _named(where: str, attributes: Mapping[str, Any], values: Any) -> dict[str, Any]:
    """Return a region's attributes by their names, with the names of the options that were chosen."""
    named: dict[str, Any] = {}
    for key, value in _mapping(f"{where}, av", values).items():
        attribute = _mapping(f"{where}, attribute {key!r:.40}", attributes.get(key))
        options = attribute.get("options")
        chosen = options.get(value) if isinstance(options, dict) and isinstance(value, str) else None
        named[str(attribute.get("aname", key))] = value if chosen in (None, "") else chosen
    return named
