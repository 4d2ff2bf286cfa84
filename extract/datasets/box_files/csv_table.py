"""A table of boxes: a header and rows of frame (from 1), label, x1, y1, x2, y2 in pixels, perhaps video and track."""

from __future__ import annotations

import hashlib

from ifcar.errors import InputError
from ifcar.extract.datasets.box_files.contract import (
    Box,
    BoxFile,
    BoxForm,
    FileBoxes,
    corners,
    frame_number,
    register_form,
)
from ifcar.extract.datasets.text_rows import column_rows

_CORNERS = ("x1", "y1", "x2", "y2")
_COLUMNS, _OPTIONAL = ("frame", "label", *_CORNERS), ("video", "track")


@register_form
class CsvTable(BoxForm):
    """See above."""

    name = "CSV"

    def owns(self, file: BoxFile) -> bool:
        """See `BoxForm`."""
        first = file.begin.removeprefix(b"\xef\xbb\xbf").split(b"\n", 1)[0].decode("utf-8", "replace")
        return {"frame", "x1"} <= {name.strip().strip('"') for name in first.split(",")}

    def read(self, file: BoxFile) -> FileBoxes:
        """See `BoxForm`."""
        found, what = FileBoxes(numbered="from 1"), f"a header and rows of {', '.join((*_COLUMNS, *_OPTIONAL))}"
        for where, row in column_rows(file.path, hashlib.sha256(), _COLUMNS, what, optional=_OPTIONAL):
            if not row["label"]:
                raise InputError(f"{where}: label is empty; expected the class of the box")
            frame = frame_number(where, row["frame"], least=1)
            own = corners(where, [row[name] for name in _CORNERS], sides=False)
            found.add(file.video(row.get("video") or None), Box(frame, row["label"], own, row.get("track") or None))
        return found
