"""What the command line prints: commands that can be pasted, ifcar's own warnings, and none of a library's."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from fixtures.processes import run, run_program
from fixtures.something_else import label, record, write_dataset
from fixtures.videos import write_video
from fixtures.weights import random_weights
from hypothesis import given, settings
from hypothesis import strategies as st

from ifcar.cli import main
from ifcar.shell_words import command, quoted

WORDS = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8),
    st.sampled_from(
        ["my c.zarr", "a'b", "$HOME", "`x`", "~", "*", "-x", "日本", "é", "\n", "\x1b[1m", "\\n", "a\\'\n"]
    ),
)
NOISE = """
import logging, subprocess, sys, warnings
from ifcar.terminal import quiet_libraries
quiet_libraries()
warnings.warn("raw")
warnings.warn("raw", DeprecationWarning)
logging.getLogger("matplotlib.font_manager").warning("raw")
logging.getLogger("ifcar.cache").warning("own %s", "x\\n\\x1b[1m")
subprocess.run([sys.executable, "-c", "import warnings; warnings.warn('raw child')"])
"""


@settings(max_examples=40, derandomize=True, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=20))
def test_a_pasted_command_has_the_words_that_were_meant(words: list[str]) -> None:
    line = command("printf", "%s\\0", *words).strip("`")
    assert line.isprintable()
    assert subprocess.run(["bash", "-c", line], capture_output=True, check=True).stdout.decode() == "".join(
        f"{word}\0" for word in words
    )


def test_a_path_never_passes_for_an_option() -> None:
    assert [quoted(path) for path in (Path("-x y"), Path("a/-x"), Path("x"))] == ["'./-x y'", "a/-x", "x"]


def pasted(printed: str) -> list[list[str]]:
    """Return the arguments of every command of the "Next:" lines that begins with ifcar and names a place."""
    lines = [line for line in printed.splitlines() if line.startswith("Next: ")]
    assert lines, printed
    found = [shlex.split(words) for line in lines for words in re.findall(r"`(ifcar (?:[^`']|'[^']*')*)`", line)]
    return [words[1:] for words in found]


@pytest.mark.slow
def test_next_commands_work_as_they_are_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_dataset(Path("my data"), num_clips=8, pixels=False)

    def run_main(*arguments: str) -> list[list[str]]:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        printed = capsys.readouterr()
        assert ended.value.code == 0, printed.err
        return pasted(printed.out) if "Next: " in printed.out else []

    made = ("--dataset", "something-else", "--data-root", "my data", "--out", "my `c` ü.zarr", "--backbone", "none")
    fit, show = run_main("extract", *made, "--workers", "0")
    assert show == ["cache", "show", "my `c` ü.zarr", "--data-root", "my data"]
    run_main(*show)
    evaluate = run_main(*fit, "--preset", "small", "--schedule", "paper", "--epochs", "1", "--out", "my $run")[0]
    assert evaluate == ["evaluate", "my $run"]
    run_main(*evaluate)
    Path("g.yaml").write_text(
        "name: g\nseeds: [0]\npreset: small\nschedule: {kind: paper, epochs: 1}\n"
        "systems:\n- {name: SFI, head: sfi, streams: layout}\n"
    )
    (report,) = run_main("grid", "g.yaml", "--cache", "my `c` ü.zarr", "--out", "a; b", "--processes", "1")
    assert report == ["report", "a; b"]
    run_main(*report, "--out", "the page")


def test_only_own_warnings_reach_the_terminal_a_line_each(tmp_path: Path) -> None:
    code, error = run_program([sys.executable, "-c", NOISE], tmp_path)
    assert (code, error) == (0, "ifcar: own x\\n\\x1b[1m\n")


def test_debug_shows_what_libraries_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IFCAR_DEBUG", "1")
    monkeypatch.delenv("PYTHONWARNINGS", raising=False)
    assert run_program([sys.executable, "-c", NOISE], tmp_path)[1].count("raw") >= 3


@pytest.mark.slow
def test_ids_of_any_script_and_damaged_videos_print_no_library_warning(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data", num_clips=4, pixels=False)
    ids = {"100": "日本", "101": "$a^{$", "102": "café", "103": "x\u0332क"}
    content = json.loads((root / "annotations.json").read_text())
    records = {ids[c]: [record(ids[c], f, [label("hand", (2, 3, 40, 41))]) for f in range(11)] for c in content}
    (root / "annotations.json").write_text(json.dumps(records))
    for clip_id in ids.values():
        write_video(root / "videos" / f"{clip_id}.mp4", 12, fps=12)
    damaged = bytearray((root / "videos" / "café.mp4").read_bytes())
    damaged[200:600] = bytes(400)
    (root / "videos" / "café.mp4").write_bytes(damaged)
    options = ["--crop", "32", "--frames", "4", "--workers", "1", "--device", "cpu"]
    options += ["--weights", random_weights(tmp_path)]
    _, error = run(
        ["extract", "--dataset", "something-else", "--data-root", root, "--out", "c.zarr", *options], tmp_path
    )
    unexpected = [line for line in error.splitlines() if not re.match(r"(i3d_r50: |c\.zarr: |extracting )", line)]
    assert unexpected == []
    code, error = run(["cache", "show", "c.zarr", "--data-root", root, "--out", "p"], tmp_path)
    assert code == 0 and all(line.startswith("ifcar: no installed font has") for line in error.splitlines()), error
    assert error.count("\n") <= 1 and len(list((tmp_path / "p").glob("*.png"))) >= 3
