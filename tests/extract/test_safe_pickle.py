"""Pickles from a data set: plain data comes back as it was, everything else is refused and has no effect."""

from __future__ import annotations

import collections
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from ifcar.errors import InputError, MissingDataError
from ifcar.extract.safe_pickle import load_pickle

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
SETTINGS = settings(derandomize=True, max_examples=30, deadline=None, database=None)
SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text() | st.binary()
KEYS = st.text() | st.integers(-(2**40), 2**40) | st.tuples(st.text(), st.integers(-5, 5))
ARRAYS = npst.arrays(st.sampled_from(["<f4", ">f8", "<i8", "|u1", "|b1", "<c8"]), npst.array_shapes(min_dims=0))
VALUES = st.recursive(
    SCALARS | ARRAYS | st.frozensets(KEYS) | st.sets(KEYS),
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner) | st.tuples(inner, inner),
    max_leaves=12,
)


def same(a: Any, b: Any) -> bool:
    """Equal in value and type, NaN equal to itself."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray | np.generic):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    return bool(a == b) or (isinstance(a, float) and a != a and b != b)


def load_bytes(folder: Path, content: bytes) -> object:
    path = folder / "data.pkl"
    path.write_bytes(content)
    return load_pickle(path)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pickles")


@pytest.mark.slow
@SETTINGS
@given(value=VALUES, protocol=st.sampled_from(PROTOCOLS))
def test_plain_data_comes_back_as_it_was(place: Path, value: object, protocol: int) -> None:
    assert same(load_bytes(place, pickle.dumps(value, protocol)), value)


@pytest.mark.slow
@SETTINGS
@given(value=VALUES, protocol=st.sampled_from(PROTOCOLS), data=st.data())
def test_damaged_bytes_are_read_or_refused_in_one_line(
    place: Path, value: object, protocol: int, data: st.DataObject
) -> None:
    content = bytearray(pickle.dumps(value, protocol))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        load_bytes(place, bytes(content))
    except InputError as error:
        assert "data.pkl: " in str(error)


def test_shapes_of_annotation_files_come_back(tmp_path: Path) -> None:
    value = {
        "50N4E.mp4/000682.png": [
            {"class": "light", "bbox": (0.5, 1.0, 2.0, 3.0), "visible": True, "spatial_relationship": None},
            {"class": "dish", "bbox": np.array([[1.0, 2.0, 3.0, 4.0]], np.float32), "score": np.float64(0.5)},
        ],
    }
    value["copy.png"] = value["50N4E.mp4/000682.png"]
    for protocol in PROTOCOLS:
        found = load_bytes(tmp_path, pickle.dumps(value, protocol))
        assert same(found, value)
        assert isinstance(found, dict) and found["copy.png"] is found["50N4E.mp4/000682.png"]
        assert found["copy.png"][1]["bbox"].flags.writeable
    assert load_bytes(tmp_path, pickle.dumps(collections.OrderedDict(a=1))) == {"a": 1}
    fortran = np.asfortranarray(np.arange(6).reshape(2, 3))
    np.testing.assert_array_equal(load_bytes(tmp_path, pickle.dumps(fortran, 2)), fortran)


def test_pickles_of_python_2_come_back(tmp_path: Path) -> None:
    """Text of 8 bits, long integers, booleans and an array as Python 2 and its numpy wrote them."""
    text = b"(dp0\nS'caf\\xe9'\np1\n(lp2\nI01\naL12345678901234567890L\naF0.5\naVx\\u0142\nas."
    assert load_bytes(tmp_path, text) == {"café": [True, 12345678901234567890, 0.5, "xł"]}
    array = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x00cnumpy\nndarray\nq\x01K\x00\x85U\x01b\x87Rq\x02"
        b"(K\x01K\x02\x85cnumpy\ndtype\nq\x03U\x02f4K\x00K\x01\x87Rq\x04(K\x03U\x01<NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89U\x08\x00\x00\x80?\x00\x00\x00\xc0tb."
    )
    found = load_bytes(tmp_path, array)
    assert same(found, np.array([1.0, -2.0], np.float32))
    path = tmp_path / "utf8.pkl"
    path.write_bytes(b"U\x02\xc3\xa9.")
    assert (load_pickle(path), load_pickle(path, encoding="utf-8")) == ("Ã©", "é")


class Calls:
    """Pickles as a call of any function with any arguments."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.reduced


