"""The command line as a newcomer meets it: exit codes, one-line errors, JSON, help."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fixtures.interrupts import interrupted_after
from fixtures.processes import Command, call
from fixtures.something_else import write_dataset

from ifcar.cli import main
from ifcar.pipelines.training.checkpoint import NAME as CHECKPOINT


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess(arguments, *call(arguments, folder))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    write_dataset(folder / "data" / "something-else", num_clips=16, pixels=False)
    made = run(folder, "extract", "--dataset", "something-else", "--backbone", "none", "--workers", "0")
    assert made.returncode == 0, made.stderr
    return folder


def test_help_and_completion_do_not_import_torch() -> None:
    code = (
        "import sys\nfrom ifcar.cli import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit: pass\n"
        "assert not {'torch', 'zarr', 'av', 'scipy'} & set(sys.modules), sorted(sys.modules)"
    )
    completing = {"_IFCAR_COMPLETE": "complete_bash", "COMP_WORDS": "ifcar fit", "COMP_CWORD": "1"}
    for arguments, environment in ((["--help"], {}), ([], completing)):
        command = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
        assert done.returncode == 0 and "fit-head" in done.stdout, done.stderr


def test_short_forms_work_after_extract(place: Path) -> None:
    for head in ("base", "sfi"):
        options = ("--streams", "layout", "--preset", "small", "--schedule", "stretched", "--epochs", "8")
        done = run(place, "fit-head", head, *options, "--json")
        assert done.returncode == 0, done.stderr
        content = json.loads(done.stdout)
        assert {m["split"] for m in content["metrics"]} == {"train", "test", "held_out"}
    runs = [r["run"] for r in json.loads(run(place, "list", "runs", "--json").stdout)]
    assert len(runs) == 2
    fused = run(place, "ensemble", *runs, "--weights", "held-out", "--json")
    assert fused.returncode == 0, fused.stderr
    assert run(place, "evaluate", runs[0]).returncode == 0
    assert run(place, "list", "heads").stdout.count("sfi") >= 1


@pytest.mark.slow
def test_grid_few_shot_and_predict_print_tables(place: Path) -> None:
    file = place / "grid.yaml"
    file.write_text(
        "name: tiny\nseeds: [0]\npreset: small\nbaseline: SFI\nschedule: {kind: stretched, epochs: 8}\n"
        "systems:\n- {name: SFI, head: sfi, streams: layout}\n- {name: STIN, head: stin, streams: layout}\n"
    )
    planned = json.loads(run(place, "grid", str(file), "--dry-run", "--json").stdout)
    assert [r["state"] for r in planned] == ["to do", "to do"]
    made = run(place, "grid", str(file))
    assert made.returncode == 0 and "Next: `ifcar report runs/tiny`" in made.stdout, made.stderr
    assert (place / "runs" / "tiny" / "table.tex").is_file()
    assert [r["state"] for r in json.loads(run(place, "grid", str(file), "--dry-run", "--json").stdout)] == ["done"] * 2
    assert "table1" in run(place, "list", "grids").stdout
    refused = run(place, "few-shot", "sfi", "--streams", "layout")
    assert refused.returncode == 2 and "no protocol 'fewshot-base'" in refused.stderr
    unknown = run(place, "predict", planned[0]["folder"], "nowhere.mp4", "--boxes", "nothing.json")
    assert unknown.returncode == 2 and unknown.stderr.count("\n") == 1, unknown.stderr


def test_cache_commands(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = "caches/something-else-none.zarr"
    assert "compositional" in run(place, "cache", "info", cache).stdout
    assert json.loads(run(place, "cache", "verify", cache, "--json").stdout) == {"clean": True, "damages": []}
    assert run(place, "cache", "export", cache, "--out", "x.h5").returncode == 0
    assert "compositional" in run(place, "cache", "info", "x.h5").stdout
    shown = run(place, "cache", "show", cache, "--clip", "101")
    assert shown.returncode == 0 and "boxes alone are drawn, without pixels: " in caplog.text
    elsewhere = run(place, "cache", "show", cache, "--data-root", "nowhere")
    assert elsewhere.returncode == 2 and "nowhere: no such folder" in elsewhere.stderr
    assert (place / "pictures" / "101.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("extract", "--dataset", "toybx"), "unknown dataset 'toybx', did you mean 'toybox'?"),
        (("extract", "--dataset", "something-else", "--backbone", "i3d_r51"), "did you mean 'i3d_r50'?"),
        (("extract", "--dataset", "something-else", "--data-root", "nowhere"), "no such folder; put"),
        (("extract", "--dataset", "something-else"), "no pixels; put frames/ID"),
        (
            ("extract", "--dataset", "something-else", "--backbone", "none", "--instances", "2"),
            "num_instances",
        ),
        (("extract",), "Missing option '--dataset'"),
        (("fit-head", "sfy"), "unknown head 'sfy'"),
        (("fit-head", "sfi"), "head 'sfi' cannot read this cache, which has no array"),
        (("fit-head", "i3d"), "head 'i3d' cannot read this cache, which has no array"),
        (("fit-head", "sfi", "--streams", "layout", "--protocol", "compositionel"), "compositional"),
        (("fit-head", "sfi", "--streams", "layout", "--memory", "disk"), "expected one of auto, gpu, ram, stream"),
        (("fit-head", "sfi", "--streams", "layout", "--set", "pol=sum"), "did you mean 'pool'"),
        (("fit-head", "sfi", "--cache", "nowhere.zarr"), "nowhere.zarr"),
        (("evaluate", "runs/none"), "no such run"),
        (("ensemble", "runs/none", "runs/nothing"), "no such run"),
        (("grid", "tabel1"), "did you mean 'table1'"),
        (("grid", "table1"), "extract with a backbone"),
        (("fit-head", "strg", "--graphs", "joint"), "No such option: --graphs; write --set graphs=NAME"),
        (("list", "haeds"), "cannot list 'haeds'"),
        (("cache", "verify", "nowhere.zarr"), "nowhere.zarr"),
        (("nonsense",), "No such command"),
        (("fit-hed",), "Did you mean 'fit-head'? See `ifcar --help`"),
        (("list",), "name what to list: one of datasets, "),
        (("fit-head", "sfi", "--epochs", "three"), "ifcar: --epochs is 'three'; expected a whole number\n"),
        (("fit-head", "sfi", "--lr", "slow"), "ifcar: --lr is 'slow'; expected a number\n"),
        (("few-shot", "sfi", "--shots", "5", "--shots", "ten"), "ifcar: --shots is 'ten'; expected a whole number\n"),
        (("finetune", "i3d", "--workers", "2.5"), "ifcar: --workers is '2.5'; expected a whole number\n"),
        (("diagnose", "runs/none", "--draw-seed", "-1"), "ifcar: --draw-seed is -1; expected at least 0\n"),
        (("few-shot", "sif"), "unknown head 'sif', did you mean 'sfi'?"),
        (("grid", "."), ".: is a folder; expected a grid file"),
        (
            ("fit-head", "sfi", "--streams", "layout", "--out", "data/something-else/annotations.json"),
            "is a file; name",
        ),
        (("extract", "--dataset", "something-else", "--backbone", "none", "--out", "data"), "data: not a cache; name"),
        (("evaluate", "data"), "data: not a finished run, it holds no config.yaml"),
        (("cache", "push", "nowhere.zarr", "s3://b/c.zarr"), "nowhere.zarr: is not there"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(place: Path, arguments: tuple[str, ...], message: str) -> None:
    done = run(place, *arguments)
    assert done.returncode == 2, done
    assert message in done.stderr
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr, done.stderr


@pytest.mark.slow
def test_interrupt_keeps_the_checkpoint_and_resume_finishes(place: Path) -> None:
    options = ("--streams", "layout", "--preset", "small", "--schedule", "stretched", "--no-refit", "--epochs", "300")
    process = Command(["fit-head", "sfi", *options, "--out", "stopped"], place)
    while not (place / "stopped" / "checkpoint.safetensors").exists() and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGSTOP)
    second = run(place, "fit-head", "--resume", "--out", "stopped")
    process.send_signal(signal.SIGCONT)
    assert second.returncode == 2 and f"process {process.pid} on" in second.stderr
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "ifcar: interrupted" in errors and "Traceback" not in errors
    assert "`ifcar fit-head --resume --out stopped` goes on from its last checkpoint" in errors
    resumed = run(place, "fit-head", "--resume", "--out", "stopped", "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert not (place / "stopped" / "checkpoint.safetensors").exists()


def test_an_interrupted_command_says_what_is_left_of_it_and_of_no_other(place: Path) -> None:
    checked = ("data", "check", "--dataset", "something-else", "--annotations-only", "--out", "checked.html")
    short = ("fit-head", "base", "--streams", "layout", "--preset", "small", "--epochs", "2", "--out", "runs/left")
    for file, command, left in (
        ("checked.html", checked, "the same command begins anew"),
        (CHECKPOINT, short, "what is finished is kept, go on with the same command, --resume and --out"),
    ):
        with interrupted_after(file, 0):
            done = run(place, *command)
        assert done.returncode == 130 and done.stderr.splitlines()[-1] == f"ifcar: interrupted; {left}", done.stderr


def test_several_caches_ask_for_one(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "caches" / f"{name}.zarr" / "clips").mkdir(parents=True)
    done = run(tmp_path, "fit-head", "sfi")
    assert done.returncode == 2 and "a.zarr" in done.stderr and "b.zarr" in done.stderr


def test_no_cache_says_which_command_makes_one(tmp_path: Path) -> None:
    done = run(tmp_path, "fit-head", "sfi")
    assert done.returncode == 2 and "ifcar extract --dataset toybox" in done.stderr


def test_weights_that_are_not_there_are_said_before_a_data_set_is_rendered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["extract", "--dataset", "toybox", "--weights", "gone.pt"])
    assert "gone.pt: no such weights file" in capsys.readouterr().err and not (tmp_path / "data").exists()


def test_weights_that_do_not_fit_name_the_keys(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    write_dataset(tmp_path / "data" / "something-else", num_clips=4)
    save_file({"head.weight": torch.zeros(2)}, tmp_path / "w.safetensors")
    done = run(tmp_path, "extract", "--dataset", "something-else", "--weights", "w.safetensors")
    assert done.returncode == 2 and "do not fit backbone" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["extract", "--nope"], "ifcar: No such option: --nope"),
        (["finetune", "i3d", "--nope"], "ifcar: No such option: --nope"),
        (["nonsense"], "ifcar: No such command 'nonsense'; "),
    ],
)
def test_what_the_parser_refuses_points_to_the_commands_own_help(
    tmp_path: Path, arguments: list[str], said: str
) -> None:
    done = run(tmp_path, *arguments)
    named = " ".join(["ifcar", *(word for word in arguments if word in ("extract", "finetune", "i3d"))])
    assert done.returncode == 2 and done.stderr.startswith(said)
    assert done.stderr.endswith(f"see `{named} --help`\n") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [[], ["cache"], ["finetune"], ["-h"], ["fit-head", "-h"], ["data", "check", "-h"]]
)
def test_help_has_lines_and_h_asks_for_it(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(arguments)
    printed = capsys.readouterr()
    named = " ".join(["ifcar", *(word for word in arguments if word != "-h")])
    assert printed.out.startswith(f"Usage: {named} ") and printed.out.count("\n") > 5 and not printed.err
    assert done.value.code == (0 if "-h" in arguments else 2)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_are_told_the_commands(
    shell: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {"COMP_WORDS": "ifcar fit", "COMP_CWORD": "1", "_TYPER_COMPLETE_ARGS": "ifcar fit"}
    asked |= {"_IFCAR_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    for name, value in asked.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        main([])
    assert "fit-head" in capsys.readouterr().out


def test_an_address_is_named_as_it_was_written(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["cache", "repair", "s3://bucket/some/cache.zarr"])
    assert done.value.code == 2 and "s3://bucket/some/cache.zarr is an address" in capsys.readouterr().err


def test_a_folder_that_cannot_be_used_is_named_with_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("IFCAR_DATA", str(tmp_path / "file"))
    with pytest.raises(SystemExit) as done:
        main(["extract", "--dataset", "toybox", "--out", str(tmp_path / "c.zarr")])
    said = capsys.readouterr().err
    assert (
        done.value.code == 2 and f"; IFCAR_DATA is {tmp_path / 'file'}, expected a folder that can be written" in said
    )


def test_an_empty_listing_says_where_it_looked_and_what_makes_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IFCAR_RUNS", str(tmp_path / "none"))
    monkeypatch.setenv("IFCAR_CACHES", str(tmp_path / "none"))
    for what, said in (("runs", "`ifcar fit-head HEAD`"), ("caches", "`ifcar extract --dataset DATASET`")):
        with pytest.raises(SystemExit):
            main(["list", what])
        assert f"{tmp_path / 'none'}/ holds none; make one with {said}" in " ".join(capsys.readouterr().out.split())


def test_no_message_goes_on_after_its_question() -> None:
    """`nearest` ends a sentence with a question mark; what follows begins another one."""
    root = Path(__file__).parents[1]
    goes_on = re.compile(r"nearest(_of)?\([^{}]*\)\}[^\"\s{]")
    files = [path for path in root.rglob("*.py") if not {"tests", ".typing"} & set(path.relative_to(root).parts)]
    assert [str(path) for path in files if goes_on.search(path.read_text())] == []


def test_a_misspelt_head_is_said_before_a_missing_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IFCAR_CACHES", str(tmp_path))
    with pytest.raises(SystemExit):
        main(["fit-head", "sif"])
    assert "unknown head 'sif', did you mean 'sfi'" in capsys.readouterr().err
