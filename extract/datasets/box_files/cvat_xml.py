"""CVAT XML 1.1, of pictures and of video: boxes xtl, ytl, xbr, ybr in pixels, with labels.

In a track, boxes between those that the file lists lie on the straight line between them, but for frames after one
that is outside, until the next that is not. Frames of tracks count from 0.
"""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element

from ifcar.errors import InputError
from ifcar.extract.datasets.box_files.contract import (
    BoxFile,
    BoxForm,
    Corners,
    FileBoxes,
    check_upright,
    corners,
    frame_number,
    register_form,
)

_OF_VIDEO = re.compile("frame_[0-9]{6,}")
_CORNERS = ("xtl", "ytl", "xbr", "ybr")
_OTHER_SHAPES = ("polygon", "polyline", "points", "ellipse", "cuboid", "mask", "skeleton")


@register_form
class CvatXml(BoxForm):
    name = "CVAT XML"

    def owns(self, file: BoxFile) -> bool:
        return file.xml is not None and file.xml.tag == "annotations"

    def read(self, file: BoxFile) -> FileBoxes:
        root = file.xml
        assert root is not None
        tracks, pictures = root.findall("track"), root.findall("image")
        if (tracks and pictures) or not (tracks or pictures or root.findall("meta")):
            found = "both tracks and pictures" if tracks else "neither a track nor a picture"
            raise InputError(f"{file.path}: {found}; expected one of CVAT's exports, of video or of pictures")
        other = next((s.tag for own in (*tracks, *pictures) for s in own if s.tag in _OTHER_SHAPES), None)
        if other is not None:
            raise InputError(f"{file.path}: has a {other}; expected boxes alone, export these by themselves")
        if pictures:
            return _read_pictures(file, pictures, _sources(root))
        return _read_tracks(file, tracks, _sources(root), root.find(".//original_size"))


def _sources(root: Element) -> dict[str, str]:
    """Return the video of each task by the task's id; of a single one under "" too."""
    tasks = root.findall("meta/task") + root.findall("meta/project/tasks/task") + root.findall("meta/job")
    sources = {task.findtext("id", ""): task.findtext("source", "").strip() for task in tasks}
    alone = root.findtext("meta/source", "").strip() or (next(iter(sources.values())) if len(sources) == 1 else "")
    return {**sources, **({"": alone} if alone else {})}


def _read_tracks(file: BoxFile, tracks: list[Element], sources: dict[str, str], size: Element | None) -> FileBoxes:
    found = FileBoxes(numbered="from 0")
    for place, track in enumerate(tracks):
        where = f"{file.path}: track {track.get('id', place)}"
        kind, video = _label(where, track), file.video(sources.get(track.get("task_id", ""), sources.get("")))
        if size is not None:
            found.add_size(video, size.findtext("width"), size.findtext("height"))
        listed: dict[int, tuple[Corners, bool]] = {}
        for box in track.findall("box"):
            frame = frame_number(where, box.get("frame"), least=0)
            if frame in listed:
                raise InputError(f"{where}: two boxes in frame {frame}; expected one a frame")
            check_upright(f"{where}, frame {frame}", box.get("rotation"))
            own = corners(f"{where}, frame {frame}", [box.get(name) for name in _CORNERS], sides=False)
            listed[frame] = own, box.get("outside") == "1"
        for frame, own in sorted(_between(listed).items()):
            found.add(video, frame, kind, own, str(track.get("id", place)))
    return found


def _between(listed: dict[int, tuple[Corners, bool]]) -> dict[int, Corners]:
    """Return the boxes of a track in all frames in which it is seen."""
    frames, boxes = sorted(listed), dict[int, Corners]()
    for place, frame in enumerate(frames):
        start, outside = listed[frame]
        if outside:
            continue
        boxes[frame] = start
        if place + 1 == len(frames):
            continue
        following = frames[place + 1]
        end = start if listed[following][1] else listed[following][0]  # what leaves the picture stays where it was
        for between in range(frame + 1, following):
            share = (between - frame) / (following - frame)
            x1, y1, x2, y2 = (a + share * (b - a) for a, b in zip(start, end, strict=True))
            boxes[between] = (x1, y1, x2, y2)
    return boxes


def _read_pictures(file: BoxFile, pictures: list[Element], sources: dict[str, str]) -> FileBoxes:
    """Read pictures; those that CVAT made of a video are named frame_000000 and on, without an ending."""
    names = [picture.get("name", "") for picture in pictures]
    of_video = all(_OF_VIDEO.fullmatch(name) for name in names)
    found = FileBoxes(numbered="from 0" if of_video else "as named")
    for picture, name in zip(pictures, names, strict=True):
        where = f"{file.path}: image {name!r:.80}"
        video, frame = file.picture(name, where)
        if of_video:
            video = file.video(sources.get(picture.get("task_id", ""), sources.get("")))
        found.add_frame(video, frame)
        found.add_size(video, picture.get("width"), picture.get("height"))
        for box in picture.findall("box"):
            check_upright(where, box.get("rotation"))
            own = corners(where, [box.get(corner) for corner in _CORNERS], sides=False)
            found.add(video, frame, _label(where, box), own)
    return found


def _label(where: str, element: Element) -> str:
    label = element.get("label", "").strip()
    if not label:
        raise InputError(f"{where}: a {element.tag} without a label; expected one for each")
    return label
