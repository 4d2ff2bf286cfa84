"""What verification finds: one record for each damaged row, file or table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self


class DamageKind(StrEnum):
    """What is damaged."""

    ROW = "row"
    INDEX = "index"
    FOREIGN = "foreign shard"
    MISSING = "missing file"
    METADATA = "metadata"
    COMMIT = "commit record"
    STATUS = "status"
    STRAY = "stray file"


@dataclass(frozen=True, kw_only=True, slots=True)
class Damage:
    """One thing that is wrong.

    Args:
        kind: what is damaged.
        path: the file, relative to the cache.
        problem: one line with what was found and expected; for rows with clip id and view.
        block: the block that must be computed again, or None.
        array: the array over rows, or None.
        row: the damaged row, or None when more than one or none is meant.
        clip_id: the row's clip, or None.
        view: the row's view, or None.
    """

    kind: DamageKind
    path: str
    problem: str
    block: int | None = None
    array: str | None = None
    row: int | None = None
    clip_id: str | None = None
    view: int | None = None

    @classmethod
    def of_row(
        cls, path: str, problem: str, array: str, row: int, clips: tuple[Sequence[str], int], block: int | None = None
    ) -> Self:
        """Return the damage of a row of a cache with these clips: their ids, and the rows of each."""
        clip, view = divmod(row, clips[1])
        return cls(
            kind=DamageKind.ROW,
            path=path,
            problem=problem,
            block=block,
            array=array,
            row=row,
            clip_id=clips[0][clip],
            view=view,
        )

    def __str__(self) -> str:
        return f"{self.kind}: {self.path}: {self.problem}"


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyReport:
    """What a cache's verification found.

    Args:
        path: the cache.
        num_rows: rows of the cache; 0 when its metadata is not usable.
        num_rows_checked: rows of committed blocks, all of whose bytes were read.
        num_failed: rows that extraction marked as failed, which is no damage.
        pending_blocks: blocks without a commit record, which is no damage either.
        metadata_usable: False when attributes and ids do not match the fingerprint; no row was checked then.
        damages: everything that is wrong; of parts, with the part before the file.
    """

    path: Path
    num_rows: int = 0
    num_rows_checked: int = 0
    num_failed: int = 0
    pending_blocks: tuple[int, ...] = ()
    metadata_usable: bool = True
    damages: tuple[Damage, ...] = ()

    @property
    def num_pending(self) -> int:
        """Return how many rows, of a cache or list of parts without damage, are not extracted yet."""
        return self.num_rows - self.num_rows_checked

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong; a cache that is not finished yet can be ok."""
        return not self.damages

    def damaged_blocks(self) -> list[int]:
        """Return the blocks that must be computed again, ascending."""
        return sorted({damage.block for damage in self.damages if damage.block is not None})
