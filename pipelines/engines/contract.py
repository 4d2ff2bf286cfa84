"""What an engine of `ifcar extract` does, wherever it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ifcar.cache.writer import CacheWriter
from ifcar.extract.engine import BlockTask
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.extraction.preparation import Preparation
from ifcar.pipelines.progress import Progress


class ExtractEngine(Protocol):
    """Computes blocks; which one it is changes no byte of a cache, as long as a backbone has as many threads."""

    def settle(self, config: ExtractConfig) -> ExtractConfig:
        """Return the options as every process of the engine shall read them.

        Raises:
            InputError: an option does not fit this engine, or the engine cannot be reached.
        """

    def run(
        self, preparation: Preparation, writer: CacheWriter, tasks: Sequence[BlockTask], progress: Progress
    ) -> None:
        """Compute every task and commit it through `writer`.

        Args:
            preparation: the extraction.
            writer: the open cache.
            tasks: blocks that are not committed, or reopened.
            progress: its stage is begun; told about finished rows.

        Raises:
            InputError: work cannot go on; what is committed is kept.
        """
