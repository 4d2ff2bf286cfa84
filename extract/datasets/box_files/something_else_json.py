"""Something-Else's JSON: {video: [{"name": "VIDEO/0001.jpg", "labels": [{"box2d", "standard_category"}, …]}, …]}."""

from __future__ import annotations

from ifcar.extract.datasets.box_files.contract import BoxFile, BoxForm, FileBoxes, register_form
from ifcar.extract.datasets.box_records import FRAME_NAME, read_tracks
from ifcar.extract.datasets.something_else import COCO_KEYS


@register_form
class SomethingElseJson(BoxForm):
    """See above; frames count from 1."""

    name = "Something-Else JSON"

    def owns(self, file: BoxFile) -> bool:
        if not isinstance(file.json, dict) or not COCO_KEYS.isdisjoint(file.json):
            return False
        first = next(iter(file.json.values()), None)
        return isinstance(first, list) and all(isinstance(record, dict) and "name" in record for record in first)

    def read(self, file: BoxFile) -> FileBoxes:
        found = FileBoxes(numbered="from 1")
        for name, records in file.json.items():
            read_tracks(file.path, name, records)  # refuses what is not of the form
            video = file.video(name)
            for record in records:
                match = FRAME_NAME.fullmatch(record["name"])
                assert match is not None
                frame = int(match["frame"])
                found.add_frame(video, frame)
                for label in record.get("labels") or []:
                    x1, y1, x2, y2 = (float(label["box2d"][corner]) for corner in ("x1", "y1", "x2", "y2"))
                    track = label.get("track")
                    own = None if track is None else str(track)
                    found.add(video, frame, label["standard_category"], (x1, y1, x2, y2), own)
        return found
