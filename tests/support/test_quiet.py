"""What silences other packages; that they are silent, `test_sealed` shows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from leuko.support.packages import import_onnxruntime
from leuko.support.quiet import keras_home, silence

OURS = ("ORT_DISABLE_TELEMETRY", "RAY_USAGE_STATS_ENABLED", "MPLCONFIGDIR", "KERAS_HOME")


def test_a_variable_that_the_user_set_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "")
    silence()
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "0"
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


def test_onnx_runtime_is_silenced_before_its_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    assert import_onnxruntime().__name__ == "onnxruntime"
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


def test_weights_are_kept_where_keras_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for none in ("", os.devnull):
        monkeypatch.setenv("KERAS_HOME", none)
        assert keras_home() == tmp_path / ".keras"
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "mine"))
    assert keras_home() == tmp_path / "mine"


@pytest.mark.parametrize("settled", [False, True])
def test_settings_are_thrown_away(tmp_path: Path, settled: bool) -> None:
    """Matplotlib's folder goes with the process; Keras's settings are read where there are some."""
    if settled:
        (tmp_path / ".keras").mkdir()
        (tmp_path / ".keras" / "keras.json").write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    code = (
        "import os; from leuko.support.quiet import throw_away_settings as t; t(); "
        "folder = os.environ['MPLCONFIGDIR']; print(os.path.exists(folder)); os.mkdir(folder); "
        "print(folder); print(os.environ.get('KERAS_HOME'))"
    )
    environment = {name: value for name, value in os.environ.items() if name not in OURS}
    environment |= {"HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    there, folder, keras = done.stdout.splitlines()
    assert there == "False"
    assert Path(folder).parent == tmp_path
    assert keras == ("None" if settled else os.devnull)
    assert sorted(tmp_path.rglob("*")) == before
