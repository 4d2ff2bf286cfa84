"""The package list matches the folders, so that the wheel holds exactly the package."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import ifcar

ROOT = Path(__file__).parents[1]
NOT_PACKAGES = {"tests", "benchmarks", "docs", "build", "dist"}


def test_package_list_matches_the_folders() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {"ifcar"}
    for init in ROOT.rglob("__init__.py"):
        parts = init.parent.relative_to(ROOT).parts
        if parts and parts[0] not in NOT_PACKAGES and not parts[0].startswith("."):
            found.add(".".join(("ifcar", *parts)))
    assert listed == found


@pytest.mark.slow
def test_wheel_holds_exactly_the_package(tmp_path: Path) -> None:
    page_files = [f"pipelines/*.{kind}" for kind in ("html", "css", "js")]
    listing = ["git", "ls-files", "*.py", "pipelines/grid/files/*.yaml", *page_files]
    tracked = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    source = tmp_path / "source"
    for name in [*tracked.split(), "pyproject.toml", "README.md", "LICENSE", "py.typed"]:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(tmp_path), str(source)]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {n for n in archive.namelist() if ".dist-info/" not in n}
    package = {n for n in tracked.split() if n.split("/")[0] not in NOT_PACKAGES}
    assert held == {f"ifcar/{n}" for n in package} | {"ifcar/py.typed"}


def test_citation_names_the_version_and_the_licence_of_the_package() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (cited["version"], cited["license"]) == (ifcar.__version__, project["license"])
    assert f"## {ifcar.__version__}" in (ROOT / "CHANGELOG.md").read_text()


IMPORTED_AS = {
    "fonttools": "fontTools",
    "google-crc32c": "google_crc32c",
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "pyyaml": "yaml",
}
IMPORTED_AS |= {"scikit-learn": "sklearn"}


def test_every_dependency_is_imported_and_has_its_reason() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = [re.split(r"[^\w-]", line)[0] for line in listed]
    table = (ROOT / "CONTRIBUTING.md").read_text().partition("## Dependencies")[2].partition("\n## ")[0]
    assert sorted(", ".join(re.findall(r"^\| ([a-z0-9, -]+) \|", table, re.M)[1:]).split(", ")) == sorted(names)
    files = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    package = [ROOT / name for name in files.split() if name.split("/")[0] not in NOT_PACKAGES]
    text = "\n".join(path.read_text() for path in package)
    for name in names:
        module = IMPORTED_AS.get(name, name)
        assert re.search(rf"^\s*(import|from) {module}\b", text, re.M), f"{name} is not imported"
