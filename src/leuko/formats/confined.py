"""Convert a stranger's Keras file in a process of its own that may do little.

The promise: a bundle runs no code from its file; an import is *confined*, not proven safe. The
child (`leuko.training.importing_child`) reads the foreign file; what comes back are the bytes of an
ONNX network and a few words, and neither is believed here.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from leuko.errors import BundleError, MissingExtraError
from leuko.history import ImportReport
from leuko.support.artifacts import digest_bytes

__all__ = ["LARGEST_FILE", "convert_keras"]

LARGEST_FILE: Final = 2**30
"""Largest foreign file that is looked at, in bytes."""

TIMEOUT: Final = 300.0
MEMORY: Final = 12 * 2**30
"""Address space of the child, bytes: TensorFlow's converter takes 9.3 GB for a ResNet-50."""

_PACKAGES: Final = ("keras", "tensorflow", "tf2onnx", "onnx", "h5py")
_START: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from leuko.training.importing_child import main; main(sys.argv[2])"
)


def convert_keras(
    data: bytes,
    name: str,
    scale: Sequence[float],
    offset: Sequence[float],
    *,
    timeout: float = TIMEOUT,
    memory: int = MEMORY,
) -> tuple[bytes, int, ImportReport]:
    """Convert a ``.keras`` or ``.h5`` file to ONNX.

    Parameters
    ----------
    data : bytes
        The file.
    name : str
        Its name, for sentences.
    scale, offset : one or three floats
        What pixels 0 to 255 become before the model, so that the two networks are compared on such
        pixels.
    timeout : float
        Seconds after which the child is ended.
    memory : int
        Bytes of address space that it may use, where the system can limit it.

    Returns
    -------
    onnx : bytes
        A network, compared with Keras by the child; not looked at yet.
    parameters : int
        Numbers in all weights.
    report : ImportReport
        Where it came from, and what this system could take from the child.

    Raises
    ------
    BundleError
        When the file is damaged or refused; the sentence names the layer or part at fault.
    MissingExtraError
        When Keras or another package of the extra ``train`` is missing.
    """
    for package in _PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError("Importing a Keras model", "train", package)
    with tempfile.TemporaryDirectory(prefix="leuko-import-") as folder:
        home = Path(folder).resolve()
        (home / "foreign").write_bytes(data)
        limits = {"memory": memory, "cpu": int(4 * timeout) + 1, "file": 2 * LARGEST_FILE}
        job = {"scale": [*scale], "offset": [*offset], "limits": limits}
        (home / "job.json").write_text(json.dumps(job))
        code = _run(home, timeout, name)
        report = _read(home / "result.json", 2**20)
        onnx = _read(home / "model.onnx", LARGEST_FILE)
    if report is None:
        raise BundleError(
            f"The import of {name} ended with code {code} and gave no result. The file is damaged, "
            "or its network is too large for the memory that an import may use."
        )
    try:
        document = json.loads(report)
        if onnx is None or document["sentence"]:
            raise BundleError(f"{name} cannot be imported. {_plain(document['sentence'], 600)}")
        made = ImportReport(
            name,
            digest_bytes(data),
            _plain(document["format"], 20),
            keras_version=_plain(document["version"], 20),
            limits=tuple(_plain(limit, 100) for limit in document["limits"][:20]),
        )
        return onnx, int(document["parameters"]), made
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"The import of {name} gave no readable result.") from error


def _run(home: Path, timeout: float, name: str) -> int:
    """Start the child with a clean environment, wait, and end it when it takes too long."""
    paths = [str(Path(item).absolute()) for item in sys.path if item]
    command = [sys.executable, "-I", "-B", "-c", _START, json.dumps(paths), str(home)]
    child = subprocess.Popen(
        command,
        cwd=home,
        env=_environment(home),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return child.wait(timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise BundleError(
            f"The import of {name} took longer than {timeout:g} seconds and was ended."
        ) from error
    finally:
        if child.poll() is None:
            if hasattr(os, "killpg"):
                os.killpg(child.pid, signal.SIGKILL)
            else:
                child.kill()
            child.wait()


def _environment(home: Path) -> dict[str, str]:
    """Nothing of the user's but what the dynamic loader needs."""
    own = dict.fromkeys(("HOME", "TMPDIR", "TEMP", "TMP", "KERAS_HOME"), str(home))
    settings = {
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "-1",
        "ORT_DISABLE_TELEMETRY": "1",
        # HDF5 must not look for filter plugins: they are shared libraries.
        "HDF5_PLUGIN_PRELOAD": "::",
        "HDF5_PLUGIN_PATH": str(home / "none"),
        "LANG": "C.UTF-8",
    }
    passed = ["LD_LIBRARY_PATH", "SYSTEMROOT", *(["PATH"] if os.name == "nt" else [])]
    return own | settings | {key: os.environ[key] for key in passed if key in os.environ}


def _read(path: Path, largest: int) -> bytes | None:
    """What the child wrote; it has handled the foreign file, so it is not simply believed."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size > largest:
        return None
    return path.read_bytes()


def _plain(value: object, longest: int) -> str:
    """Text from outside, on one line, printable and short."""
    return "".join(item if item.isprintable() else " " for item in str(value))[:longest]
