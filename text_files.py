"""Text of files that others wrote: UTF-8, with or without a byte order mark; any other text is refused in one line."""

from __future__ import annotations

import codecs
from pathlib import Path

from ifcar.errors import InputError

# UTF-32's mark begins with that of UTF-16.
_OTHER_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def without_mark(content: bytes, where: object) -> bytes:
    """Return the beginning of a text, or all of it, as bytes without UTF-8's byte order mark.

    Args:
        content: at least the first four bytes, where there are as many.
        where: the file or line, for the message.

    Raises:
        InputError: it begins with the mark of another encoding, or holds a zero byte, as UTF-16 does and no text.
    """
    other = next((name for mark, name in _OTHER_MARKS.items() if content.startswith(mark)), None)
    if other is not None:
        raise InputError(f"{where}: text in {other}, as its byte order mark says; expected UTF-8, save it as that")
    if b"\0" in content:
        raise InputError(f"{where}: holds zero bytes; expected text in UTF-8")
    return content.removeprefix(codecs.BOM_UTF8)


def decode_text(content: bytes, where: object) -> str:
    """Return a text, or a line of one, without a byte order mark.

    Raises:
        InputError: it is not UTF-8.
    """
    try:
        return without_mark(content, where).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not UTF-8 text ({error.reason}); save it as UTF-8, or download it again") from error


def read_text(path: Path) -> str:
    """Return the text of a file; see `decode_text`."""
    return decode_text(path.read_bytes(), path)
