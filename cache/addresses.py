"""Addresses of caches in object storage, which stand where paths stand: `s3://BUCKET/NAME.zarr`.

A `Path` made from such a text keeps one slash of the two. `place_of` gives an `Address` back, from the text or from
such a path, so that every message, config and record shows the address as the user wrote it.
"""

from __future__ import annotations

import re
from pathlib import Path, PosixPath
from urllib.parse import urlsplit

from ifcar.errors import InputError, one_line

SCHEMES = ("s3", "gs", "az", "https", "http")
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(?=[^/])")


class Address(PosixPath):
    """The address of a cache; a path in name only, for nothing is read through it."""

    def __str__(self) -> str:
        scheme, _, rest = super().__str__().partition(":/")
        return f"{scheme}://{rest}"

    def __fspath__(self) -> str:
        return str(self)

    def __reduce__(self) -> tuple[type[Address], tuple[str]]:
        return (Address, (super().__str__(),))

    @property
    def scheme(self) -> str:
        """What stands before `://`."""
        return str(self).partition(":")[0]

    @property
    def is_read_only(self) -> bool:
        """Whether it is a plain web server's, which takes no objects."""
        return self.scheme in ("https", "http")

    def exists(self) -> bool:
        """Return True: what is there shows when it is opened."""
        return True

    def is_dir(self) -> bool:
        """Return False: it is no local folder."""
        return False

    def is_file(self) -> bool:
        """Return False: it is no local file."""
        return False

    def absolute(self) -> Address:
        """Return itself."""
        return self


def place_of(text: str | Path) -> Path:
    """Return the `Address` that a text or path is, or else the path.

    Raises:
        InputError: neither of them, an address of an unknown scheme, without a name in it, or with credentials.
    """
    if isinstance(text, Address):
        return text
    if not isinstance(text, (str, Path)):  # a library's user may hand over an open cache
        raise InputError(f"the cache is {one_line(repr(text)):.200}; expected a path or an address")
    path = Path(text)
    if (scheme := _ADDRESS.match(str(text))) is None or path.exists():
        return path
    kind, rest = scheme[1].lower(), str(text)[scheme.end() :]
    if kind not in SCHEMES:
        known = ", ".join(f"{name}://" for name in SCHEMES)
        raise InputError(
            f"{kind}://{rest} is an address of a kind that is not known; expected a local path, or {known}"
        )
    parts = urlsplit(f"{kind}://{rest}")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise InputError(
            f"{kind}://{parts.netloc.rpartition('@')[2]}{parts.path}: the address holds more than a place, maybe "
            "a secret; put credentials into the environment (AWS_…, GOOGLE_…, AZURE_…) and give the bare address"
        )
    name = parts.path.strip("/")
    if not name:
        raise InputError(f"{kind}://{parts.netloc} names no cache; expected {kind}://{parts.netloc}/NAME.zarr")
    return Address(f"{kind}:/{parts.netloc}/{name}")