UNFINISHED = b"cnumpy.core.multiarray\n_reconstruct\n(tR"


def attacks(marker: Path) -> dict[str, bytes]:
    """Pickles that would create `marker` when Python's own unpickler reads them, or that smuggle a class in."""
    touch = f"open({str(marker)!r}, 'w').close()"
    made = {
        "os.system": Calls(os.system, f"touch {marker}"),
        "builtins.eval": Calls(eval, touch),
        "builtins.exec": Calls(exec, touch),
        "subprocess.Popen": Calls(subprocess.Popen, ["touch", str(marker)]),
        "builtins.getattr": Calls(getattr, 1, "__class__"),
        "builtins.__import__": Calls(__import__, "os"),
        "numpy.load": Calls(np.load, str(marker)),
        "pathlib": marker,
    }
    attack = {name: pickle.dumps([1, {"a": what}], 4) for name, what in made.items()}
    attack |= {
        "instance": f"(S'touch {marker}'\nios\nsystem\n.".encode(),
        "object": b"(cos\nsystem\nS'touch " + str(marker).encode() + b"'\no.",
        "stack global": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c" + bytes([len(f"touch {marker}")])
        + f"touch {marker}".encode() + b"\x85R.",
        "dotted name": b"cnumpy\nndarray.tofile\n(S'" + str(marker).encode() + b"'\ntR.",
        "names within allowed modules": b"cnumpy.core.multiarray\nfromfile\n(S'x'\ntR.",
        "build on a dict": b"}}S'__class__'\nNsb.",
        "build on a function": b"cnumpy\ndtype\n}b.",
        "call of a marker": b"cnumpy\nndarray\n(K\x09tR.",
        "call of data": b"S'os.system'\n(S'x'\ntR.",
        "extension": b"\x80\x02\x82\x01.",
        "persistent": b"Pos.system\n.",
        "out of band": b"\x80\x05\x97.",
        "new object": b"\x80\x02cos\nsystem\n)\x81.",
        "object array": pickle.dumps(np.array([{}, None], object), 2),
        "record array": pickle.dumps(np.zeros(2, [("a", "f4")]), 2),
        "text array": pickle.dumps(np.array(["a"]), 2),
        "a name as a value": b"cnumpy\nndarray\n.",
        "a list's end put to an array": UNFINISHED + b"(K\x69K\x00e.",
        "one value put to an array": UNFINISHED + b"K\x69a.",
        "an array's bytes set": UNFINISHED + b"(K\x00K\x01u.",
        "an unfinished array": b"cnumpy.core.multiarray\n_reconstruct\n(tR.",
        "array of fewer bytes": pickle.dumps(np.zeros(300, "f8"), 2).replace(b"M,\x01", b"M,\x02", 1),
    }  # fmt: skip
    return attack


@pytest.mark.slow
@pytest.mark.parametrize("name", attacks(Path("x")))
def test_code_and_classes_are_refused_without_effect(tmp_path: Path, name: str) -> None:
    marker = tmp_path / "marker"
    with pytest.raises(InputError) as caught:
        load_bytes(tmp_path, attacks(marker)[name])
    assert not marker.exists()
    assert str(tmp_path / "data.pkl") in str(caught.value) and "\n" not in str(caught.value)
    if name.startswith(("os.", "subprocess.", "builtins.", "numpy.")):
        assert repr(name.replace("os.", f"{os.system.__module__}.")) in str(caught.value)


def test_the_attacks_work_on_the_standard_unpickler(tmp_path: Path) -> None:
    """Otherwise the test above would show nothing."""
    for name in ("os.system", "builtins.eval", "builtins.exec", "instance", "object", "stack global"):
        marker = tmp_path / name.replace(" ", "-")
        pickle.loads(attacks(marker)[name])
        assert marker.exists(), name


def sides(*sizes: int) -> bytes:
    """An array without numbers, of this shape."""
    shape = b"(" + b"".join(b"I%d\n" % size for size in sizes) + b"t"
    return b"cnumpy.core.numeric\n_frombuffer\n(C\x00cnumpy\ndtype\n(S'u1'\ntR" + shape + b"S'C'\ntR."


