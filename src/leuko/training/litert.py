"""A run's Keras model as a LiteRT file (``.tflite``), for telephones, boards and microscopes."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leuko.errors import TrainingError
from leuko.support.packages import import_extra

__all__ = ["litert_runner", "to_litert", "write_litert"]

Pixels = npt.NDArray[np.uint8]

_WHAT: Final = "Exporting to LiteRT"


def write_litert(
    path: Path, size: tuple[int, int], weights: str, pixels: Pixels | None, threads: int
) -> tuple[bytes, Callable[[Pixels], npt.NDArray[np.float64]]]:
    """Convert a classifier to LiteRT, and open what came of it: for `leuko.formats.export`.

    Parameters
    ----------
    path, size, weights, pixels
        See `to_litert`.
    threads : int
        For the interpreter.

    Returns
    -------
    data : bytes
        The file.
    run : callable
        See `litert_runner`.

    Raises
    ------
    TrainingError, MissingExtraError
        As `to_litert`.
    """
    data = to_litert(path, size, weights=weights, pixels=pixels)
    return data, litert_runner(data, threads=threads)


def to_litert(
    path: Path, size: tuple[int, int], *, weights: str = "float32", pixels: Pixels | None = None
) -> bytes:
    """Convert a classifier to LiteRT, by Keras's own exporter.

    Parameters
    ----------
    path : Path
        A ``.keras`` file that `leuko train` wrote: (N, h, w, 3) to (N, classes).
    size : (int, int)
        Height and width of the input.
    weights : {"float32", "float16", "int8"}
        How numbers are kept. Input and output are float32 in any case.
    pixels : (M, h, w, 3) uint8, RGB, optional
        Real network inputs; needed for int8.

    Returns
    -------
    bytes
        A ``.tflite`` file for one picture at a time: input (1, h, w, 3), output (1, classes).

    Raises
    ------
    TrainingError
        When Keras cannot read the file or write it as LiteRT.
    MissingExtraError
        When TensorFlow is not installed.
    """
    with quiet_tensorflow():
        tf = import_extra("tensorflow", _WHAT, "train")
        keras = import_extra("keras", _WHAT, "train")
    target: dict[str, Any] = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}
    settings: dict[str, Any] = {"target_spec": target}
    if weights != "float32":
        settings["optimizations"] = [tf.lite.Optimize.DEFAULT]
    if weights == "float16":
        target["supported_types"] = [tf.float16]
    if weights == "int8":
        if pixels is None or len(pixels) == 0:
            raise TrainingError("An int8 network needs pictures that its ranges are measured on.")
        inputs = [[picture[None].astype(np.float32)] for picture in pixels]
        settings["representative_dataset"] = lambda: inputs
    signature = [tf.TensorSpec((1, *size, 3), tf.float32, name="pixels")]
    with quiet_tensorflow(), tempfile.TemporaryDirectory(prefix="leuko-export-") as folder:
        out = Path(folder) / "model.tflite"
        try:
            model = keras.saving.load_model(path, compile=False)
            model.export(out, format="litert", verbose=False, input_signature=signature, **settings)
        except Exception as error:  # Keras and TensorFlow raise their own kinds
            first = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
            raise TrainingError(f"Keras cannot write {path} as LiteRT: {first}") from error
        return out.read_bytes()


def litert_runner(data: bytes, *, threads: int = 1) -> Callable[[Pixels], npt.NDArray[np.float64]]:
    """Open a ``.tflite`` file for answers.

    Parameters
    ----------
    data : bytes
        What `to_litert` gave.
    threads : int
        For the interpreter.

    Returns
    -------
    callable
        From (N, h, w, 3) uint8 to (N, classes) float64.
    """
    with quiet_tensorflow():
        tf = import_extra("tensorflow", _WHAT, "train")
        interpreter = tf.lite.Interpreter(model_content=data, num_threads=threads)
        interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]["index"]
    target = interpreter.get_output_details()[0]["index"]

    def run(pictures: Pixels) -> npt.NDArray[np.float64]:
        rows = []
        for picture in pictures:
            interpreter.set_tensor(source, picture[None].astype(np.float32))
            interpreter.invoke()
            rows.append(np.array(interpreter.get_tensor(target)[0], np.float64))
        return np.stack(rows)

    return run


@contextlib.contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Hold back what TensorFlow, its native converter too, has to say."""
    names = ("tensorflow", "absl")
    levels = [logging.getLogger(name).level for name in names]
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with tempfile.TemporaryFile() as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            os.dup2(file.fileno(), 2)
            try:
                yield
            finally:
                os.dup2(kept, 2)
    finally:
        os.close(kept)
        for name, level in zip(names, levels, strict=True):
            logging.getLogger(name).setLevel(level)
