"""Whether a process on another machine sees what its driver sees: folders, versions, paths."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ifcar import __version__


@dataclass(frozen=True, kw_only=True, slots=True)
class DriverPlace:
    """What a process needs to work beside the driver.

    Args:
        working_folder: of the driver, absolute.
        environment: the driver's variables that start with IFCAR_.
        version: the driver's ifcar.
        paths: what must be there, absolute.
        mark: file that the driver wrote where results go, absolute.
        mark_text: what it holds; tells a shared folder from one of the same name.
    """

    working_folder: Path
    environment: Mapping[str, str]
    version: str
    paths: tuple[Path, ...]
    mark: Path
    mark_text: str

    def take(self) -> str:
        """Move this process there; return what differs from the driver in one line, or an empty string."""
        if __version__ != self.version:
            return f"its ifcar is {__version__}, the driver's is {self.version}"
        for path in (self.working_folder, *self.paths):
            if not path.exists():
                return f"it has no {path}; data and results must lie on a file system that every node shares"
        try:
            found = self.mark.read_text(encoding="utf-8")
        except OSError:
            found = ""
        if found != self.mark_text:
            return f"its {self.mark.parent} is not the driver's: they lie on different file systems"
        os.chdir(self.working_folder)
        os.environ.update(self.environment)
        return ""


@contextmanager
def place_here(mark: Path, paths: Sequence[Path]) -> Iterator[DriverPlace]:
    """Leave a mark where results go and return this process's place; the mark is removed at the end.

    Args:
        mark: the file to write, in a folder that is there.
        paths: what every process must see.
    """
    text = secrets.token_hex(16)
    mark.write_text(text, encoding="utf-8")
    try:
        yield DriverPlace(
            working_folder=Path.cwd(),
            environment={key: value for key, value in os.environ.items() if key.startswith("IFCAR_")},
            version=__version__,
            paths=tuple(path.absolute() for path in paths),
            mark=mark.absolute(),
            mark_text=text,
        )
    finally:
        mark.unlink(missing_ok=True)
