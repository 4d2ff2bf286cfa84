"""docs/add-a-head.md does what it says: its files, as an external package, through its commands."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fixtures.something_else import write_dataset

import ifcar
from ifcar.plugins import VARIABLE

PAGE = (Path(ifcar.__file__).parent / "docs" / "add-a-head.md").read_text()
FILES = re.findall(r"`(\w+\.py)`:\n\n```python\n(.*?)```", PAGE, re.DOTALL)


def test_head_of_the_page_is_short() -> None:
    code = [line for line in dict(FILES)["mean_box.py"].splitlines() if line.strip()]
    assert len(code) <= 40


@pytest.mark.slow
def test_commands_of_the_page_work_on_its_files(tmp_path: Path) -> None:
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
    environment = {key: value for key, value in os.environ.items() if not key.startswith("IFCAR_")}
    package = Path(ifcar.__file__).parent / ".typing"
    environment["PYTHONPATH"] = os.pathsep.join([str(package), str(tmp_path)])
    for line in commands.splitlines():
        words = line.partition("#")[0].split()
        if words[0] == "export":
            environment |= [words[1].split("=")]
            continue
        program = {"python": [sys.executable], "ifcar": [sys.executable, "-c", "from ifcar.cli import main; main()"]}
        options = ["-p", "no:cacheprovider"] if words[0] == "python" else []
        options += ["--epochs", "2", "--device", "cpu"] if "fit-head" in words else []
        done = subprocess.run(
            [*program[words[0]], *words[1:], *options], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr}"
        assert "passed" in done.stdout or words[0] != "python"
    assert "mean-box" in (tmp_path / "report" / "index.html").read_text()
    assert VARIABLE in environment


@pytest.mark.slow
def test_data_set_and_backbone_of_the_page_make_a_cache_whose_runs_remember_them(tmp_path: Path) -> None:
    for name, text in FILES[2:]:
        (tmp_path / name).write_text(text)
    write_dataset(tmp_path / "data" / "kitchen", num_clips=16, pixels=False)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("IFCAR_")}
    (extraction,) = re.findall(r"`ifcar (extract .*?)`", PAGE)
    named = extraction[extraction.index("--plugin") :]
    for line in (
        f"{extraction} --workers 1",
        f"fit-head base --preset small --streams layout --epochs 1 --device cpu --out r {named}",
    ):
        command = [sys.executable, "-c", "from ifcar.cli import main; main()", *line.split()]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    noted = json.loads((tmp_path / "r" / "plugin.json").read_text())
    found = {kind: (note["name"], Path(note["file"]).name) for kind, note in noted.items()}
    assert found == {"backbone": ("own-boxes", "own_boxes.py"), "dataset": ("kitchen", "own_data.py")}
