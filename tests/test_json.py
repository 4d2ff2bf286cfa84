"""docs/json.md is the schema of what commands print with --json: their real output has those keys and types."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from fixtures.blobs import draw
from fixtures.buckets import BUCKET, Store, settings
from fixtures.json_shapes import documented, shape_of
from fixtures.something_else import write_dataset, write_few_shot

import ifcar
from ifcar.cli import app, main

PAGE = documented((Path(ifcar.__file__).parent / "docs" / "json.md").read_text(encoding="utf-8"))
CACHE = "caches/boxes.zarr"
BUCKET_CACHE = f"s3://{BUCKET}/boxes.zarr"
SHORT = ("--cache", CACHE, "--streams", "layout", "--preset", "small", "--epochs", "1", "--device", "cpu")
GRID = """
name: g
seeds: [7, 8]
preset: small
schedule: {kind: paper, epochs: 1}
systems:
- {name: A, head: base, streams: layout}
- {name: B, head: stin, streams: layout}
"""
DATA = ("--dataset", "something-else", "--data-root", "d")
PICTURES = ("--dataset", "something-else", "--data-root", "p")
NARROW = ("--backbone", "mobilenet_v2", "--weights", "random:0", "--crop", "32", "--frames", "4", "--workers", "0")
COMMANDS = {  # in this order: each leaves what later ones need
    "extract": ("extract", *DATA, "--backbone", "none", "--workers", "0", "--out", CACHE),
    "detect VIDEOS": ("detect", "v", "--detector", "blobs", "--weights", "masks", "--out", "boxes.json"),
    "data check": ("data", "check", *DATA, "--annotations-only"),
    "fit-head HEAD": ("fit-head", "base", *SHORT, "--schedule", "stretched", "--out", "runs/a"),
    "finetune i3d": ("finetune", "i3d", *PICTURES, *NARROW, "--epochs", "1", "--batch-size", "4", "--out", "runs/i"),
    "evaluate RUN": ("evaluate", "runs/a"),
    "predict RUN VIDEO": ("predict", "runs/a", "p/frames/100", "--boxes", "p/annotations.json"),
    "diagnose RUN": ("diagnose", "runs/a"),
    "grid FILE --dry-run": ("grid", "grid.yaml", "--cache", CACHE, "--dry-run"),
    "grid FILE": ("grid", "grid.yaml", "--cache", CACHE, "--device", "cpu", "--processes", "1"),
    "ensemble RUN …": ("ensemble", "runs/a", "runs/b", "--out", "runs/e"),
    "compare A B": ("compare", "runs/a", "runs/b"),
    "runs diff A B": ("runs", "diff", "runs/a", "runs/b"),
    "few-shot HEAD": (
        "few-shot",
        "base",
        *SHORT[:-4],
        *SHORT[-2:],
        "--shots",
        "5",
        "--schedule",
        "stretched",
        "--min-steps",
        "2",
    ),
    "cache info CACHE": ("cache", "info", CACHE),
    "cache verify CACHE": ("cache", "verify", CACHE),
    "cache repair CACHE": ("cache", "repair", CACHE),
    "cache export CACHE": ("cache", "export", CACHE),
    "cache show CACHE": ("cache", "show", "caches/p.zarr", "--data-root", "p", "--clip", "100"),
    "cache join NAME=CACHE …": ("cache", "join", "a=caches/p.zarr", "b=caches/p.zarr", "--out", "caches/j.join.json"),
    "cache parts C …": ("cache", "parts", "caches/p.zarr", "--out", "caches/p.parts.json"),
    **{
        f"list {what}": ("list", what)
        for what in ("caches", "runs", "datasets", "backbones", "detectors", "heads", "grids", "published")
    },
    "report": ("report", "--clips", "0"),
    "runs rm RUN": ("runs", "rm", "runs/e"),
    "cache push CACHE URL": ("cache", "push", CACHE, BUCKET_CACHE),
    "cache pull URL CACHE": ("cache", "pull", BUCKET_CACHE, "caches/pulled.zarr"),
}
LONG = {"demo", "finetune joint"}  # print what grid and finetune i3d do, by the same functions
BEFORE = {
    "ensemble RUN …": ("fit-head", "base", *SHORT, "--out", "runs/b", "--seed", "1"),
    "cache show CACHE": ("extract", *PICTURES, "--backbone", "none", "--workers", "0", "--out", "caches/p.zarr"),
}


@pytest.fixture
def store() -> Iterator[int]:
    """Serve a store of objects; return its port."""
    pytest.importorskip("obstore", reason="the extra `cloud` is not installed")
    with Store().serve() as port:
        yield port


def test_every_command_has_its_section() -> None:
    def words(command: Any, path: str = "") -> Iterator[str]:
        below = getattr(command, "commands", None)
        for name, own in (below or {}).items():
            yield from words(own, f"{path}{name} ")
        if below is None:
            yield path

    missing = [own for own in words(typer.main.get_command(app)) if not any(f"{key} ".startswith(own) for key in PAGE)]
    assert not missing


@pytest.mark.slow
def test_what_commands_print_is_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], store: int
) -> None:
    monkeypatch.chdir(tmp_path)
    for kind in ("DATA", "CACHES", "RUNS", "WEIGHTS"):
        monkeypatch.setenv(f"IFCAR_{kind}", str(tmp_path / kind.lower()))
    write_few_shot(write_dataset(tmp_path / "d", num_clips=48, pixels=False))
    write_dataset(tmp_path / "p")
    (tmp_path / "v" / "100").mkdir(parents=True)
    for frame in range(6):
        draw(0, frame).save(tmp_path / "v" / "100" / f"{frame + 1:04d}.jpg")
    (tmp_path / "grid.yaml").write_text(GRID)
    wrong = []
    assert PAGE.keys() - LONG == COMMANDS.keys()
    for name, value in settings(store).items():
        monkeypatch.setenv(name, value)
    for name, words in COMMANDS.items():
        if name in BEFORE:
            printed(capsys, *BEFORE[name])
        schema = PAGE[name]
        found = shape_of(json.loads(printed(capsys, *words)), schema)
        wrong += [f"{name}: {key} is {kinds}" for key, kinds in found.items() if not kinds <= schema.get(key, set())]
        wrong += [
            f"{name}: {key} is missing"
            for key, kinds in schema.items()
            if not {"absent"} & kinds and key not in found and not set(".[") & set(key)
        ]
    assert not wrong, "\n".join(wrong)


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as done:
        main([*words, "--json"])
    said = capsys.readouterr()
    assert not done.value.code, said.err
    return said.out
