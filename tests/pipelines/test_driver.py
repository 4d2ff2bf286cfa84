"""The driver of an extraction on many actors, on a clock of its own: each block once, whatever the actors do."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from fixtures.simulated_actors import Life, SimulatedActors
from hypothesis import given, settings
from hypothesis import strategies as st

from ifcar.cache.arrays import CacheSpec
from ifcar.cache.durable import PARTIAL_SUFFIX
from ifcar.cache.schema import Provenance
from ifcar.cache.verify import verify_cache
from ifcar.cache.writer import CacheWriter
from ifcar.errors import InputError
from ifcar.extract.engine import BlockTask
from ifcar.pipelines.engines.driver import drive
from ifcar.pipelines.engines.same_place import place_here
from ifcar.pipelines.progress import Silent


class Count(Silent):
    """Adds up what it is told."""

    def __init__(self) -> None:
        self.done = 0
        self.lines: list[str] = []

    def advance(self, count: int = 1, note: str = "") -> None:
        assert count >= 0
        self.done += count

    def say(self, line: str) -> None:
        self.lines.append(line)


def empty_cache(path: Path, num_blocks: int) -> CacheWriter:
    return CacheWriter.create(
        path,
        spec=CacheSpec.standard(num_frames=1, num_steps=1, num_instances=1),
        provenance=Provenance(identity={}, environment={}),
        clip_ids=[f"c{clip}" for clip in range(num_blocks)],
        num_views=256,
        protocols=[],
    )


def tasks_of(writer: CacheWriter) -> list[BlockTask]:
    return [BlockTask(block=block, rows=writer.rows_of(block)) for block in writer.pending_blocks()]


def finish(path: Path, lives: list[Life], num_blocks: int) -> tuple[CacheWriter, SimulatedActors, Count]:
    writer, count = empty_cache(path, num_blocks), Count()
    actors = SimulatedActors(writer.stage, lives)
    drive(tasks_of(writer), actors, writer, count, actors.clock)
    return writer, actors, count


lives = st.builds(
    Life,
    joins=st.floats(0, 6),
    block_sec=st.floats(0.1, 9),
    dies=st.floats(6, 15) | st.just(float("inf")),
    is_cut_off=st.booleans(),
)


@settings(max_examples=12, deadline=None)
@given(others=st.lists(lives, max_size=4), num_blocks=st.integers(1, 9))
def test_every_block_is_committed_whatever_actors_do(
    tmp_path_factory: pytest.TempPathFactory, others: list[Life], num_blocks: int
) -> None:
    path = tmp_path_factory.mktemp("cache") / "a.zarr"
    writer, _, count = finish(path, [Life(joins=3.0), *others], num_blocks)
    assert writer.pending_blocks() == [] and verify_cache(path).ok
    assert count.done == num_blocks * 256
    assert not list(path.rglob(f"*{PARTIAL_SUFFIX}"))


def test_blocks_of_a_lost_actor_are_next(tmp_path: Path) -> None:
    _, actors, count = finish(tmp_path / "a.zarr", [Life(), Life(joins=0.1, block_sec=5.0, dies=2.5)], 9)
    lost = [block for _, actor, block in actors.sent if actor == 1]
    after = [block for at, actor, block in actors.sent if actor == 0 and at >= 2.5]
    assert len(lost) == 2 and after[: len(lost)] == lost
    assert count.lines == ["n1 is gone; its blocks go to others"]


def test_idle_actor_does_the_block_of_a_straggler_and_the_first_copy_counts(tmp_path: Path) -> None:
    """The straggler's second block is taken at once, its first when it is overdue; its own copy is removed."""
    straggler = Life(joins=0.1, block_sec=9.0)
    _, actors, count = finish(tmp_path / "a.zarr", [Life(block_sec=2.0), straggler], 6)
    twice = [block for _, actor, block in actors.sent if actor == 1]
    assert set(twice) <= {block for _, actor, block in actors.sent if actor == 0}
    assert actors.now < straggler.joins + straggler.block_sec * 2 and count.done == 6 * 256
    assert not list((tmp_path / "a.zarr").rglob(f"*{PARTIAL_SUFFIX}"))


def test_no_block_is_repeated_while_others_wait(tmp_path: Path) -> None:
    _, actors, _ = finish(tmp_path / "a.zarr", [Life(), Life(block_sec=1.3), Life(joins=2.0, block_sec=30.0)], 10)
    blocks = [block for _, _, block in actors.sent]
    assert len(blocks) > 10 and sorted(blocks[:10]) == list(range(10))


def test_copy_of_an_actor_given_up_for_dead_is_published_when_it_comes_first(tmp_path: Path) -> None:
    """Cut off at 1.5 s, its block in work arrives at 2 s; whoever took it over would have it at 11.6 s."""
    slow = Life(joins=1.6, block_sec=10.0)
    writer, actors, count = finish(tmp_path / "a.zarr", [Life(dies=1.5, is_cut_off=True), slow], 2)
    assert [actor for _, actor, block in actors.sent if block == 1] == [0, 1]
    assert writer.pending_blocks() == [] and count.done == 512 and actors.now == 2.0
    assert not list((tmp_path / "a.zarr").rglob(f"*{PARTIAL_SUFFIX}"))


def test_block_that_comes_back_while_it_waits_again_is_not_handed_out(tmp_path: Path) -> None:
    """As above, but nobody is there to take the block over before it arrives."""
    late = Life(joins=3.0)
    _, actors, _ = finish(tmp_path / "a.zarr", [Life(dies=1.5, is_cut_off=True), late], 3)
    assert [block for _, actor, block in actors.sent if actor == 1] == [2]


def test_block_that_ends_three_actors_stops_the_work_and_is_named(tmp_path: Path) -> None:
    writer = empty_cache(tmp_path / "a.zarr", 1)
    dying = [Life(joins=2.0 * k, dies=2.0 * k + 0.5, is_fault=True) for k in range(4)]
    actors = SimulatedActors(writer.stage, dying)
    with pytest.raises(InputError, match=r"block 0 \(rows 0 and on\) ended 3 actors; the last: n2 is gone"):
        drive(tasks_of(writer), actors, writer, Count(), actors.clock)


def test_nodes_that_go_do_not_count_against_a_block(tmp_path: Path) -> None:
    going = [Life(joins=2.0 * k, dies=2.0 * k + 0.5) for k in range(4)]
    writer, _, _ = finish(tmp_path / "a.zarr", [*going, Life(joins=9.0)], 1)
    assert writer.pending_blocks() == []


def test_driver_place_names_what_a_process_sees_differently(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IFCAR_SOMETHING", "here")
    with place_here(tmp_path / "mark", [tmp_path]) as place:
        monkeypatch.delenv("IFCAR_SOMETHING")
        assert place.take() == "" and os.environ["IFCAR_SOMETHING"] == "here"
        assert "its ifcar is" in replace(place, version="0").take()
        assert f"it has no {tmp_path / 'x'}" in replace(place, paths=(tmp_path / "x",)).take()
        place.mark.write_text("of another driver")
        assert "they lie on different file systems" in place.take()
    assert not (tmp_path / "mark").exists()
