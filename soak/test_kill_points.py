"""Kill a command at its k-th system call of a kind, run it again, compare every byte.

`LEUKO_SOAK_KILLS` sets how many points for each command and call. Needs strace.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from leuko.data.synth import SmearPlan, draw_dataset

KILLS = int(os.environ.get("LEUKO_SOAK_KILLS", "6"))
CALLS = ("rename", "openat", "write", "fsync")

TINY = """
name = "tiny"
title = "Tiny"
[preprocess]
size = [64, 64]
[data]
balance = "sampled"
[model]
architecture = "cnn"
[train]
epochs = 3
steps = 3
batch = 8
"""


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file but the one that holds times."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "environment.json"
    }


def run(command: list[str], kill: str = "") -> subprocess.CompletedProcess[bytes]:
    """Run a command, with strace injecting a SIGKILL when asked to."""
    traced = ["strace", "-f", "-qq", "-o", os.devnull, "-e", f"inject={kill}"] if kill else []
    return subprocess.run([*traced, *command], capture_output=True, check=False)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("soak") / "Dataset"
    draw_dataset(folder, SmearPlan(train=60, test=15, size=96, seed=3))
    return folder


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("command", ["balance", "train"])
def test_killed_anywhere_and_resumed_is_bit_identical(
    command: str, dataset: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(TINY)
    leuko = [sys.executable, "-m", "leuko"]

    def call(out: Path) -> list[str]:
        if command == "balance":
            return [*leuko, "balance", str(dataset / "Train"), str(out), "--quiet"]
        return [*leuko, "train", str(dataset), "--recipe", str(recipe), "--out", str(out),
                "--resume", "--quiet"]  # fmt: skip

    whole = tmp_path / "whole"
    assert run(call(whole)).returncode == 0
    expected = digests(whole)
    rng = np.random.default_rng(11)
    killed = 0
    for number in range(KILLS * len(CALLS)):
        name = CALLS[number % len(CALLS)]
        when = int(np.exp(rng.uniform(0, np.log(400 if name == "rename" else 4000))))
        out = tmp_path / f"killed-{number}"
        first = run(call(out), f"{name}:signal=SIGKILL:when={when}")
        killed += first.returncode != 0
        again = run(call(out))
        assert again.returncode == 0, again.stderr.decode()
        assert digests(out) == expected, f"{command} killed at {name} number {when}"
        shutil.rmtree(out)
    assert killed, "no kill hit; the counts of system calls must have changed"
