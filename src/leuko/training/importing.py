"""Import a Keras model that somebody else has trained, without trusting the file.

The promise: a bundle runs no code from its file; an import is *confined*, not proven safe.
A child process with limits reads the foreign file, understands its architecture against an
allow-list, writes it anew, lets Keras open the new one and converts it to ONNX
(`leuko.training.importing_child`). What comes back are bytes that ONNX Runtime opens from
memory here and whose answers are checked once more.

No Keras import in this module, nor in what it imports.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, TypedDict

import numpy as np

from leuko.artifacts import RESEARCH_USE, atomic_write_bytes
from leuko.bundle import ModelBundle
from leuko.errors import BundleError, MissingExtraError, UsageError
from leuko.imaging import PreprocessSpec
from leuko.packages import import_onnxruntime
from leuko.runtime.classifier import make_goldens
from leuko.runtime.trust import NEVER_CHECKED
from leuko.taxonomy import CLASSES, class_named, describe_aliases
from leuko.training.importing_child import FOREIGN, JOB, MODEL, RESULT

__all__ = ["ImportedModel", "import_bundle", "import_keras", "parse_scale", "read_classes"]

LARGEST_FILE: Final = 2**30
"""Largest foreign file that is looked at, in bytes."""

TIMEOUT: Final = 300.0
MEMORY: Final = 12 * 2**30
"""Address space of the child, bytes: TensorFlow's converter takes 9.3 GB for a ResNet-50."""

_START: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from leuko.training.importing_child import main; sys.exit(main(sys.argv[2]))"
)


class ImportedModel(TypedDict):
    """What an import gives.

    The graph takes RGB 0 to 255 and answers in the order of `leuko.taxonomy.CLASSES`, whatever
    the foreign model was used to.
    """

    onnx: bytes
    input_size: tuple[int, int]
    parameters: int
    layers: int
    source_name: str
    source_sha256: str
    source_format: str
    keras_version: str
    model_classes: tuple[str, ...]
    class_order: tuple[int, ...]
    input_scale: float
    softmax_added: bool
    notes: tuple[str, ...]
    limits: tuple[str, ...]


def parse_scale(text: str) -> float:
    """Read a factor for pixels: a decimal number or a simple fraction.

    Parameters
    ----------
    text : str
        Such as ``1``, ``0.0039``, ``1/255``.

    Returns
    -------
    float
        Positive and finite.

    Raises
    ------
    UsageError
        For anything else.

    Examples
    --------
    >>> parse_scale("1/255") * 255
    1.0
    >>> parse_scale("2e-3")
    0.002
    """
    number = r"\d{1,12}(\.\d{1,18})?|\.\d{1,18}"
    match = re.fullmatch(rf"\s*({number})([eE][+-]?\d{{1,2}})?\s*(?:/\s*({number}))?\s*", text)
    value = 0.0
    if match:
        top, _, exponent, bottom, _ = match.groups()
        divisor = Fraction(bottom or "1")
        value = float(Fraction(top + (exponent or "")) / divisor) if divisor else 0.0
    if not math.isfinite(value) or value <= 0:
        raise UsageError(
            f"The input scale is {text!r}; expected a positive number or fraction by which pixels "
            "0 to 255 are multiplied, such as 1, 1/255 or 0.0039."
        )
    return value


def read_classes(names: Sequence[str]) -> tuple[str, ...]:
    """Understand the class names of a foreign model, in its own order.

    Parameters
    ----------
    names : sequence of str
        One name or alias (`leuko.taxonomy.class_named`) for each output.

    Returns
    -------
    tuple of str
        The same order, in Leuko's spelling: a permutation of `CLASSES`.

    Raises
    ------
    UsageError
        When a name is unknown, missing or given twice.

    Examples
    --------
    >>> read_classes(["neut", "EOS", "mono", "lymphocytes", "basophil"])
    ('Neutrophil', 'Eosinophil', 'Monocyte', 'Lymphocyte', 'Basophil')
    """
    if isinstance(names, str):
        names = names.split(",")
    found = []
    for name in names:
        known = class_named(name)
        if known is None:
            raise UsageError(f"The class {name!r} is unknown; understood are {describe_aliases()}.")
        found.append(known)
    if sorted(found) != sorted(CLASSES):
        raise UsageError(
            f"The classes are {', '.join(found) or 'missing'}; expected each of "
            f"{', '.join(CLASSES)} once, in the order of the model's own outputs."
        )
    return tuple(found)


