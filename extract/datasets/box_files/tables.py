"""Tables of boxes, as CSV or Parquet: frame (from 1), label, x1, y1, x2, y2 in pixels, perhaps video and track."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ifcar.errors import InputError, MissingDataError, one_line
from ifcar.extract.datasets.box_files.contract import BoxFile, BoxForm, FileBoxes, corners, frame_number, register_form
from ifcar.extract.datasets.text_rows import column_rows, fault_of_columns

_CORNERS = ("x1", "y1", "x2", "y2")
_COLUMNS, _OPTIONAL = ("frame", "label", *_CORNERS), ("video", "track")
_PARQUET = b"PAR1"

Rows = Iterable[tuple[str, Mapping[str, Any]]]
"""The place of each row, and its values by column; what is not stated is None or an empty text."""


@register_form
class CsvTable(BoxForm):
    """A header and rows, with commas between."""

    name = "CSV"

    def owns(self, file: BoxFile) -> bool:
        first = file.begin.split(b"\n", 1)[0].decode("utf-8", "replace")
        names = {name.strip().strip('"') for name in re.split("[,;\\t]", first)}
        return "frame" in names and not names.isdisjoint({"label", *_CORNERS})

    def read(self, file: BoxFile) -> FileBoxes:
        what = f"a header and rows of {', '.join((*_COLUMNS, *_OPTIONAL))}"
        found = FileBoxes(numbered="from 1")
        rows = column_rows(file.path, hashlib.sha256(), _COLUMNS, what, optional=_OPTIONAL, unread=found.unread)
        return _add_boxes(file, rows, found)


@register_form
class ParquetTable(BoxForm):
    """The same columns: text, whole numbers and numbers; a video and a track may be any of them. Needs pyarrow."""

    name = "Parquet"

    def owns(self, file: BoxFile) -> bool:
        return file.begin.startswith(_PARQUET)

    def read(self, file: BoxFile) -> FileBoxes:
        """See `BoxForm`. Raises MissingDataError where pyarrow is not installed."""
        found = FileBoxes(numbered="from 1")
        return _add_boxes(file, _parquet_rows(file.path, found.unread), found)


def _add_boxes(file: BoxFile, rows: Rows, found: FileBoxes) -> FileBoxes:
    for where, row in rows:
        label = row["label"]
        if not isinstance(label, str) or not label:
            raise InputError(f"{where}: label is {'empty' if label in (None, '') else repr(label)}; expected the class")
        frame = frame_number(where, row["frame"], least=1)
        own = corners(where, [row[name] for name in _CORNERS], sides=False)
        found.add(file.video(_name(row.get("video"))), frame, label, own, _name(row.get("track")))
    return found


def _name(value: Any) -> str | None:
    """Return the name that a video or track has, perhaps as a number; None where there is none, as NaN is."""
    if value is None or value in ("", b"") or value != value:
        return None
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _parquet_rows(path: Path, unread: list[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingDataError(
            f"{path}: a Parquet file, which takes pyarrow: pip install 'ifcar[parquet]', or save the table as CSV"
        ) from error
    try:
        with parquet.ParquetFile(path) as table:
            header = table.schema_arrow.names
            if fault := fault_of_columns(header, (*_COLUMNS, *(name for name in _OPTIONAL if name in header))):
                raise InputError(f"{path}: {fault}; expected {', '.join(_COLUMNS)} among others")
            wanted = [name for name in (*_COLUMNS, *_OPTIONAL) if name in header]
            unread += [name for name in header if name not in wanted]
            number = 0
            for batch in table.iter_batches(columns=wanted):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path} row {number}", row
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: damaged Parquet ({one_line(error)[:200]}); save it again") from error
