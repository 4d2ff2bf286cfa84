"""Fine-tuning in several processes under torchrun: the same gradients, a dead process, resume."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import torch
import torch.distributed.run
from fixtures.finetuning import small_i3d
from fixtures.processes import Command
from fixtures.something_else import write_dataset
from safetensors.torch import load_file

from ifcar.errors import InputError
from ifcar.pipelines.finetune.distributed import Group
from ifcar.pipelines.finetune.run import finetune, make_plan, make_trainer
from ifcar.pipelines.finetune.setting import open_setting
from ifcar.pipelines.progress import Silent
from ifcar.pipelines.runs.finished import write_config

WORKER = "import torch; torch.set_num_threads(1); from ifcar.cli import main; main()"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "d", num_clips=16)


def torchrun(folder: Path, *arguments: str) -> Command:
    """Start two processes of `ifcar finetune`: forks of the launcher, which is one of the tests' server."""
    script = folder / "worker.py"
    script.write_text(WORKER)
    launch = ["--standalone", "--nproc-per-node", "2", "--run-path", "--start-method", "fork", script]
    return Command(
        [*launch, "finetune", "i3d", *arguments, "--device", "cpu", "--workers", "0"], folder,
        program=torch.distributed.run.main,
    )  # fmt: skip


def processes_of(launcher: int) -> list[int]:
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    return sorted(int(child) for child in children)


@pytest.mark.slow(seconds=30)
def test_two_processes_train_like_one_and_go_on_after_one_is_killed(root: Path, tmp_path: Path) -> None:
    """Two steps with momentum and dropout: weights differ by rounding only. BatchNorm keeps its statistics.

    The run of two is killed in one of them after its first checkpoint, says so, and goes on to the same end.
    """
    config = small_i3d(root, epochs=2, batch_size=4, micro_batch=1, clip_gradient=1.0)
    alone = finetune(config, Silent(), out=tmp_path / "alone", workers=0)
    file = tmp_path / "config.yaml"
    write_config(tmp_path, config)
    stopped = tmp_path / "together"
    launcher = torchrun(tmp_path, "--config", str(file), "--out", str(stopped))
    while not (stopped / "checkpoint.safetensors").exists() and launcher.poll() is None:
        time.sleep(0.02)
    assert launcher.poll() is None, launcher.communicate()[1]
    os.kill(processes_of(launcher.pid)[-1], signal.SIGKILL)
    _, errors = launcher.communicate(timeout=120)
    assert launcher.returncode != 0
    assert "Signal 9 (SIGKILL)" in errors
    assert not (stopped / "metrics.json").exists()
    again = torchrun(tmp_path, "--resume", "--out", str(stopped), "--json")
    output, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    assert output.count('"backbone"') == 1  # one process talks
    start = open_setting(config, Group(number=0, size=1, device=torch.device("cpu")), Silent()).model
    for name in ("backbone.safetensors", "model.safetensors"):
        one, two = load_file(alone.run.path / name), load_file(stopped / name)
        part = start.backbone if name.startswith("backbone") else start.head
        for key, begun in part.state_dict().items():
            moved = float((one[key] - begun).float().norm())
            assert float((one[key] - two[key]).float().norm()) <= 1e-3 * moved + 1e-7, key


def test_group_that_cannot_share_a_batch_is_refused(root: Path) -> None:
    pair = Group(number=0, size=2, device=torch.device("cpu"))
    with pytest.raises(InputError, match="without a clip"):
        make_plan(small_i3d(root, batch_size=1), 8, 2)
    alone = Group(number=0, size=1, device=torch.device("cpu"))
    setting = open_setting(small_i3d(root, batch_norm="train"), alone, Silent())
    with pytest.raises(InputError, match="statistics of its own"):
        make_trainer(setting, pair, 0)
