"""Reading annotation files of comma-separated rows or of words a line, with a place for every message."""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from ifcar.errors import InputError, MissingDataError
from ifcar.text_files import decode_text

MAX_LINE_BYTES = 1 << 20
_WHOLE_DIGITS = 9


def csv_rows(path: Path, digest: hashlib._Hash, what: str) -> Iterator[tuple[str, list[str]]]:
    """Yield ("FILE line N", fields) of every row that is not empty, streamed.

    Args:
        path: comma-separated values, UTF-8.
        digest: takes the file's bytes; complete when the iterator has ended.
        what: what the file is, for the message when it is not there.

    Raises:
        MissingDataError: no such file.
        InputError: not such text.
    """
    reader = csv.reader(_lines(path, digest, what), strict=True)
    try:
        for row in reader:
            if row:
                yield f"{path} line {reader.line_num}", row
    except csv.Error as error:
        # csv's own words about a carriage return name a way to open files, which no user chooses.
        fault = "a carriage return within the line" if "new-line character" in str(error) else str(error)
        raise InputError(
            f"{path} line {reader.line_num}: no comma-separated row ({fault}); save it again as CSV with lines that "
            "end with LF or CR LF, or download it again"
        ) from error


def column_rows(
    path: Path,
    digest: hashlib._Hash,
    columns: Sequence[str],
    what: str,
    *,
    optional: Sequence[str] = (),
    unread: list[str] | None = None,
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield ("FILE line N", text by column) of every row below a header, without blanks around; see `csv_rows`.

    Args:
        path: comma-separated values.
        digest: takes the file's bytes.
        columns: those that are yielded; the header may name others.
        what: what the file is, for messages.
        optional: yielded too where the header names them.
        unread: takes the names of the header that are neither.

    Raises:
        MissingDataError: no such file.
        InputError: there is no header, it lacks a column or names one twice, or a row has another number of fields.
    """
    header: list[str] = []
    read: list[str] = []
    for where, row in csv_rows(path, digest, what):
        if not header:
            header = [name.strip() for name in row]
            found = [name for name in optional if name in header]
            if fault := fault_of_columns(header, (*columns, *found)):
                raise InputError(f"{where}: {fault}; expected {', '.join(columns)} among others")
            read = [*columns, *found]
            if unread is not None:
                unread += [name for name in header if name not in read]
        elif len(row) != len(header):
            raise InputError(f"{where}: {len(row)} columns; expected {len(header)}, as in the header")
        else:
            yield where, {name: row[header.index(name)].strip() for name in read}
    if not header:
        raise InputError(f"{path}: empty; expected a header with {', '.join(columns)}")


def text_rows(path: Path, digest: hashlib._Hash, what: str) -> Iterator[tuple[str, str]]:
    """Yield ("FILE line N", text) of every line that is not blank, without blanks around it; see `csv_rows`."""
    for number, line in enumerate(_lines(path, digest, what), 1):
        if text := line.strip():
            yield f"{path} line {number}", text


def word_rows(path: Path, digest: hashlib._Hash, what: str) -> Iterator[tuple[str, list[str]]]:
    """Yield ("FILE line N", words) of every line that is not blank; see `csv_rows`."""
    for where, text in text_rows(path, digest, what):
        yield where, text.split()


def class_names(path: Path, digest: hashlib._Hash) -> list[str]:
    """Return the class names of a file with one a line. Raises InputError when there is none, or one twice."""
    names = [name for _, name in text_rows(path, digest, "a class a line")]
    doubled = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if not names or doubled is not None:
        found = "holds no class" if not names else f"names the class {doubled!r:.80} twice"
        raise InputError(f"{path}: {found}; expected each class once, one a line")
    return names


def finite_number(where: str, name: str, text: str) -> float:
    """Return the number that a field holds. Raises InputError when it is none, or not finite."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{where}: {name} is {text!r:.40}; expected a finite number")
    return value


def whole_number(where: str, name: str, text: str) -> int:
    """Return the whole number from 0 that a field holds. Raises InputError when it is none, or has over nine digits."""
    if not (text.isascii() and text.isdecimal() and len(text) <= _WHOLE_DIGITS):
        raise InputError(f"{where}: {name} is {text!r:.40}; expected a whole number from 0")
    return int(text)


def _lines(path: Path, digest: hashlib._Hash, what: str) -> Iterator[str]:
    if not path.is_file():
        raise MissingDataError(f"{path}: no such file; expected {what}")
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES + 1), b""), 1):
            if len(line) > MAX_LINE_BYTES:
                raise InputError(f"{path} line {number}: over {MAX_LINE_BYTES:,} bytes; a line is read up to that")
            digest.update(line)
            yield decode_text(line, f"{path} line {number}")  # a mark may stand at every line, in joined files


def fault_of_columns(header: Sequence[str], columns: Sequence[str]) -> str:
    """Return what is wrong about a header that has one of these columns twice, or not; empty where it has each once."""
    wrong = next((name for name in columns if header.count(name) != 1), None)
    if wrong is None:
        return ""
    if wrong in header:
        return f"the header names a column twice, {wrong}"
    if len(header) == 1 and (separator := next((mark for mark in ";\t|" if mark in header[0]), None)):
        return f"the header is one column, {header[0]!r:.100}, separated by {separator!r}; separate columns by commas"
    alike = next((name for name in header if name.lower() == wrong), None)
    small = "" if alike is None else f" (it has {alike!r}; in small letters)"
    return f"the header lacks the column {wrong}{small}"
