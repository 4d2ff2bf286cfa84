"""Many machines: whatever happens to nodes, actors and drivers, the cache is the one that one machine writes."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from fixtures.buckets import BUCKET, rclone, settings
from fixtures.own_head import heads_forgotten, write_plugin
from fixtures.processes import ROOT, Command, files_below
from fixtures.ray_cluster import (
    NODE,
    Witness,
    actors_below,
    can_mount,
    cluster_of_two,
    extract_on,
    kill,
    kill_node,
    raylet_of,
    started_node,
    wait_until,
    with_mount,
)
from fixtures.something_else import write_dataset
from typer.testing import CliRunner

from ifcar.cache.block_cache import FOLDER
from ifcar.cache.durable import PARTIAL_SUFFIX
from ifcar.cache.verify import verify_cache
from ifcar.cli import app
from ifcar.errors import InputError, LockedError
from ifcar.extract.backbones.catalog import build_backbone, resolve_backbone
from ifcar.extract.weights import load_weights
from ifcar.pipelines.engines.cluster import RayConfig, connected, living_nodes
from ifcar.pipelines.extract import extract
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.progress import Silent
from ifcar.plugins import VARIABLE

pytest.importorskip("ray", reason="Ray is not installed: pip install 'ifcar[ray]'")
pytestmark = pytest.mark.slow(seconds=15)
BACKBONE = "mobilenet_v2"
NUM_CLIPS, NUM_VIEWS = 10, 250
NUM_ROWS = NUM_CLIPS * NUM_VIEWS
NUM_BLOCKS = -(-NUM_ROWS // 256)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with cluster_of_two() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "d", num_clips=NUM_CLIPS)


def boxes(data: Path, out: Path) -> dict[str, Any]:
    """Ten blocks of boxes, each most of a second of work."""
    options = {"dataset": "something-else", "data_root": data, "out": out, "backbone": "none", "workers": 0}
    return {**options, "views": NUM_VIEWS, "frames": 512, "instances": 16}


@pytest.fixture(scope="module")
def weights(data: Path) -> Path:
    """Weights of the backbone that takes least time; of torch's format, which the tests change."""
    net = build_backbone(resolve_backbone(BACKBONE, num_frames=4))
    load_weights(net, "random:0")
    torch.save(net.state_dict(), data.parent / "weights.pt")
    return data.parent / "weights.pt"


@pytest.fixture(scope="module")
def whole(data: Path) -> dict[str, bytes]:
    out = data.parent / "whole.zarr"
    extract(ExtractConfig(**boxes(data, out)), Silent())
    return files_below(out)


def num_committed(cache: Path) -> int:
    return len(list((cache / "commits").glob("[0-9]*.json")))


def test_features_are_those_of_one_machine_to_the_bit(cluster: Any, data: Path, tmp_path: Path, weights: Path) -> None:
    options = {"dataset": "something-else", "data_root": data, "backbone": BACKBONE, "weights": str(weights)}
    options |= {"crop": 32, "frames": 4, "views": 27, "workers": 0}
    extract(ExtractConfig(**options, out=tmp_path / "a.zarr"), Silent())
    result = extract_on(cluster.address, {**options, "out": tmp_path / "b.zarr"}, Witness())
    assert result.num_computed == NUM_CLIPS * 27 > 256
    assert files_below(tmp_path / "a.zarr") == files_below(tmp_path / "b.zarr")


