"""COCO JSON: images, annotations with bbox [x, y, width, height] in pixels, categories.

A picture is a frame of the video that its video_id or its file_name names. Frame numbers are frame_id (or frame_index)
of images with a video_id, else the number at the end of the file_name. Tracks are track_id or instance_id, of an
annotation or of its attributes, where there are any.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ifcar.errors import InputError
from ifcar.extract.datasets.box_files.contract import (
    BoxFile,
    BoxForm,
    FileBoxes,
    check_upright,
    corners,
    frame_number,
    register_form,
)

_LISTS = ("images", "annotations", "categories")
_TRACKS = ("track_id", "instance_id")
_FRAMES = ("frame_id", "frame_index")


@register_form
class CocoJson(BoxForm):
    name = "COCO JSON"

    def owns(self, file: BoxFile) -> bool:
        return isinstance(file.json, dict) and all(isinstance(file.json.get(key), list) for key in _LISTS)

    def read(self, file: BoxFile) -> FileBoxes:
        content, found = file.json, FileBoxes(numbered="as named")
        kinds = {key: _text(file, row, "name") for key, row in _by_id(file, content, "categories").items()}
        videos = _by_id(file, content, "videos") if isinstance(content.get("videos"), list) else {}
        pictures = {}
        for key, row in _by_id(file, content, "images").items():
            pictures[key] = _picture(file, key, row, videos)
            found.add_frame(*pictures[key])
            found.add_size(pictures[key][0], row.get("width"), row.get("height"))
        for place, row in enumerate(content["annotations"]):
            where = f"{file.path}: annotations[{place}]"
            if not isinstance(row, dict) or not (
                _is_of(row, "image_id", pictures) and _is_of(row, "category_id", kinds)
            ):
                raise InputError(f"{where}: {row!r:.80}; expected image_id and category_id of the file's own lists")
            box = row.get("bbox")
            if not isinstance(box, list):
                raise InputError(f"{where}: no bbox; expected [x, y, width, height]")
            video, frame = pictures[row["image_id"]]
            kind = kinds[row["category_id"]]
            check_upright(where, _attributes(row).get("rotation"))
            found.add(video, frame, kind, corners(where, box, sides=True), _track(row))
        return found


def _by_id(file: BoxFile, content: Mapping[str, Any], name: str) -> dict[int | str, Mapping[str, Any]]:
    rows: dict[int | str, Mapping[str, Any]] = {}
    for place, row in enumerate(content[name]):
        key = row.get("id") if isinstance(row, dict) else None
        if isinstance(key, bool) or not isinstance(key, int | str) or key in rows:
            raise InputError(f"{file.path}: {name}[{place}]: id is {key!r:.40}; expected each with an id of its own")
        rows[key] = row
    return rows


def _is_of(row: Mapping[str, Any], name: str, known: Collection[int | str]) -> bool:
    key = row.get(name)
    return isinstance(key, int | str) and key in known


def _text(file: BoxFile, row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{file.path}: id {row['id']}: {name} is {value!r:.60}; expected a text")
    return value.strip()


def _picture(
    file: BoxFile, key: int | str, row: Mapping[str, Any], videos: Mapping[int | str, Mapping[str, Any]]
) -> tuple[str, int]:
    where = f"{file.path}: image {key}"
    number = next((row[name] for name in _FRAMES if name in row), None)
    if _is_of(row, "video_id", videos) and number is not None:
        own = videos[row["video_id"]]
        return file.video(_text(file, own, "name" if "name" in own else "file_name")), frame_number(
            where, number, least=0
        )
    return file.picture(_text(file, row, "file_name"), where)


def _attributes(row: Mapping[str, Any]) -> Mapping[str, Any]:
    attributes = row.get("attributes")
    return attributes if isinstance(attributes, dict) else {}


def _track(row: Mapping[str, Any]) -> str | None:
    places = (row, _attributes(row))
    return next((str(place[name]) for place in places for name in _TRACKS if place.get(name) is not None), None)
