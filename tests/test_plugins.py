"""Plugins: heads from files and from installed packages, in every command and process, and those that do not work."""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from site import addsitedir

import pytest
import torch
from fixtures.own_head import HEAD, heads_forgotten, write_plugin
from fixtures.processes import Command, Prepare
from fixtures.something_else import write_dataset

from ifcar.cache.open import open_cache
from ifcar.cli import main
from ifcar.errors import InputError
from ifcar.heads.catalog import HEADS
from ifcar.heads.contract import InstanceBatch
from ifcar.pipelines.extract import extract
from ifcar.pipelines.extraction.config import ExtractConfig
from ifcar.plugins import VARIABLE, how_to_get, use_plugin

BRIEF = ("--epochs", "1", "--device", "cpu")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_dataset(tmp_path_factory.mktemp("data") / "d", num_clips=16, pixels=False)
    config = ExtractConfig(
        dataset="something-else", data_root=root, out=root.parent / "b.zarr", backbone="none", workers=0, instances=3
    )
    return extract(config).cache


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(VARIABLE, "")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    with heads_forgotten():
        yield


def run(*arguments: object, prepare: Prepare = int) -> tuple[int | None, str, str]:
    """Run a command line in a process that knows no plugin yet; return its exit code and what it wrote."""
    process = Command(arguments, Path.cwd(), prepare)
    out, error = process.communicate()
    return process.returncode, out, error


@pytest.mark.slow
def test_run_of_a_plugin_says_how_to_get_it_and_is_scored_with_it(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = write_plugin(tmp_path / "own", "mean_box_a")
    code, _, error = run("fit-head", "mean-box-a", "--cache", cache, "--out", "r", *BRIEF, "--plugin", plugin)
    assert code == 0, error
    assert json.loads((tmp_path / "r" / "plugin.json").read_text())["head"]["file"] == str(plugin)
    code, _, error = run("evaluate", "r")
    assert (code, error.count("\n")) == (2, 1)
    assert "unknown head 'mean-box-a': r was made with a plugin; give --plugin" in error
    assert run("list", "runs")[0] == 0  # harms nothing else
    for option, variable in ((("--plugin", plugin), ""), ((), str(plugin))):
        monkeypatch.setenv(VARIABLE, variable)
        code, out, error = run(*option, "evaluate", "r", "--json")
        assert code == 0 and json.loads(out)["agrees"], error


@pytest.mark.slow
def test_workers_of_a_grid_know_the_plugin(cache: Path, tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path / "own", "mean_box_b")
    (tmp_path / "g.yaml").write_text(
        "name: g\nseeds: [0, 1]\nschedule: {kind: stretched, epochs: 1, held_out: 0.0}\n"
        "systems:\n- {name: own, head: mean-box-b}\n"
    )
    arguments = ("--plugin", plugin, "grid", "g.yaml", "--cache", cache, "--processes", 2, "--device", "cpu", "--json")
    code, out, error = run(*arguments)
    assert code == 0, error
    assert json.loads(out)["failed"] == []


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("mean_box_c", "import no_such_module_at_all", "No module named 'no_such_module_at_all'"),
        ("mean_box_d", HEAD.replace("{name}", "sfi"), "head 'sfi' is registered twice"),
        ("json", HEAD, "another module is called json"),
        ("mean-box", HEAD, "its name is no module's"),
        ("mean_box_e", "raise SystemExit(7)", "SystemExit: 7"),
    ],
)
def test_plugin_that_does_not_work_is_one_line(
    name: str,
    text: str,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    plugin = write_plugin(tmp_path / "own", name, text)
    ours = HEADS.get("sfi")
    monkeypatch.setenv(VARIABLE, str(plugin))
    with pytest.raises(InputError, match="unknown head 'sfj', did you mean 'sfi'") as found:
        HEADS.get("sfj")
    assert reason in str(found.value) and str(plugin) in str(found.value)
    assert HEADS.get("sfi") is ours
    monkeypatch.setenv(VARIABLE, "")
    with pytest.raises(SystemExit) as stopped:
        main(["--plugin", str(plugin), "list", "heads"])
    assert stopped.value.code == 2
    assert capfd.readouterr().err.count(reason) == 1


@pytest.mark.parametrize(
    ("name", "returned", "found"),
    [
        ("mean_box_g", "HeadOutput(logits=mean)", "logits (16, 4)"),
        ("mean_box_h", "HeadOutput(logits=self.classifier(mean)[:1])", "logits (1, 2)"),
        ("mean_box_i", "self.classifier(mean)", "Tensor"),
        (
            "mean_box_j",
            "HeadOutput(logits=self.classifier(mean), outputs=self.classifier(mean))",
            "logits (16, 2) and outputs (16, 2)",
        ),
    ],
)
def test_what_a_plugins_head_returns_wrongly_is_one_line(
    cache: Path, tmp_path: Path, name: str, returned: str, found: str
) -> None:
    begin, _ = HEAD.split("        return HeadOutput")
    text = begin.replace("nn.Linear(config.width", "nn.Linear(4") + f"        return {returned}\n"
    use_plugin(write_plugin(tmp_path / "own", name, text))
    reader = open_cache(cache)
    kind = HEADS.get(name.replace("_", "-"))
    head = kind.build(kind.config_type(), reader.spec, 2)
    batch = InstanceBatch({key: torch.from_numpy(reader.table(key)[:]) for key in ("boxes", "categories")})
    expected = rf"{re.escape(found)} for 16 views and 2 classes; expected a HeadOutput with logits \(16, 2\)"
    with pytest.raises(InputError, match=expected):
        head(batch)


def test_named_file_that_is_not_there_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["list", "heads", "--plugin", "no.py"])
    assert stopped.value.code == 2
    assert "--plugin no.py: no such file" in capfd.readouterr().err


@pytest.mark.slow
def test_installed_package_is_found_by_its_entry_point(cache: Path, tmp_path: Path) -> None:
    packages = tmp_path / "site"
    write_plugin(packages, "mean_box_f")
    (packages / "broken_part.py").write_text("1 / 0\n")
    info = packages / "own_heads-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-heads\nVersion: 1.5\n")
    (info / "top_level.txt").write_text("mean_box_f\n")
    (info / "RECORD").write_text("mean_box_f.py,,\n")
    (info / "entry_points.txt").write_text("[ifcar.heads]\nmean-box-f = mean_box_f\nbroken = broken_part\n")
    installed = functools.partial(addsitedir, str(packages))
    code, _, error = run("fit-head", "mean-box-f", "--cache", cache, "--out", "r", *BRIEF, prepare=installed)
    assert code == 0, error
    assert error.count("plugin 'broken' of own-heads cannot be used (ZeroDivisionError") == 1
    origin = json.loads((tmp_path / "r" / "plugin.json").read_text())["head"]
    assert origin == {"name": "mean-box-f", "package": "own-heads", "version": "1.5"}
    assert how_to_get(origin) == "install the package own-heads 1.5"
    code, _, error = run("evaluate", "r")
    assert code == 2 and "install the package own-heads 1.5" in error
