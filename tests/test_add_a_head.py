"""docs/add-a-head.md does what it says: its files, as an external package, through its commands."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest
from fixtures.processes import run, start_program
from fixtures.something_else import write_dataset

import ifcar
from ifcar.plugins import VARIABLE

PAGE = (Path(ifcar.__file__).parent / "docs" / "add-a-head.md").read_text()
FILES = re.findall(r"`(\w+\.py)`:\n\n```python\n(.*?)```", PAGE, re.DOTALL)
BRIEF = ("--epochs", "2", "--device", "cpu")


def test_head_of_the_page_is_short() -> None:
    code = [line for line in dict(FILES)["mean_box.py"].splitlines() if line.strip()]
    assert len(code) <= 40


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("IFCAR_")]:
        monkeypatch.delenv(name)


@pytest.mark.slow
def test_commands_of_the_page_work_on_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, cache = tmp_path / "data", tmp_path / "caches" / "b.zarr"
    root = write_dataset(data / "d", num_clips=16, pixels=False)
    ifcar.extract(
        ifcar.ExtractConfig(
            dataset="something-else", data_root=root, out=cache, backbone="none", workers=0, instances=3
        )
    )
    for name, text in FILES[:2]:
        (tmp_path / name).write_text(text)
    (commands,) = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    for line in commands.splitlines():
        program, *words = line.partition("#")[0].split()
        if program == "export":
            monkeypatch.setenv(*words[0].split("=", 1))
        elif program == "python":
            checked = start_program([sys.executable, *words, "-p", "no:cacheprovider"], tmp_path)
            said, _ = checked.communicate()
            assert checked.returncode == 0 and "passed" in said, f"{line}\n{said[-2000:]}"
        else:
            assert program == "ifcar"
            code, error = run([*words, *(BRIEF if "fit-head" in words else [])], tmp_path)
            assert code == 0, f"{line}\n{error}"
    assert "mean-box" in (tmp_path / "report" / "index.html").read_text()
    assert VARIABLE in os.environ


@pytest.mark.slow
def test_data_set_and_backbone_of_the_page_make_a_cache_whose_runs_remember_them(tmp_path: Path) -> None:
    for name, text in FILES[2:]:
        (tmp_path / name).write_text(text)
    write_dataset(tmp_path / "data" / "kitchen", num_clips=16, pixels=False)
    (extraction,) = re.findall(r"`ifcar (extract .*?)`", PAGE)
    named = extraction[extraction.index("--plugin") :]
    for line in (
        f"{extraction} --workers 1",
        f"fit-head base --preset small --streams layout --epochs 1 --device cpu --out r {named}",
    ):
        code, error = run(line.split(), tmp_path)
        assert code == 0, error
    noted = json.loads((tmp_path / "r" / "plugin.json").read_text())
    found = {kind: (note["name"], Path(note["file"]).name) for kind, note in noted.items()}
    assert found == {"backbone": ("own-boxes", "own_boxes.py"), "dataset": ("kitchen", "own_data.py")}
