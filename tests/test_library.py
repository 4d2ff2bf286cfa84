"""`import ifcar`: what it loads, and the way from boxes to a scored run through its public names alone."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures.something_else import write_dataset

import ifcar
from ifcar.heads.contract import InstanceBatch

BRIEF = ifcar.ScheduleConfig(kind="stretched", epochs=2, batch_size=8, held_out=0.0)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_dataset(tmp_path_factory.mktemp("data") / "d", num_clips=16, pixels=False)
    config = ifcar.ExtractConfig(
        dataset="something-else", data_root=root, out=root.parent / "b.zarr", backbone="none", workers=0, instances=3
    )
    return ifcar.extract(config).cache


def test_import_loads_the_standard_library_alone() -> None:
    code = """
import sys
before = set(sys.modules)
import ifcar
roots = {name.partition(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)
own = sorted(name for name in sys.modules if name.startswith("ifcar."))
print(*sorted(root for root in roots if not root.startswith("__editable__")), *own)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.split() == ["ifcar"]


def test_every_public_name_is_documented_and_its_own() -> None:
    docs = Path(ifcar.__file__).parent / "docs"
    page = (docs / "library.md").read_text()
    listed = [line.rpartition(".")[2] for line in (docs / "reference.md").read_text().splitlines() if line[:3] == ":::"]
    assert sorted(listed) == ifcar.__all__
    for name in ifcar.__all__:
        assert f"`{name}" in page, f"docs/library.md does not name {name}"
        assert inspect.getdoc(getattr(ifcar, name)), name
    assert list(ifcar.__all__) == sorted(ifcar.__all__)
    assert {*ifcar.__all__} <= {*dir(ifcar)}
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        _ = ifcar.fitt


@pytest.mark.slow
def test_extract_can_be_called_before_and_after_its_folder_is_imported() -> None:
    code = """
import inspect
import ifcar
first = inspect.signature(ifcar.extract)
import ifcar.extract.limits
from ifcar.pipelines.extract import extract
assert first == inspect.signature(ifcar.extract) == inspect.signature(extract)
assert ifcar.extract.limits.WORKERS
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_examples_are_the_same_rows_as_tensors_as_arrays_and_in_the_table(cache: Path) -> None:
    opened = ifcar.open_cache(cache)
    examples = opened.examples(split="train")
    arrays, table = examples.arrays("boxes", "categories"), examples.table()
    dataset = examples.dataset("boxes", "categories")
    assert len(examples) == len(table["id"]) and {len(column) for column in table.values()} == {len(examples)}
    protocol = opened.reader.protocol(opened.protocols[0])
    for item in range(len(dataset)):
        values, target = dataset[item]
        place = int(arrays["places"][item])
        clip = opened.reader.clip_ids.index(table["clip"][place])
        assert target == arrays["targets"][item] == protocol.labels.targets[clip]
        assert table["labels"][place] == [examples.classes[int(target)]]
        for name in ("boxes", "categories"):
            stored = opened.reader.read_rows(name, np.array([clip * opened.reader.rows_per_clip]))[0]
            np.testing.assert_array_equal(values[name], stored)
            np.testing.assert_array_equal(arrays[name][item], stored)
        seen = [int((stored[:, slot] > 0).sum()) for slot in range(stored.shape[1])]
        assert table["track_frames"][place] == [count for count in seen if count]
        assert table["num_instances"][place] == table["num_subjects"][place] + table["num_objects"][place]
    again = pickle.loads(pickle.dumps(dataset))
    torch.testing.assert_close(again[3][0], dataset[3][0])
    assert f"{len(examples)} train clips" in repr(examples) and "boxes" in repr(opened)
    with pytest.raises(ifcar.IfcarError, match="did you mean 'boxes'"):
        examples.dataset("boxs")
    with pytest.raises(ValueError, match="expected 'train' or 'test'"):
        opened.examples(split="dev")  # type: ignore[arg-type]


def test_run_is_fitted_opened_and_scored(cache: Path, tmp_path: Path) -> None:
    config = ifcar.make_run_config("base", cache, preset="small", streams="layout", schedule=BRIEF)
    path = ifcar.fit(config, out=tmp_path / "run", device="cpu").run.path
    run = ifcar.open_run(path)
    scored = run.score(cache)
    assert scored.agrees
    assert f"n = {scored.metrics.n}" in repr(run) and len(repr(run)) < 300
    examples = ifcar.open_cache(cache).examples(split="test")
    head = run.head()
    assert not head.training
    read = examples.arrays("boxes", "categories")
    batch = InstanceBatch({name: torch.from_numpy(read[name]) for name in ("boxes", "categories")})
    stored = run.predictions("test")
    assert examples.table()["id"] == stored.clip_ids.tolist()
    torch.testing.assert_close(head(batch).logits, torch.from_numpy(stored.logits))
    assert run.score(str(cache)).agrees and ifcar.open_run(str(path)).path == path
    for wrong in (
        lambda: run.score(ifcar.open_cache(cache)),
        lambda: ifcar.open_run(run),
        lambda: ifcar.open_cache(run),
    ):
        with pytest.raises(ifcar.IfcarError, match=r" is <(cache|run) .*; expected a path") as refused:
            wrong()  # type: ignore[no-untyped-call]
        assert "\n" not in str(refused.value)
    with pytest.raises(ValueError, match="as a field of the options"):
        run.score(cache, ifcar.EvaluateConfig())


def test_text_is_a_path_wherever_one_is_meant(cache: Path, tmp_path: Path) -> None:
    config = ifcar.make_run_config("base", str(cache), preset="small", streams="layout", schedule=BRIEF)
    assert config.cache == cache
    assert ifcar.PredictConfig(boxes="boxes.csv").boxes == Path("boxes.csv")  # type: ignore[arg-type]
    nowhere = tmp_path / "nowhere"
    for folders in (nowhere, str(nowhere), [str(nowhere)]):
        with pytest.raises(ifcar.IfcarError, match=f"^{nowhere}: no such folder"):
            ifcar.report(folders)
    with pytest.raises(ifcar.IfcarError, match=f"^{nowhere}"):
        ifcar.predict(str(nowhere), "video.mp4", ifcar.Silent(), ifcar.PredictConfig())
    with pytest.raises(ifcar.IfcarError, match=r"^video is 3; expected a path"):
        ifcar.predict(nowhere, 3, ifcar.Silent(), ifcar.PredictConfig())  # type: ignore[arg-type]
