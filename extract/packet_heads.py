"""What the first bytes of a packet of pictures say, as far as containers do not say it, or say it wrongly."""

from __future__ import annotations

from collections.abc import Iterator

_LONGEST_HEAD = 64  # bytes of a slice's header that are looked at
_SLICES = (1, 2, 5)  # NAL units of H.264 that begin a slice, 5 one of an IDR picture
_INTRA_SLICES = (2, 4, 7, 9)


def is_hidden(codec: str, content: memoryview) -> bool:
    """Return whether a VP8 or VP9 packet holds a frame that is kept for reference and never shown.

    RFC 6386 (§9.1) and the VP9 bitstream specification (§6.2) lay out the first byte. The last one marks a VP9 packet
    of several frames, of which one is shown.
    """
    head, tail = content[0], content[-1]
    if codec == "vp8":
        return not head & 0x10
    if codec != "vp9" or tail & 0xE0 == 0xC0:
        return False
    at = 3 if head & 0x30 == 0x30 else 4  # profile 3 has one bit more in front
    shows_existing, shows = head >> (at - 1) & 1, head >> (at - 3) & 1
    return not shows_existing and not shows


def is_intra(content: bytes, extradata: bytes) -> bool:
    """Return whether an H.264 packet that is marked as a key frame is one.

    Where pictures are renewed bit by bit (intra refresh), recovery points are marked, at which no picture is whole.

    Args:
        content: the packet.
        extradata: of the stream; says whether NAL units have their length in front (ISO/IEC 14496-15) or a start code.
    """
    units = _with_lengths(content, (extradata[4] & 3) + 1) if extradata[:1] == b"\x01" else _with_codes(content)
    for unit in units:
        if unit[0] & 31 in _SLICES:
            bits = "".join(f"{byte:08b}" for byte in unit[1:])
            _, after = _exp_golomb(bits, 0)  # first_mb_in_slice
            return unit[0] & 31 == 5 or _exp_golomb(bits, after)[0] in _INTRA_SLICES
    return True


def _with_lengths(content: bytes, length_size: int) -> Iterator[bytes]:
    at = 0
    while at + length_size < len(content):
        length = int.from_bytes(content[at : at + length_size], "big")
        at += length_size
        yield content[at : at + min(length, _LONGEST_HEAD)] or b"\0"
        at += length


def _with_codes(content: bytes) -> Iterator[bytes]:
    at = content.find(b"\0\0\1")
    while 0 <= at < len(content) - 3:
        yield content[at + 3 : at + 3 + _LONGEST_HEAD]
        at = content.find(b"\0\0\1", at + 3)


def _exp_golomb(bits: str, at: int) -> tuple[int, int]:
    """Return the unsigned number whose code begins there (H.264, §9.1), and where the code ends."""
    zeros = bits.find("1", at) - at
    if zeros < 0:
        return 0, len(bits)
    end = at + 2 * zeros + 1
    return int(bits[at + zeros : end], 2) - 1, end