def import_keras(
    path: Path | str,
    *,
    classes: Sequence[str],
    input_scale: float,
    out: Path | None = None,
    timeout: float = TIMEOUT,
    memory: int = MEMORY,
) -> ImportedModel:
    """Convert a foreign ``.keras`` or ``.h5`` file in a confined child process.

    Parameters
    ----------
    path : Path
        The file. Its content decides what it is, not its name.
    classes : sequence of str
        Names or aliases of the five classes, in the order of the model's outputs.
    input_scale : float
        Pixels 0 to 255 are multiplied by it before they reach the model: 1/255 for a model
        whose training images had been divided by 255 before they entered it.
    out : Path, optional
        Where to write the ONNX file as well, atomically.
    timeout : float
        Seconds after which the child is ended.
    memory : int
        Bytes of address space that the child may use, where the system can limit it.

    Returns
    -------
    ImportedModel
        The ONNX bytes with what is known about their source.

    Raises
    ------
    UsageError
        When the classes or the scale make no sense, or there is no such file.
    BundleError
        When the file is damaged or refused; the sentence names the layer or part at fault.
    MissingExtraError
        When Keras or another package of the extra ``train`` is missing.
    """
    path = Path(path)
    order = read_classes(classes)
    if not math.isfinite(input_scale) or not 1e-6 <= input_scale <= 1e6:
        raise UsageError(
            f"The input scale is {input_scale}; expected a positive number such as 1 or 1/255."
        )
    for package in ("keras", "tensorflow", "tf2onnx", "onnx", "h5py"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError("Importing a Keras model", "train", package)
    class_order = tuple(order.index(name) for name in CLASSES)
    with tempfile.TemporaryDirectory(prefix="leuko-import-") as folder:
        home = Path(folder).resolve()
        digest = _take(path, home / FOREIGN)
        job = {
            "input_scale": float(input_scale),
            "class_order": class_order,
            "outputs": len(CLASSES),
            "limits": {
                "memory": int(memory),
                "cpu": int(4 * timeout) + 1,
                "file": 2 * LARGEST_FILE,
            },
        }
        (home / JOB).write_text(json.dumps(job))
        _run(home, timeout, path.name)
        report = _report(home, path.name)
        data = _model_bytes(home, path.name)
    try:
        size = tuple(int(side) for side in report["input_size"])
        result: ImportedModel = {
            "onnx": data,
            "input_size": (size[0], size[1]),
            "parameters": int(report["parameters"]),
            "layers": int(report["layers"]),
            "source_name": path.name,
            "source_sha256": digest,
            "source_format": str(report["format"])[:20],
            "keras_version": _plain(report["keras_version"], 20),
            "model_classes": order,
            "class_order": class_order,
            "input_scale": float(input_scale),
            "softmax_added": bool(report["softmax_added"]),
            "notes": tuple(_plain(note, 300) for note in report["notes"][:40]),
            "limits": tuple(_plain(limit, 100) for limit in report["limits"][:20]),
        }
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise BundleError(f"The import of {path.name} gave an incomplete result.") from error
    _check_onnx(data, result["input_size"], path.name)
    if out is not None:
        atomic_write_bytes(out, data)
    return result


def _take(source: Path, target: Path) -> str:
    """Copy the foreign file while hashing it, so that what is judged is what is imported."""
    if source.is_dir():
        raise UsageError(f"{source} is a folder; expected one file, .keras or .h5.")
    digest = hashlib.sha256()
    size = 0
    start = b""
    try:
        with source.open("rb") as file, target.open("xb") as copy:
            while piece := file.read(2**20):
                start = start or piece[:8]
                size += len(piece)
                if size > LARGEST_FILE:
                    raise BundleError(
                        f"{source.name} is larger than {LARGEST_FILE / 2**30:.0f} GiB; models of "
                        "that size are not imported."
                    )
                digest.update(piece)
                copy.write(piece)
    except FileNotFoundError as error:
        raise UsageError(f"{source} does not exist; give the path of a .keras or .h5 file.") from (
            error
        )
    except OSError as error:
        raise UsageError(f"{source} cannot be read: {error.strerror}.") from error
    if not start.startswith((b"\x89HDF\r\n\x1a\n", b"PK\x03\x04")):
        raise BundleError(
            f"{source.name} is neither an HDF5 file nor a .keras archive, whatever its name "
            "says; only models saved by Keras in these two formats are imported."
        )
    return digest.hexdigest()


def _run(home: Path, timeout: float, name: str) -> None:
    """Start the child with a clean environment, wait, and end it when it takes too long."""
    paths = [str(Path(item).absolute()) for item in sys.path if item]
    command = [sys.executable, "-I", "-B", "-c", _START, json.dumps(paths), str(home)]
    with (home / "log.txt").open("wb") as log:
        child = subprocess.Popen(
            command,
            cwd=home,
            env=_environment(home),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            code = child.wait(timeout=timeout)
        except BaseException as error:
            _end(child)
            if isinstance(error, subprocess.TimeoutExpired):
                raise BundleError(
                    f"The import of {name} took longer than {timeout:g} seconds and was ended."
                ) from error
            raise
    if (home / RESULT).is_file():
        return
    if code < 0:
        reason = f"it was ended by signal {-code} ({signal.Signals(-code).name})"
    else:
        reason = f"it ended with code {code}"
    raise BundleError(
        f"The import of {name} stopped without a result: {reason}. The file is damaged, or its "
        "network is too large for the memory that an import may use."
    )


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the child and whatever it may have started."""
    try:
        if hasattr(os, "killpg"):
            os.killpg(child.pid, signal.SIGKILL)
        else:
            child.kill()
    except ProcessLookupError:
        pass
    child.wait()


def _environment(home: Path) -> dict[str, str]:
    """Nothing of the user's but what the dynamic loader needs."""
    environment = {
        "HOME": str(home),
        "TMPDIR": str(home),
        "TEMP": str(home),
        "TMP": str(home),
        "KERAS_HOME": str(home),
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "-1",
        # HDF5 must not look for filter plugins: they are shared libraries.
        "HDF5_PLUGIN_PRELOAD": "::",
        "HDF5_PLUGIN_PATH": str(home / "none"),
        "LANG": "C.UTF-8",
    }
    passed = ["LD_LIBRARY_PATH", "SYSTEMROOT"]
    if os.name == "nt":
        passed.append("PATH")
    return environment | {key: os.environ[key] for key in passed if key in os.environ}


def _report(home: Path, name: str) -> dict[str, Any]:
    """Read what the child says; it handled the foreign file, so it is not simply believed."""
    path = home / RESULT
    try:
        if path.is_symlink() or path.stat().st_size > 2**20:
            raise ValueError("not a plain small file")
        report = json.loads(path.read_text())
        status = report["status"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"The import of {name} gave no readable result.") from error
    if status == "ok":
        return dict(report)
    raise BundleError(f"{name} cannot be imported. {_plain(report.get('sentence'), 600)}")


def _model_bytes(home: Path, name: str) -> bytes:
    path = home / MODEL
    if path.is_symlink() or not path.is_file() or path.stat().st_size > LARGEST_FILE:
        raise BundleError(f"The import of {name} gave no usable network.")
    return path.read_bytes()


def _check_onnx(data: bytes, size: tuple[int, int], name: str) -> None:
    """Open the graph from memory and look at its answers, as every later reader will."""
    import onnx

    from leuko.training.export import INPUT_NAME, OUTPUT_NAME, example_pixels

    def wrong(what: str) -> BundleError:
        return BundleError(f"The network made from {name} is not usable: {what}.")

    try:
        graph = onnx.load_model_from_string(data).graph
    except Exception as error:
        raise wrong("it is not an ONNX file") from error
    for node in graph.node:
        if node.domain not in ("", "ai.onnx"):
            raise wrong("it needs operators outside standard ONNX")
        if any(item.HasField("g") or item.graphs for item in node.attribute):
            raise wrong("it holds conditions or loops")
    if any(item.data_location or item.external_data for item in graph.initializer):
        raise wrong("it keeps weights outside of itself")
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        inputs = [(item.name, item.type, item.shape[1:]) for item in session.get_inputs()]
        if inputs != [(INPUT_NAME, "tensor(float)", [*size, 3])]:
            raise wrong(f"its input is {inputs}")
        samples = example_pixels(size, count=3)
        tables = [
            session.run([OUTPUT_NAME], {INPUT_NAME: part})[0] for part in (samples[:1], samples)
        ]
    except BundleError:
        raise
    except Exception as error:
        raise wrong("ONNX Runtime cannot run it") from error
    for table, rows in zip(tables, (1, 3), strict=True):
        values = np.asarray(table)
        if values.shape != (rows, len(CLASSES)) or values.dtype != np.float32:
            raise wrong(f"its output has the shape {values.shape}")
        if not np.isfinite(values).all() or values.min() < 0:
            raise wrong("it gives values that are no probabilities")
        if np.abs(values.sum(axis=1) - 1).max() > 1e-4:
            raise wrong("its probabilities do not sum to 1")


def _plain(value: object, longest: int) -> str:
    """Text from outside, on one line, printable and short."""
    text = "".join(item if item.isprintable() else " " for item in str(value))
    return text[:longest]


def import_bundle(
    path: Path | str,
    *,
    classes: Sequence[str],
    input_scale: float,
    crop: float = 1.0,
    command: str = "",
    say: Callable[[str], None] | None = None,
) -> ModelBundle:
    """Import a foreign Keras file as a bundle.

    Parameters
    ----------
    path, classes, input_scale
        See `import_keras`.
    crop : float
        Central part of a picture that the model is given, in (0, 1].
    command : str
        The command to write into the card.
    say : callable, optional
        Called with sentences for a person.

    Returns
    -------
    ModelBundle
        Not written yet. It has no validation: measure it with ``leuko evaluate``.

    Raises
    ------
    UsageError, BundleError, MissingExtraError
        See `import_keras`.
    """
    found = import_keras(path, classes=classes, input_scale=input_scale)
    for note in found["notes"]:
        if say is not None:
            say(note)
    spec = PreprocessSpec(size=found["input_size"], crop=crop)
    source = {name: value for name, value in found.items() if name != "onnx"}
    card = "\n".join(
        [
            f"# {found['source_name']}, imported",
            "",
            f"**{RESEARCH_USE}**",
            "",
            f"A foreign Keras model ({found['source_format']}, Keras {found['keras_version']}), "
            f"{found['parameters']:,} parameters, input {spec.size[0]} x {spec.size[1]}, pixels "
            f"multiplied by {input_scale:.6g} before the model.",
            "",
            f"- SHA-256 of the file: `{found['source_sha256']}`",
            f"- Its outputs, in its own order: {', '.join(found['model_classes'])}",
            f"- Command: `{command}`" if command else "- Imported from Python.",
            "",
            "Nothing is known about how it was trained or how well it does. Measure it with "
            f"`leuko evaluate` before relying on any answer. {NEVER_CHECKED}",
            "",
        ]
    )
    return ModelBundle(
        name=Path(found["source_name"]).stem,
        onnx=found["onnx"],
        preprocess=spec,
        card=card,
        goldens=make_goldens(found["onnx"], spec),
        parameters=found["parameters"],
        provenance={"imported": json.loads(json.dumps(source))},
    )
