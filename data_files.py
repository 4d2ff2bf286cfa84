"""Which entries of a folder are data: all but hidden ones, and what operating systems and archivers leave there."""

from __future__ import annotations

from pathlib import Path

# Written by Windows' and Synology's viewers, macOS' Finder and archiver, and file systems; compared in lower case.
_LEFT_BY_SYSTEMS = frozenset(
    {
        "thumbs.db",
        "ehthumbs.db",
        "ehthumbs_vista.db",
        "desktop.ini",
        "icon\r",
        "__macosx",
        "@eadir",
        "#recycle",
        "$recycle.bin",
        "system volume information",
        "lost+found",
    }
)


def is_data(name: str) -> bool:
    """Return whether an entry of this name is data: not hidden ("._NAME", ".DS_Store"), and left by no system."""
    return not name.startswith(".") and name.lower() not in _LEFT_BY_SYSTEMS


def absence(path: Path) -> str:
    """Return how to say that a path is no file."""
    return "a folder, not a file" if path.is_dir() else "no such file"


def entries(folder: Path, *endings: str) -> list[Path]:
    """Return the entries of a folder that are data, by name; none where there is no such folder.

    Args:
        folder: the folder.
        endings: of the names, in lower case, as ".mp4"; none takes every entry.
    """
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if is_data(path.name) and (not endings or path.suffix.lower() in endings)
    )


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder that are data, by name; see `entries`."""
    return [path for path in entries(folder) if path.is_dir()]
