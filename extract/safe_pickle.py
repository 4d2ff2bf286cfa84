"""Reading a data set's pickle as plain data, whatever is in it.

Python's own unpickler runs code that the file names, and trusts the sizes that it states. This one is a small machine
of ours over the same opcodes (protocols 0 to 5): it builds containers, numbers, text, bytes and numeric numpy arrays,
and refuses all else before anything happens. Memory and time stay in proportion to the file: every opcode that makes
an object is charged for it, a stated size must be in the file, and what is shared is counted as often as a reader
would meet it.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from ifcar.errors import InputError, MissingDataError
from ifcar.extract.pickle_globals import Name, PendingArray, PendingType, fill_array, find_global, set_byte_order
from ifcar.extract.plain_values import RefusedError, check_key, check_values, make_dict, make_set

MAX_FILE_BYTES = 1 << 30
_FREE_BYTES, _BYTES_PER_BYTE, _MAX_MEMORY_BYTES = 1 << 28, 24, 1 << 33
_MAX_INT_BYTES, _MAX_INT_DIGITS = 255, 600
_HIGHEST_PROTOCOL = 5
_CUT_OFF = "ends in the middle of a value; fetch it again"
_NO_PICKLE = "is no pickle that can be read"


def load_pickle(path: Path, encoding: Literal["latin1", "utf-8"] = "latin1") -> object:
    """Return the plain data that a pickle file holds, without running anything.

    Args:
        path: file of one pickle, protocol 0 to 5, at most 1 GiB.
        encoding: of the 8-bit text that Python 2 wrote.

    Returns:
        dict, list, tuple, set, frozenset, str, bytes, bytearray, int, float, complex, bool, None, numeric numpy arrays
        and scalars, at most 64 levels deep and without cycles; an OrderedDict comes as a dict.

    Raises:
        MissingDataError: no such file.
        InputError: it is damaged or too large, asks for anything else (the message names it), or takes memory or time
            out of proportion to its size.
    """
    if not path.is_file():
        raise MissingDataError(f"{path}: no such file; expected a pickle of plain data")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise InputError(f"{path}: {path.stat().st_size:,} bytes; a pickle is read up to {MAX_FILE_BYTES:,}")
    try:
        value = _Machine(path.read_bytes(), encoding).run()
        check_values(value)
    except RefusedError as error:
        raise InputError(f"{path}: {error}") from error
    except (ValueError, TypeError, LookupError, struct.error, OverflowError) as error:
        raise InputError(f"{path}: {_NO_PICKLE} ({' '.join(str(error).split())[:100]})") from error
    return value


class _Machine:
    """The pickle machine: a stack, marks on it, and a memo of numbered values."""

    def __init__(self, data: bytes, encoding: str) -> None:
        self.data, self.encoding, self.at = data, encoding, 0
        self.stack: list[object] = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}

    def run(self) -> object:
        """Execute the whole pickle and return its one value."""
        data, spent = self.data, 0
        limit = min(_FREE_BYTES + _BYTES_PER_BYTE * len(data), _MAX_MEMORY_BYTES)
        while True:
            if self.at >= len(data):
                raise RefusedError(_CUT_OFF if data else "is empty; fetch it again")
            code = data[self.at]
            self.at += 1
            if code == _STOP:
                break
            step = _STEPS.get(code)
            if step is None:
                raise RefusedError(_REFUSED.get(code, _NO_PICKLE))
            step(self)
            spent += _COSTS.get(code, _COST)
            if spent > limit:
                raise RefusedError(f"takes more than {limit:,} bytes of memory for {len(data):,} bytes of file")
        if len(self.stack) != 1 or self.marks or self.at != len(data):
            raise RefusedError("holds something else than one pickle")
        return self.stack[0]

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes of the file, which must be there."""
        if count > len(self.data) - self.at:
            raise RefusedError(_CUT_OFF)
        self.at += count
        return self.data[self.at - count : self.at]

    def sized(self, width: int) -> bytes:
        """Return bytes whose number stands before them in `width` bytes."""
        return self.take(int.from_bytes(self.take(width), "little"))

    def number(self, width: int) -> int:
        """Return an unsigned number of `width` bytes."""
        return int.from_bytes(self.take(width), "little")

    def line(self) -> bytes:
        """Return the bytes up to the next line feed."""
        end = self.data.find(b"\n", self.at)
        if end < 0:
            raise RefusedError(_CUT_OFF)
        start, self.at = self.at, end + 1
        return self.data[start:end]

    def pop(self) -> object:
        """Take the top of the stack, which must lie above the last mark."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise RefusedError(_NO_PICKLE)
        return self.stack.pop()

    def popped_mark(self) -> list[object]:
        """Take everything above the last mark."""
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def push(self, value: object) -> None:
        """Put a value on the stack."""
        self.stack.append(value)

    def remember(self, place: int) -> None:
        """Number the top of the stack."""
        value = self.stack[-1]
        if isinstance(value, PendingArray):
            value.places.append(place)
        self.memo[place] = value

    def text(self, raw: bytes) -> str:
        """Return the text of a string that Python 2 wrote."""
        return raw.decode(self.encoding)


def _integer(text: bytes) -> int | bool:
    if len(text) > _MAX_INT_DIGITS:
        raise RefusedError(f"holds an integer of {len(text):,} digits")
    return {b"00": False, b"01": True}[text] if text in (b"00", b"01") else int(text.rstrip(b"L"))


def _long(m: _Machine, width: int) -> int:
    size = m.number(width)
    if size > _MAX_INT_BYTES:
        raise RefusedError(f"holds an integer of {size:,} bytes")
    return int.from_bytes(m.take(size), "little", signed=True)


def _quoted(m: _Machine) -> str:
    line = m.line()
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise RefusedError(_NO_PICKLE)
    raw = codecs.escape_decode(line[1:-1])[0]
    assert isinstance(raw, bytes)
    return m.text(raw)


def _unicode(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogatepass")


def _last(m: _Machine, count: int) -> tuple[object, ...]:
    return tuple([m.pop() for _ in range(count)][::-1])


def _proto(m: _Machine) -> None:
    version = m.number(1)
    if version > _HIGHEST_PROTOCOL:
        raise RefusedError(f"is a pickle of protocol {version}; up to {_HIGHEST_PROTOCOL} are read")


def _append(m: _Machine, items: list[object]) -> None:
    target = m.stack[-1]
    if type(target) is not list:
        raise RefusedError(_NO_PICKLE)
    target.extend(items)


def _set_items(m: _Machine, items: list[object]) -> None:
    target = m.stack[-1]
    if type(target) is not dict:
        raise RefusedError(_NO_PICKLE)
    make_dict(items, into=target)


def _add_items(m: _Machine) -> None:
    items, target = m.popped_mark(), m.stack[-1]
    if type(target) is not set:
        raise RefusedError(_NO_PICKLE)
    for item in items:
        check_key(item)
        target.add(item)


def _global(m: _Machine) -> None:
    module, name = _unicode(m.line()), _unicode(m.line())
    m.push(find_global(module, name))


def _stack_global(m: _Machine) -> None:
    module, name = _last(m, 2)
    m.push(find_global(str(module), str(name)))


def _reduce(m: _Machine) -> None:
    called, arguments = _last(m, 2)
    if not isinstance(called, Name) or called.call is None or type(arguments) is not tuple:
        raise RefusedError("calls something that is no listed function; only plain data is read")
    m.push(called.call(*arguments))


def _build(m: _Machine) -> None:
    target, state = _last(m, 2)
    if isinstance(target, PendingArray):
        array = fill_array(state)
        for place in target.places:
            m.memo[place] = array
        m.push(array)
    elif isinstance(target, PendingType):
        set_byte_order(target, state)
        m.push(target)
    else:
        raise RefusedError(f"sets the state of a {type(target).__name__}; only plain data is read")


_STOP = ord(".")
_COST = 40
_COSTS: Mapping[int, int] = {ord("}"): 64, ord("]"): 56, 0x8F: 216, 0x91: 216, ord("d"): 64, ord("l"): 56, 0x94: 100}
_NO_CODE = "asks for an object of a class; only plain containers, numbers, text and numeric arrays are read"
_REFUSED: Mapping[int, str] = {
    **dict.fromkeys((ord("i"), ord("o"), 0x81, 0x92), _NO_CODE),
    **dict.fromkeys((0x82, 0x83, 0x84), "asks for a registered extension; only plain data is read"),
    **dict.fromkeys((ord("P"), ord("Q"), 0x97, 0x98), "refers to something outside the file; only plain data is read"),
}
_STEPS: Mapping[int, Callable[[_Machine], object]] = {
    0x80: _proto,
    0x95: lambda m: m.take(8),
    ord("("): lambda m: m.marks.append(len(m.stack)),
    ord("0"): lambda m: m.pop(),
    ord("1"): lambda m: m.popped_mark(),
    ord("2"): lambda m: m.push(m.stack[-1]),
    ord("N"): lambda m: m.push(None),
    0x88: lambda m: m.push(True),
    0x89: lambda m: m.push(False),
    ord("I"): lambda m: m.push(_integer(m.line())),
    ord("J"): lambda m: m.push(int.from_bytes(m.take(4), "little", signed=True)),
    ord("K"): lambda m: m.push(m.number(1)),
    ord("M"): lambda m: m.push(m.number(2)),
    ord("L"): lambda m: m.push(int(_integer(m.line()))),
    0x8A: lambda m: m.push(_long(m, 1)),
    0x8B: lambda m: m.push(_long(m, 4)),
    ord("F"): lambda m: m.push(float(m.line())),
    ord("G"): lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    ord("S"): lambda m: m.push(_quoted(m)),
    ord("T"): lambda m: m.push(m.text(m.sized(4))),
    ord("U"): lambda m: m.push(m.text(m.sized(1))),
    ord("B"): lambda m: m.push(m.sized(4)),
    ord("C"): lambda m: m.push(m.sized(1)),
    0x8E: lambda m: m.push(m.sized(8)),
    0x96: lambda m: m.push(bytearray(m.sized(8))),
    ord("V"): lambda m: m.push(m.line().decode("raw-unicode-escape")),
    ord("X"): lambda m: m.push(_unicode(m.sized(4))),
    0x8C: lambda m: m.push(_unicode(m.sized(1))),
    0x8D: lambda m: m.push(_unicode(m.sized(8))),
    ord(")"): lambda m: m.push(()),
    ord("t"): lambda m: m.push(tuple(m.popped_mark())),
    0x85: lambda m: m.push(_last(m, 1)),
    0x86: lambda m: m.push(_last(m, 2)),
    0x87: lambda m: m.push(_last(m, 3)),
    ord("]"): lambda m: m.push([]),
    ord("l"): lambda m: m.push(m.popped_mark()),
    ord("a"): lambda m: _append(m, [m.pop()]),
    ord("e"): lambda m: _append(m, m.popped_mark()),
    ord("}"): lambda m: m.push({}),
    ord("d"): lambda m: m.push(make_dict(m.popped_mark())),
    ord("s"): lambda m: _set_items(m, list(_last(m, 2))),
    ord("u"): lambda m: _set_items(m, m.popped_mark()),
    0x8F: lambda m: m.push(set()),
    0x90: _add_items,
    0x91: lambda m: m.push(frozenset(make_set(m.popped_mark()))),
    ord("g"): lambda m: m.push(m.memo[int(m.line())]),
    ord("h"): lambda m: m.push(m.memo[m.number(1)]),
    ord("j"): lambda m: m.push(m.memo[m.number(4)]),
    ord("p"): lambda m: m.remember(int(m.line())),
    ord("q"): lambda m: m.remember(m.number(1)),
    ord("r"): lambda m: m.remember(m.number(4)),
    0x94: lambda m: m.remember(len(m.memo)),
    ord("c"): _global,
    0x93: _stack_global,
    ord("R"): _reduce,
    ord("b"): _build,
}
