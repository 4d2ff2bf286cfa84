"""JSON that a data set comes with, read strictly."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from ifcar.errors import InputError
from ifcar.text_files import read_text

MAX_JSON_BYTES = 1 << 28


def read_json(path: Path) -> Any:
    """Parse a JSON file, strictly: no NaN or infinity, no key twice.

    Raises:
        InputError: it is not that; the message says where it breaks.
    """
    size = path.stat().st_size
    if size > MAX_JSON_BYTES:
        raise InputError(f"{path}: {size:,} bytes; a file of this kind is read up to {MAX_JSON_BYTES:,}")
    text = read_text(path)
    try:
        return json.loads(text, parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_no_key_twice)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}: not valid JSON at line {error.lineno}, column {error.colno} ({error.msg}); download it again"
        ) from error
    except RecursionError as error:
        raise InputError(f"{path}: nested too deeply to be read; expected flat JSON") from error
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error


def _no_constant(name: str) -> float:
    raise ValueError(f"holds {name}, which is no number; expected finite numbers")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"holds the number {text[:40]}, which is too large")
    return value


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"names the key {twice!r:.80} twice; expected each once")
    return content
