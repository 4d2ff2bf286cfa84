"""The engine that runs here: one backbone in this process, decoding in its children."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ifcar.cache.writer import CacheWriter
from ifcar.devices import choose_device
from ifcar.extract.engine import BlockTask, extract_rows
from ifcar.extract.extractor import EngineOptions
from ifcar.heap import keep_freed_memory
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.extraction.preparation import Preparation
from ifcar.pipelines.progress import Progress

MOST_WORKERS, MOST_BESIDE_GPU = 8, 32


def engine_options(config: ExtractConfig, default_workers: int) -> EngineOptions:
    """Return how the engine of one process runs, with this many decoders, up to a limit, where none are named."""
    device = choose_device(config.device)
    most = MOST_WORKERS if device == "cpu" else MOST_BESIDE_GPU
    return EngineOptions(
        batch_size=config.batch_size,
        num_workers=min(most, default_workers) if config.workers is None else config.workers,
        device=device,
        precision=config.precision,
        compile=config.compile,
    )


class LocalEngine:
    """Computes blocks one after the other, see `ExtractEngine`."""

    def settle(self, config: ExtractConfig) -> ExtractConfig:
        """Return the options as they are, once the device that they name is there."""
        choose_device(config.device)
        return config

    def run(
        self, preparation: Preparation, writer: CacheWriter, tasks: Sequence[BlockTask], progress: Progress
    ) -> None:
        """Compute and commit the tasks in order."""
        options = engine_options(preparation.config, os.cpu_count() or 1)
        keep_freed_memory()
        failed = 0

        def on_rows(count: int, bad: int) -> None:
            nonlocal failed
            failed += bad
            progress.advance(count, note=f"{failed} failed" if failed else "")

        extract_rows(
            writer.stage,
            preparation.views(),
            preparation.extractor(options),
            options,
            tasks,
            on_rows,
            writer.write_block,
        )
