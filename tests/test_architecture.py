"""docs/architecture.md shows the way of the data as the code has it."""

from __future__ import annotations

import runpy
from pathlib import Path

import ifcar


def test_picture_of_the_page_is_what_the_annotations_say() -> None:
    made = runpy.run_path(str(Path(ifcar.__file__).parent / "docs" / "way_of_the_data.py"))
    picture = made["picture"]()
    assert made["written"]() == picture, "run `python docs/way_of_the_data.py`"
    assert picture.count("-->") > len(made["ROOMS"])