def test_killed_node_killed_actor_and_joining_node_change_no_byte(
    cluster: Any, data: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    """Two nodes stand still until the third was killed and the one that joins in its place has done rows."""
    out, late, stopped = tmp_path / "c.zarr", [], []
    first, second = cluster.list_all_nodes()
    doomed = cluster.add_node(**NODE)

    def stop(node: Any) -> None:
        stopped.extend(actors_below(raylet_of(node)))
        kill(stopped[-1], signal.SIGSTOP)

    def replace_doomed() -> None:
        kill_node(cluster, doomed)
        late.append(cluster.add_node(**NODE))

    def kill_one_and_let_the_other_go_on() -> None:
        kill(stopped[0])
        kill(stopped[1], signal.SIGCONT)

    witness = Witness(
        (lambda: witness.names(first), lambda: stop(first)),
        (lambda: witness.names(second), lambda: stop(second)),
        (lambda: witness.names(doomed) and len(stopped) == 2, replace_doomed),
        (lambda: witness.heard("is gone") and witness.has_rows_of(late[0]), kill_one_and_let_the_other_go_on),
    )
    extract_on(cluster.address, boxes(data, out), witness)
    assert not witness.deeds
    cluster.remove_node(late[0])
    assert witness.heard("its process died; its blocks go to others")
    assert files_below(out) == whole and verify_cache(out).ok


def test_straggler_that_never_comes_back_holds_nobody_up(
    cluster: Any, data: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    out, stopped = tmp_path / "c.zarr", []
    raylets = [raylet_of(node) for node in cluster.list_all_nodes()]

    def stop_one() -> None:
        stopped.append(actors_below(*raylets)[0])
        kill(stopped[0], signal.SIGSTOP)

    witness = Witness((lambda: num_committed(out) >= 1 and len(actors_below(*raylets)) == 2, stop_one))
    try:
        extract_on(cluster.address, boxes(data, out), witness)
    finally:
        for pid in stopped:
            kill(pid)
    assert stopped and files_below(out) == whole


def test_killed_driver_goes_on_and_a_second_one_is_refused(
    cluster: Any, data: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    out = tmp_path / "c.zarr"
    options = boxes(data, out)
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    first = Command(["extract", *words, "--engine", "ray", "--address", cluster.address], ROOT)
    wait_until(lambda: num_committed(out) >= 1 or first.poll() is not None)
    with pytest.raises(LockedError, match=f"process {first.pid} on"):
        extract_on(cluster.address, options, Witness())
    kept = num_committed(out)
    first.kill()
    first.communicate()
    assert first.returncode == -signal.SIGKILL
    result = extract_on(cluster.address, options, Witness())
    assert 0 < result.num_computed <= NUM_ROWS - 256 * kept
    assert files_below(out) == whole


def test_killed_actor_changes_no_byte_of_an_extraction_into_a_bucket(
    cluster: Any, data: Path, tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("obstore", reason="the extra `cloud` is not installed")
    raylets, bucket = [raylet_of(node) for node in cluster.list_all_nodes()], tmp_path / "s3" / BUCKET / "c.zarr"

    def both_at_work() -> bool:
        return num_committed(bucket) >= 1 and len(actors_below(*raylets)) == 2

    witness = Witness((both_at_work, lambda: kill(actors_below(*raylets)[0])))
    with rclone(tmp_path / "s3") as port:
        for name, value in {**settings(port), FOLDER: str(tmp_path / "blocks")}.items():
            monkeypatch.setenv(name, value)
        result = extract_on(cluster.address, boxes(data, Path(f"s3://{BUCKET}/c.zarr")), witness)
        assert verify_cache(result.cache).ok
    assert witness.heard("its process died; its blocks go to others") and not witness.deeds
    assert files_below(bucket) == whole
    assert not list((tmp_path / "blocks").rglob(f"*{PARTIAL_SUFFIX}"))


def test_nodes_that_cannot_do_the_work_are_refused_with_what_they_see(
    cluster: Any, tmp_path: Path, weights: Path
) -> None:
    data, older = write_dataset(tmp_path / "d"), tmp_path / "older" / "ifcar"
    if not can_mount(data):
        pytest.skip("this machine does not let a test's process have mounts of its own (as root, with unshare)")
    older.mkdir(parents=True)
    for entry in ROOT.iterdir():
        if entry.name != "__init__.py":
            (older / entry.name).symlink_to(entry)
    (older / "__init__.py").write_text('__version__ = "0.0.older"\n')
    state = torch.load(weights)
    next(iter(state.values())).zero_()
    torch.save(state, tmp_path / "others.pt")
    options = {"dataset": "something-else", "data_root": data, "backbone": BACKBONE, "weights": str(weights)}
    options |= {"crop": 32, "frames": 4}
    here = [f"--address={cluster.address}", "--num-cpus=2"]
    strange = (
        started_node(here, PYTHONPATH=str(older.parent)),
        started_node(here, with_mount("-t", "tmpfs", "none", tmp_path)),
        started_node(here, with_mount("--bind", tmp_path / "others.pt", weights)),
    )
    with ExitStack() as nodes:
        ray = nodes.enter_context(connected(RayConfig(address=cluster.address)))
        for number, node in enumerate(strange, 3):
            nodes.enter_context(node)
            wait_until(lambda number=number: len(living_nodes(ray)) == number)
        with pytest.raises(InputError) as caught:
            extract_on(cluster.address, {**options, "out": tmp_path / "a.zarr"}, Witness(), actor_cpus=2)
    message = str(caught.value)
    assert message.startswith("no node of the cluster can do the work: ")
    assert message.count("an actor takes 2 cores, it has 1") == 2
    assert "its ifcar is 0.0.older" in message
    assert f"it has no {data}; data and results must lie on a file system that every node shares" in message
    assert "weights is" in message


@pytest.fixture
def own_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A plugin's head, `mean-box-ray`."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv(VARIABLE, str(write_plugin(tmp_path / "own", "mean_box_ray")))
    with heads_forgotten():
        yield


def test_grid_with_a_plugin_on_a_cluster_makes_the_table_of_one_machine(
    cluster: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_head: None
) -> None:
    cache, file = tmp_path / "boxes.zarr", tmp_path / "tiny.yaml"
    extract(ExtractConfig(dataset="something-else", data_root=data, backbone="none", out=cache), Silent())
    file.write_text(
        "name: tiny\nseeds: [0, 1]\npreset: small\nschedule: {kind: stretched, epochs: 8, batch_size: 8}\n"
        "systems:\n- {name: base, head: base, streams: layout}\n- {name: i3d-like, head: nl, streams: layout}\n"
        "- {name: own, head: mean-box-ray, preset: paper}\n"
    )
    grid = ["grid", str(file), "--cache", str(cache), "--json", "--device", "cpu", "--processes"]
    on_cluster = [*grid, "2", "--engine", "ray", "--address", cluster.address]
    for folder, command in (("here", [*grid, "1"]), ("there", on_cluster)):
        monkeypatch.setenv("IFCAR_RUNS", str(tmp_path / folder))
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
    for name in ("table.csv", "table.md", "table.tex"):
        assert (tmp_path / "here/tiny" / name).read_bytes() == (tmp_path / "there/tiny" / name).read_bytes()
    runs = {path: path.stat().st_mtime_ns for path in (tmp_path / "there").rglob("*.safetensors")}
    again = CliRunner().invoke(app, on_cluster)
    assert again.exit_code == 0 and json.loads(again.stdout)["failed"] == []
    assert runs and {path: path.stat().st_mtime_ns for path in runs} == runs
    assert not list((tmp_path / "there").rglob(f"*{PARTIAL_SUFFIX}"))