def bombs() -> dict[str, bytes]:
    """Pickles whose reading or use would take memory or time out of all proportion."""
    size = (2**40).to_bytes(8, "little")
    laughs = b"]" + b"".join(b"q" + bytes([k]) + b"]h" + bytes([k]) + b"ah" + bytes([k]) + b"a" for k in range(50))
    keys = b"".join(b"\x8a\x0a" + (k * (2**61 - 1)).to_bytes(10, "little") + b"N" for k in range(1, 30_000))
    million = b"]q\x00(" + b"N" * 1_000_000 + b"e"
    numbers = b"cnumpy\ndtype\nX\x02\x00\x00\x00u1\x85Rq\x00B" + (2**20).to_bytes(4, "little") + bytes(2**20) + b"q\x01"
    view = b"cnumpy.core.numeric\n_frombuffer\n(h\x01h\x00J\x00\x00\x10\x00X\x01\x00\x00\x00CtR"
    return {
        "claimed bytes": b"\x80\x04\x8e" + size + b"x.",
        "claimed text": b"\x80\x04\x8d" + size + b"x.",
        "claimed bytearray": b"\x80\x05\x96" + size + b"x.",
        "claimed frame": b"\x80\x04\x95" + size,
        "claimed long": b"\x80\x02\x8b\xff\xff\xff\x7f.",
        "long digits": b"L" + b"9" * 10_000_000 + b"L\n.",
        "long bytes": b"\x80\x02\x8b" + (10**7).to_bytes(4, "little") + b"\x7f" * 10**7 + b".",
        "claimed array": b"cnumpy.core.multiarray\n_reconstruct\n(tR(I1\n(L999999999999L\ntcnumpy\ndtype\n(S'f8'\ntR"
        b"I00\nS''\ntb.",
        "nested lists": b"]" * 100_000 + b"a" * 99_999 + b".",
        "nested tuples": b"N" + b"\x85" * 1_000_000 + b".",
        "cycle": b"]q\x00h\x00a.",
        "sets": b"\x80\x04(" + b"\x8f" * 4_000_000 + b"t.",
        "marks": b"(" * 4_000_000 + b".",
        "doubled references": laughs + b".",
        "nested keys": b"}N\x85" + b"2\x86" * 60 + b"Ns.",
        "colliding keys": b"\x80\x02}(" + keys + b"u.",
        "keys of a million levels": b"}N" + b"\x85" * 1_000_000 + b"Ns.",
        "a place far out in the memo": b"Nr\xff\xff\xff\x7f.",
        "one list a million times": million + b"](" + b"h\x00" * 1_000_000 + b"e.",
        "arrays that share their bytes": b"\x80\x02" + numbers + b"(" + view * 4_000 + b"l.",
        "an empty array too wide for numpy": sides(2**32, 2**32, 0),
        "a side too wide for numpy": sides(2**80, 0),
    }


@pytest.fixture(scope="module")
def said_of_bombs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What is said of each bomb by a process that may not even ask for more than 2 GiB of addresses."""
    folder = tmp_path_factory.mktemp("bombs")
    for name, content in bombs().items():
        (folder / f"{name}.pkl").write_bytes(content)
    code = (
        "import json, resource, sys\nfrom pathlib import Path\nfrom ifcar.errors import InputError\n"
        "from ifcar.extract.safe_pickle import load_pickle\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))\nsaid = {}\n"
        "for path in Path(sys.argv[1]).iterdir():\n"
        "    try: said[path.stem] = 'read: ' + str(type(load_pickle(path)))\n"
        "    except InputError as error: said[path.stem] = str(error)\n"
        "print(json.dumps(said))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        capture_output=True, text=True, check=False, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.slow
@pytest.mark.parametrize("name", bombs())
def test_bombs_are_refused_in_bounded_memory_and_time(said_of_bombs: dict[str, str], name: str) -> None:
    said = said_of_bombs[name]
    assert f"{name}.pkl: " in said and "\n" not in said


def test_missing_and_empty_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"none\.pkl"):
        load_pickle(tmp_path / "none.pkl")
    for content in (b"", b"\x80\x04", b"N", b"N.N.", b"not a pickle", b"\x80\x09N."):
        with pytest.raises(InputError, match=r"data\.pkl: "):
            load_bytes(tmp_path, content)
