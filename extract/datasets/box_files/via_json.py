"""VGG Image Annotator's JSON (VIA 2), a project or an export: pictures with rect regions in pixels.

A region's class is its only attribute, or the one that is called class, label, name, type or category; its track is the
attribute track, track_id or id.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ifcar.errors import InputError
from ifcar.extract.datasets.box_files.contract import BoxFile, BoxForm, Corners, FileBoxes, corners, register_form

_PICTURES = "_via_img_metadata"
_CLASSES = ("class", "label", "name", "type", "category")
_TRACKS = ("track", "track_id", "id")


@register_form
class ViaJson(BoxForm):
    name = "VIA JSON"

    def owns(self, file: BoxFile) -> bool:
        return _pictures(file.json) is not None

    def read(self, file: BoxFile) -> FileBoxes:
        found = FileBoxes(numbered="as named")
        for key, picture in (_pictures(file.json) or {}).items():
            where = f"{file.path}: picture {key!r:.80}"
            if not isinstance(picture, dict) or not isinstance(picture.get("filename"), str):
                raise InputError(f"{where}: no filename; expected one for each picture")
            video, frame = file.picture(picture["filename"], where)
            found.add_frame(video, frame)
            regions = picture.get("regions") or []
            listed = list(regions.values()) if isinstance(regions, dict) else regions
            if not isinstance(listed, list):
                raise InputError(f"{where}: regions are {regions!r:.40}; expected a list")
            for place, region in enumerate(listed):
                found.add(video, frame, *_box(f"{where}, region {place + 1}", region))
        return found


def _pictures(content: Any) -> Mapping[str, Any] | None:
    if not isinstance(content, dict):
        return None
    inner = content.get(_PICTURES, content)
    first = next(iter(inner.values()), None) if isinstance(inner, dict) else None
    is_via = _PICTURES in content or (isinstance(first, dict) and {"filename", "regions"} <= set(first))
    return inner if is_via and isinstance(inner, dict) else None


def _box(where: str, region: Any) -> tuple[str, Corners, str | None]:
    """Return a region's class, corners and track."""
    shape = region.get("shape_attributes") if isinstance(region, dict) else None
    attributes = region.get("region_attributes") if isinstance(region, dict) else None
    if not isinstance(shape, dict) or not isinstance(attributes, dict):
        raise InputError(f"{where}: no shape_attributes or region_attributes; expected both (mappings)")
    if shape.get("name") != "rect":
        raise InputError(f"{where}: a {shape.get('name')!r:.40}; expected rect, boxes alone")
    kind, track = class_and_track(where, attributes)
    own = corners(where, [shape.get(name) for name in ("x", "y", "width", "height")], sides=True)
    return kind, own, track


def class_and_track(where: str, attributes: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return a region's class and track, see above, of its attributes by name. Raises InputError without a class."""
    named = {name.strip().lower(): value for name, value in attributes.items()}
    track = next((str(named.pop(name)) for name in _TRACKS if named.get(name) not in (None, "")), None)
    chosen = next((name for name in _CLASSES if name in named), next(iter(named)) if len(named) == 1 else None)
    kind = named.get(chosen) if chosen is not None else None
    if not isinstance(kind, str) or not kind.strip():
        found = f"attributes {', '.join(map(repr, attributes))}" if attributes else "no attribute"
        raise InputError(f"{where}: {found:.120}; expected its class in one called {', '.join(_CLASSES)}")
    return kind.strip(), track
