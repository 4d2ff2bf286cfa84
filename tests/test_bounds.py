"""Files that claim or unfold to more than there is: refused in one line, in bounded memory.

`IFCAR_ANNOTATION_MB=1000 pytest tests/test_bounds.py` reads an annotation file of 1 GB.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures.processes import ROOT, call
from fixtures.something_else import write_dataset

from ifcar.cache.manifest import parse_manifest
from ifcar.cache.npz import NpzError, read_arrays
from ifcar.cli import main
from ifcar.errors import CacheDamageError, InputError
from ifcar.extract.datasets.something_else import SomethingElse, read_one_clip
from ifcar.extract.datasets.strict_json import read_json
from ifcar.pipelines.configs import from_plain, parse_assignment, read_yaml, set_option
from ifcar.pipelines.runs.schedule import ScheduleConfig

ANNOTATION_MB = int(os.environ.get("IFCAR_ANNOTATION_MB", "16"))


def write_annotations(path: Path, size_mb: int) -> int:
    """Write clips of 40 frames with 200 boxes in the first; return how many."""
    box = '{"standard_category": "%s", "box2d": {"x1": 1.5, "y1": 2.25, "x2": 30.125, "y2": 40.0}}'
    many = ", ".join(box % f"{k:04d}" for k in range(200))
    two = f"{box % 'hand'}, {box % '0000'}"
    written = num_clips = 0
    with path.open("w") as file:
        file.write("{")
        while written < size_mb << 20:
            records = ", ".join(
                f'{{"name": "{num_clips}/{k:04d}.jpg", "labels": [{many if k == 1 else two}]}}' for k in range(1, 41)
            )
            written += file.write(f'{", " if num_clips else ""}"{num_clips}": [{records}]')
            num_clips += 1
        file.write("}")
    return num_clips


@pytest.mark.slow
def test_memory_does_not_grow_with_the_annotation_file(tmp_path: Path) -> None:
    num_clips = write_annotations(tmp_path / "annotations.json", ANNOTATION_MB)
    code = (
        "import resource, sys\nfrom pathlib import Path\n"
        "from ifcar.extract.datasets.something_else import SomethingElse, read_one_clip\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10\n"
        "root = Path(sys.argv[1]); dataset = SomethingElse(root); before = peak()\n"
        "(root / 'videoid2size.json').write_text('{\"0\": [64, 48]}')\n"
        "listing = dataset.listing(needs_pixels=False)\n"
        "print(len(listing.problems) + len(listing.clips), dataset.tracks('0').boxes.shape[1])\n"
        "print(peak() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT / ".typing")},
    )  # fmt: skip
    counted, growth_mb = done.stdout.splitlines()
    assert counted == f"{num_clips} 201"
    assert int(growth_mb) < min(ANNOTATION_MB, 64)


NESTED = b"[" * 200_000
JSON_FILES: dict[str, tuple[bytes, str]] = {
    "cut off": (b'{"7": [{"name": "7/0001.jpg", "la', "not valid JSON before byte"),
    "empty": (b"", "not valid JSON"),
    "NaN": (b'{"7": [NaN]}', "not valid JSON"),
    "infinity": (b'{"7": [1e999]}', "not valid JSON"),
    "digits without end": (b'{"7": [' + b"9" * 100_000 + b"]}", "not valid JSON"),
    "nested": (b'{"7": ' + NESTED, "nested more than 64 levels deep"),
    "nested in other brackets": (b'{"\\"]]]": ' + NESTED, "nested more than 64 levels deep"),
    "no UTF-8": (b'{"7\xff": []}', "not valid JSON"),
    "a clip twice": (b'{"7": [], "7": []}', "annotated twice"),
    "a list": (b"[1]", "expected a JSON object"),
}


@pytest.mark.parametrize("name", JSON_FILES)
def test_annotation_file_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    content, message = JSON_FILES[name]
    path = tmp_path / "annotations.json"
    path.write_bytes(content)
    uses: list[Callable[[], object]] = [lambda: SomethingElse(tmp_path).listing(needs_pixels=False)]
    if name != "a list":
        uses.append(lambda: read_one_clip(path, None, "7"))
    for use in uses:
        with pytest.raises(InputError, match=message) as caught:
            use()
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_brackets_within_text_are_no_nesting(tmp_path: Path) -> None:
    """Whatever is quoted or escaped, and wherever the chunks that are read begin."""
    text = '[[{{ \\"[[ \\\\ ' * 5_000
    for shift in range(4):
        name = "x" * shift + text
        (tmp_path / "annotations.json").write_text(f'{{"{name}": [], "7": [{{"name": "7/0001.jpg", "labels": []}}]}}')
        assert read_one_clip_frames(tmp_path / "annotations.json") == 1


def read_one_clip_frames(path: Path) -> int:
    with pytest.raises(InputError, match="none of its 1 records has a box"):
        read_one_clip(path, "7", "7")
    return 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (NESTED, "nested too deeply"),
        (b'{"a": NaN}', "holds NaN"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a": 0, "b": 1, "a": 2}', "names the key 'a' twice"),
        (b"9" * 100_000, "s.json: "),
        (b'{"a": ', "line 1, column"),
        (b"\xff", "not UTF-8"),
    ],
)
def test_small_json_file_is_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "s.json").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_json(tmp_path / "s.json")
    assert len(str(caught.value).splitlines()) == 1


LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + k)}: &{chr(98 + k)} [*{chr(97 + k)}, *{chr(97 + k)}]\n" for k in range(24)
)


@pytest.mark.parametrize(
    "text",
    [
        LAUGHS,
        "[" * 50_000,
        "a: 2001-99-99",
        "a: !!python/object/apply:os.system ['touch marker']",
        "a: !!float x",
        "a: !!int ''",
        "a: 1" + "0" * 5_000,
        "? [a]\n: b",
        "a: 1\na: 2",
    ],
    ids=["aliases", "nested", "no date", "a call", "no float", "no int", "digits", "a list as key", "a key twice"],
)
def test_yaml_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "g.yaml").write_text(text)
    with pytest.raises(InputError, match=r"g\.yaml: not valid YAML") as caught:
        read_yaml(tmp_path / "g.yaml")
    assert len(str(caught.value)) < 600 and not Path("marker").exists()


def test_set_refuses_aliases_and_calls() -> None:
    for value in ("[&a [x], *a]", "!!python/object/apply:os.system [x]", "2001-99-99"):
        with pytest.raises(InputError, match="not valid YAML"):
            parse_assignment(f"pool={value}")


def test_off_is_the_name_of_a_choice_and_no_where_an_option_is_true_or_false(tmp_path: Path) -> None:
    assert parse_assignment("attention=off") == ("attention", "off")
    for value, truth in {"on": True, "Yes": True, "true": True, "off": False, "NO": False, "False": False}.items():
        content: dict[str, Any] = {"joint": {"motion": not truth}}
        set_option(content, *parse_assignment(f"joint.motion={value}"))
        assert content == {"joint": {"motion": truth}}
        (tmp_path / "schedule.yaml").write_text(f"refit: {value}")
        assert from_plain(ScheduleConfig, read_yaml(tmp_path / "schedule.yaml"), "schedule").refit is truth
    with pytest.raises(InputError, match="refit is 'maybe'; expected"):
        from_plain(ScheduleConfig, {"refit": "maybe"}, "schedule")


def npy_header(shape: tuple[int, ...], kind: str) -> bytes:
    """A .npy file of that header and of no values."""
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"shape": shape, "fortran_order": False, "descr": kind})
    return out.getvalue()


@pytest.mark.parametrize("name", ["compressed", "claims more", "objects", "no archive"])
def test_npz_bomb_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "predictions.npz"
    if name == "compressed":
        np.savez_compressed(path, a=np.zeros(10_000_000))
    elif name == "no archive":
        path.write_bytes(b"PK\x03\x04 and no more")
    else:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("a.npy", npy_header((10**13,), "<f8") if name == "claims more" else npy_header((1,), "|O"))
    with pytest.raises(NpzError) as caught:
        read_arrays(path, ["a"])
    assert "\n" not in str(caught.value)


def test_npz_comes_back_as_it_was_written(tmp_path: Path) -> None:
    arrays = {
        "a/ids": np.array(["x", "ü" * 9]),
        "a/b": np.arange(6.0).reshape(2, 3),
        "none": np.zeros((0, 4), np.int64),
    }
    np.savez(tmp_path / "p.npz", **arrays)
    for found, wanted in zip(read_arrays(tmp_path / "p.npz", list(arrays)).values(), arrays.values(), strict=True):
        np.testing.assert_array_equal(found, wanted, strict=True)
    with pytest.raises(KeyError):
        read_arrays(tmp_path / "p.npz", ["other"])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    write_dataset(folder / "data" / "something-else", num_clips=4, pixels=False)
    code, _, error = call(["extract", "--dataset", "something-else", "--backbone", "none", "--workers", "0"], folder)
    assert code == 0, error
    return folder


@pytest.mark.parametrize(
    ("key", "value"),
    [("num_clips", 10**13), ("num_views", 10**9), ("rows_per_shard", 10**12), ("num_clips", -1), ("num_clips", 1e999)],
)
def test_cache_that_claims_absurd_sizes_is_damaged(place: Path, key: str, value: Any) -> None:
    path = place / "caches" / "something-else-none.zarr"
    attributes = json.loads((path / "zarr.json").read_text())["attributes"]
    with pytest.raises(CacheDamageError, match="damaged root attribute"):
        parse_manifest(path, {**attributes, key: value})
    spec = attributes["spec"]
    for letter in spec["sizes"]:
        with pytest.raises(CacheDamageError, match="damaged root attribute"):
            parse_manifest(path, {**attributes, "spec": {**spec, "sizes": {**spec["sizes"], letter: 10**12}}})


LAYOUT = ("fit-head", "sfi", "--streams", "layout", "--preset", "small")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*LAYOUT, "--epochs", str(10**30)), "epochs"),
        ((*LAYOUT, "--seed", str(10**30)), "seed"),
        ((*LAYOUT, "--seed", "-1"), "seed"),
        ((*LAYOUT, "--lr", "nan"), "lr"),
        ((*LAYOUT, "--aux-weight", "nan"), "aux-weight"),
        ((*LAYOUT, "--aux-weight", "inf"), "aux-weight"),
        ((*LAYOUT, "--set", "temporal_dim=1000000000000"), "temporal_dim"),
        ((*LAYOUT, "--set", "lstm_layers=100000"), "lstm_layers"),
        ((*LAYOUT, "--set", "joint.dropout=.nan"), "dropout"),
        ((*LAYOUT, "--set", "pool=[1, 2]"), "pool"),
        ((*LAYOUT, "--protocol", "../../x"), "../../x"),
        (("extract", "--dataset", "something-else", "--backbone", "none", "--frames", str(10**30)), "--frames"),
        (("extract", "--dataset", "something-else", "--backbone", "none", "--workers", str(10**9)), "workers"),
        (("extract", "--dataset", "something-else", "--backbone", "none", "--batch-size", str(10**12)), "batch"),
    ],
)
def test_huge_and_unreal_numbers_are_one_line_and_exit_2(
    place: Path,
    arguments: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(place)
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    error = capsys.readouterr().err
    assert caught.value.code == 2 and message in error and error.count("\n") == 1, error
