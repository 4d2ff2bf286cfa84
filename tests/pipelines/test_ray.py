"""Many machines: whatever happens to nodes, actors and drivers, the cache is the one that one machine writes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fixtures.ray_cluster import (
    NODE,
    ROOT,
    actors_of,
    cluster_of_two,
    command,
    kill_node,
    raylet_of,
    run,
    wait_until,
)
from fixtures.something_else import write_dataset

from ifcar.cache.verify import verify_cache

pytestmark = pytest.mark.slow
NUM_BLOCKS = 30 * 200 // 256 + 1


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'ifcar[ray]'")
    with cluster_of_two() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "d", num_clips=30, pixels=False)


def options(data: Path, out: Path) -> list[str]:
    """Twenty-four blocks of boxes, about a second of work each."""
    text = f"extract --dataset something-else --data-root {data} --out {out} --backbone none --views 200"
    return [*text.split(), "--frames", "512", "--instances", "16", "--workers", "0"]


@pytest.fixture(scope="module")
def whole(data: Path) -> dict[str, bytes]:
    out = data.parent / "whole.zarr"
    assert run(*options(data, out)).returncode == 0
    return files_below(out)


def files_below(cache: Path) -> dict[str, bytes]:
    return {str(p.relative_to(cache)): p.read_bytes() for p in sorted(cache.rglob("*")) if p.is_file()}


def num_committed(cache: Path) -> int:
    return len(list((cache / "commits").glob("[0-9]*.json")))


def start(cluster: Any, data: Path, out: Path) -> subprocess.Popen[str]:
    arguments = command(*options(data, out), "--engine", "ray", "--address", cluster.address)
    return subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_features_are_those_of_one_machine_to_the_bit(cluster: Any, tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "d")
    text = f"extract --dataset something-else --data-root {root} --weights random:0 --crop 32 --workers 0 --out"
    assert run(*text.split(), tmp_path / "a.zarr", OMP_NUM_THREADS="1").returncode == 0
    spread = run(*text.split(), tmp_path / "b.zarr", "--engine", "ray", "--address", cluster.address)
    assert spread.returncode == 0, spread.stderr
    assert files_below(tmp_path / "a.zarr") == files_below(tmp_path / "b.zarr")


def test_killed_actor_killed_node_and_joining_node_change_no_byte(
    cluster: Any, data: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    out = tmp_path / "c.zarr"
    doomed = cluster.add_node(**NODE)
    stays = [raylet_of(node) for node in cluster.list_all_nodes() if node is not doomed]
    process = start(cluster, data, out)
    wait_until(lambda: num_committed(out) >= 2 and bool(actors_of([raylet_of(doomed)])), process)
    kill_node(cluster, doomed)
    wait_until(lambda: num_committed(out) >= 5, process)
    victims = actors_of(stays)
    os.kill(victims[0], signal.SIGKILL)
    late = cluster.add_node(**NODE)
    wait_until(lambda: bool(actors_of([raylet_of(late)])), process)
    joined = bool(actors_of([raylet_of(late)]))
    error = process.communicate()[1]
    cluster.remove_node(late)
    assert process.returncode == 0, error
    assert joined and "its process died; its blocks go to others" in error
    assert files_below(out) == whole and verify_cache(out).ok


def test_stopped_actor_does_not_hold_the_others_up(
    cluster: Any, data: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    """A straggler that never comes back (SIGSTOP): the other node does its blocks as well."""
    out = tmp_path / "c.zarr"
    process = start(cluster, data, out)
    raylets = [raylet_of(node) for node in cluster.list_all_nodes()]
    wait_until(lambda: num_committed(out) >= NUM_BLOCKS - 8 and len(actors_of(raylets)) == 2, process)
    straggler = actors_of(raylets)[0]
    os.kill(straggler, signal.SIGSTOP)
    try:
        error = process.communicate()[1]
    finally:
        if Path(f"/proc/{straggler}").exists():
            os.kill(straggler, signal.SIGKILL)
    assert process.returncode == 0, error
    assert files_below(out) == whole


def test_killed_driver_goes_on_and_a_second_one_is_refused(
    cluster: Any, data: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    out = tmp_path / "c.zarr"
    process = start(cluster, data, out)
    wait_until(lambda: num_committed(out) >= 1, process)
    second = run(*options(data, out), "--engine", "ray", "--address", cluster.address)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert second.returncode == 2 and f"process {process.pid} on" in second.stderr
    kept = num_committed(out)
    assert 1 <= kept < NUM_BLOCKS
    third = run(*options(data, out), "--engine", "ray", "--address", cluster.address, "--json")
    assert third.returncode == 0, third.stderr
    assert f'"num_computed": {sum(min(256, 6000 - 256 * b) for b in range(kept, NUM_BLOCKS))}' in third.stdout
    assert files_below(out) == whole


def test_node_with_another_ifcar_is_refused_by_name_and_the_rest_does_the_work(cluster: Any, tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "d", pixels=False)
    other = tmp_path / "other" / "ifcar"
    other.mkdir(parents=True)
    for entry in ROOT.iterdir():
        if entry.name != "__init__.py":
            (other / entry.name).symlink_to(entry)
    (other / "__init__.py").write_text('__version__ = "0.0.older"\n')
    node = cluster.add_node(**NODE, env_vars={"PYTHONPATH": str(other.parent)})
    try:
        text = f"extract --dataset something-else --data-root {root} --backbone none --engine ray --out"
        done = run(*text.split(), tmp_path / "a.zarr", "--address", cluster.address)
    finally:
        cluster.remove_node(node)
    assert done.returncode == 0, done.stderr
    assert "is refused: its ifcar is 0.0.older" in done.stderr
    assert verify_cache(tmp_path / "a.zarr").ok


def test_grid_on_a_cluster_makes_the_table_of_one_machine(cluster: Any, data: Path, tmp_path: Path) -> None:
    cache, file = tmp_path / "boxes.zarr", tmp_path / "tiny.yaml"
    made = run(*f"extract --dataset something-else --data-root {data} --backbone none --out {cache}".split())
    assert made.returncode == 0, made.stderr
    file.write_text(
        "name: tiny\nseeds: [0, 1]\npreset: small\nschedule: {kind: stretched, min_steps: 30, batch_size: 8}\n"
        "systems:\n- {name: base, head: base, streams: layout}\n- {name: i3d-like, head: nl, streams: layout}\n"
    )
    grid = ["grid", str(file), "--cache", str(cache), "--json"]
    here = run(*grid, "--device", "cpu", IFCAR_RUNS=str(tmp_path / "here"), OMP_NUM_THREADS="1")
    cluster_options = ["--engine", "ray", "--address", cluster.address]
    there = run(*grid, *cluster_options, IFCAR_RUNS=str(tmp_path / "there"))
    assert here.returncode == there.returncode == 0, here.stderr + there.stderr
    for name in ("table.csv", "table.md", "table.tex"):
        assert (tmp_path / "here/tiny" / name).read_bytes() == (tmp_path / "there/tiny" / name).read_bytes()
    again = run(*grid, *cluster_options, IFCAR_RUNS=str(tmp_path / "there"))
    assert again.returncode == 0 and '"failed": []' in again.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engine", "spark"], "--engine is 'spark'; expected local or ray"),
        (["--address", "auto"], "--address auto would be ignored: it belongs to --engine ray"),
        (["--engine", "ray", "--address", "127.0.0.1:1"], "no Ray cluster at --address 127.0.0.1:1"),
    ],
)
def test_engine_options_that_do_not_fit_are_one_line(data: Path, arguments: list[str], message: str) -> None:
    done = run("extract", "--dataset", "something-else", "--data-root", data, "--backbone", "none", *arguments)
    assert done.returncode == 2 and message in done.stderr
    assert "Traceback" not in done.stderr


def test_local_engine_never_imports_ray_and_ray_says_how_to_install_it(data: Path, tmp_path: Path) -> None:
    code = "import sys; sys.modules['ray'] = None\nfrom ifcar.cli import main; main()"
    arguments = [*f"extract --dataset something-else --data-root {data} --backbone none --out".split()]
    local = subprocess.run([sys.executable, "-c", code, *arguments, str(tmp_path / "a.zarr")], cwd=ROOT)
    assert local.returncode == 0
    spread = [sys.executable, "-c", code, *arguments, str(tmp_path / "b.zarr"), "--engine", "ray"]
    done = subprocess.run(spread, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "pip install 'ifcar[ray]'" in done.stderr
