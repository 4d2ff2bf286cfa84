"""Two machines with networks of their own, the file system shared: network namespaces joined by one cable."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from fixtures.processes import CLI, ROOT, files_below, start_program
from fixtures.ray_cluster import actors_below, commands_below, paused, started_node, wait_until
from fixtures.something_else import write_dataset

from ifcar.cache.verify import verify_cache
from ifcar.pipelines.extract import extract
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.pipelines.progress import Silent

pytest.importorskip("ray", reason="Ray is not installed: pip install 'ifcar[ray]'")
pytestmark = pytest.mark.slow(seconds=60)
HEAD, OTHER, PORT = "10.213.77.1", "10.213.77.2", 6379


@pytest.fixture
def networks() -> Iterator[tuple[str, str]]:
    """Two namespaces, HEAD in the first and OTHER in the second."""
    names = (f"ifcar{os.getpid()}a", f"ifcar{os.getpid()}b")
    try:
        for name in names:
            ip(f"netns add {name}")
            ip(f"-n {name} link set lo up")
        ip(f"-n {names[0]} link add cable type veth peer name cable netns {names[1]}")
        for name, address in zip(names, (HEAD, OTHER), strict=True):
            ip(f"-n {name} address add {address}/24 dev cable")
            ip(f"-n {name} link set cable up")
        yield names
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this machine does not let a test make network namespaces ({error})")
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def ip(arguments: str) -> None:
    subprocess.run(["ip", *arguments.split()], check=True, capture_output=True)


def test_node_that_is_cut_off_changes_no_byte(networks: tuple[str, str], tmp_path: Path) -> None:
    """Its actor goes on computing and writing all the while; nothing of that is published."""
    data, out = write_dataset(tmp_path / "d", num_clips=16, pixels=False), tmp_path / "a.zarr"
    options = {"dataset": "something-else", "backbone": "none", "views": 200, "frames": 512, "instances": 16}
    extract(ExtractConfig(**options, data_root=data, out=tmp_path / "whole.zarr", workers=0), Silent())
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    engine = ["--workers", "0", "--engine", "ray", "--address", f"{HEAD}:{PORT}"]
    here, there = (["ip", "netns", "exec", name] for name in networks)
    knock = [*here, sys.executable, "-c", f"import socket; socket.create_connection(('{HEAD}', {PORT}), 1)"]
    with ExitStack() as ends:
        short = ends.enter_context(tempfile.TemporaryDirectory(prefix="ifcar", ignore_cleanup_errors=True))
        head = ["--head", f"--node-ip-address={HEAD}", f"--port={PORT}", "--num-cpus=1", "--include-dashboard=false"]
        first = ends.enter_context(started_node([*head, f"--temp-dir={short}"], here))
        wait_until(lambda: subprocess.run(knock, capture_output=True, check=False).returncode == 0)
        joins = [f"--address={HEAD}:{PORT}", f"--node-ip-address={OTHER}", "--num-cpus=1"]
        other = ends.enter_context(started_node(joins, there))
        wait_until(lambda: "raylet" in " ".join(commands_below(other)))
        log = tmp_path / "stderr"
        logged = [*here, "sh", "-c", 'exec "$@" 2> "$0"', log, *CLI]
        driver = start_program([*logged, "extract", *words, "--data-root", data, "--out", out, *engine], ROOT)
        wait_until(lambda: all("ray::BlockActor.extract_block" in commands_below(node) for node in (first, other)))
        with paused(actors_below(first)):  # else they may end the work before the other's absence is noticed
            ip(f"-n {networks[1]} link set cable down")
            wait_until(lambda: "is gone; its blocks go to others" in log.read_text())
        driver.communicate()
        assert driver.returncode == 0, log.read_text()
        assert "is gone; its blocks go to others" in log.read_text()
    assert files_below(out) == files_below(tmp_path / "whole.zarr") and verify_cache(out).ok
