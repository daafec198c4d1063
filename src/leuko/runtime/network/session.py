"""A graph opened with ONNX Runtime, and its runs: always so many rows at a time, padded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leuko.bundle import MeasuredLayer
from leuko.cells.texture import FirstView
from leuko.errors import BundleError, DeviceError, UsageError
from leuko.imaging.preprocess import PreprocessSpec
from leuko.prediction import DECIMALS
from leuko.runtime.network.average import average_views, mean_views
from leuko.runtime.network.wire import check_tensors, expose
from leuko.runtime.trust.decide import MoreViews
from leuko.scheme import MOST_CLASSES
from leuko.support.packages import import_onnxruntime

__all__ = [
    "BATCH",
    "DEVICES",
    "load_graph",
    "open_session",
    "run_outputs",
    "run_padded",
    "run_views",
]

Pixels = npt.NDArray[np.uint8]

BATCH: Final = 2
"""Every run of the network has this many rows, padded with black where images are fewer.

One shape means one order of summation: an answer does not depend on its neighbours. Few rows stay
in a core's cache; see docs/decisions/0014-each-thread-does-everything.md.
"""

DEVICES: Final = {"cpu": BATCH, "cuda": 32}
"""Rows of every run, by device."""


def open_session(
    onnx: bytes,
    spec: PreprocessSpec,
    device: str = "cpu",
    *,
    classes: int | None = None,
    features: bool = False,
) -> Any:
    """Load a graph from bytes and check that it is an image classifier.

    Parameters
    ----------
    onnx : bytes
        The graph.
    spec : PreprocessSpec
        Says the size of its inputs.
    device : {"cpu", "cuda"}
        Where it runs.
    classes : int, optional
        How many it must tell; as many as a scheme may have when None.
    features : bool
        Give a second output, where the graph shows what enters its last layer.

    Returns
    -------
    onnxruntime.InferenceSession
        For any number of threads at a time.

    Raises
    ------
    BundleError
        When it cannot be loaded, or has other inputs or outputs.
    UsageError, DeviceError
        When there is no such device, or it cannot be used.
    """
    check_tensors(onnx)
    exposed = expose(onnx, maps=False) if features else None
    onnx = onnx if exposed is None else exposed.onnx
    expected = 1 if exposed is None or exposed.features is None else 2
    session = load_graph(onnx, "The network cannot be loaded", _providers(device))
    inputs, outputs = session.get_inputs(), session.get_outputs()
    wanted = [*spec.size, 3]
    shape = list(inputs[0].shape)[1:] if len(inputs) == 1 else None
    gives = list(outputs[0].shape)[1:] if len(outputs) == expected else None
    known = range(2, MOST_CLASSES + 1) if classes is None else (classes,)
    if shape != wanted or gives not in [[number] for number in known]:
        promised = f"2 to {MOST_CLASSES}" if classes is None else classes
        raise BundleError(
            f"The network takes {shape} and gives {gives}; the bundle promises {wanted} and "
            f"[{promised}]."
        )
    kinds = [place.type for place in (*inputs, *outputs)]
    if {*kinds} != {"tensor(float)"}:
        raise BundleError(f"The network must take and give 32-bit floats; received {kinds}.")
    if device == "cuda" and session.get_providers()[0] != "CUDAExecutionProvider":
        raise DeviceError(
            "The network cannot run on cuda: ONNX Runtime found no graphics processor, or not the "
            "CUDA and cuDNN libraries that it was built for. Mend that, or leave --device out."
        )
    return session


def load_graph(
    onnx: bytes,
    fault: str,
    providers: Sequence[Any] = ("CPUExecutionProvider",),
    *,
    threads: int = 1,
) -> Any:
    """Load a graph from bytes, without log lines.

    Parameters
    ----------
    onnx : bytes
        Without external data.
    fault : str
        How the sentence begins that says why it cannot be loaded.
    providers : sequence
        What ONNX Runtime calls the device.
    threads : int
        For each run of the network.

    Returns
    -------
    onnxruntime.InferenceSession
        On one thread it adds up in one order, whatever the machine.

    Raises
    ------
    BundleError
        When it cannot be loaded.
    """
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    # Otherwise bytes that look like ONNX Runtime's own format would be read as that.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    # Callers that predict bring their own thread: whole images side by side leave no core waiting.
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(onnx, options, providers=[*providers])
    except Exception as error:  # ONNX Runtime raises its own kinds for every fault
        first = (str(error).splitlines() or [""])[0][:200]
        raise BundleError(f"{fault}: {first}") from error


def _providers(device: str) -> list[Any]:
    """What ONNX Runtime calls a device, with settings that keep answers the same run to run."""
    onnxruntime = import_onnxruntime()
    if device not in DEVICES:
        known = " or ".join(DEVICES)
        raise UsageError(f"The device must be {known}, received {device!r}.")
    if device == "cpu":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise DeviceError(
            f"The ONNX Runtime installed here ({onnxruntime.__version__}) cannot use cuda. Replace "
            "the package onnxruntime by onnxruntime-gpu, or leave --device out."
        )
    # By default cuDNN times its algorithms and takes the fastest, today's or another tomorrow.
    settings = {"cudnn_conv_algo_search": "DEFAULT", "use_tf32": "0"}
    return [("CUDAExecutionProvider", settings), "CPUExecutionProvider"]


def run_padded(
    session: Any, inputs: Sequence[Pixels] | Pixels, *, batch: int = BATCH
) -> npt.NDArray[np.float64]:
    """Run a session in batches of one shape; see `run_outputs`.

    Parameters
    ----------
    session, inputs, batch
        See there.

    Returns
    -------
    (N, K) float64
        The first output, rounded to 6 decimals.

    Raises
    ------
    BundleError
        When an answer is not a finite number.
    """
    return np.round(run_outputs(session, inputs, batch=batch)[0], DECIMALS)


def run_outputs(
    session: Any, inputs: Sequence[Pixels] | Pixels, *, batch: int = BATCH
) -> list[npt.NDArray[np.float64]]:
    """Run a session in batches of one shape, on the calling thread.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
        One input.
    inputs : N times (h, w, 3) uint8
        Network inputs.
    batch : int
        Rows of every run.

    Returns
    -------
    list of (N, K) float64
        Each output, not rounded.

    Raises
    ------
    BundleError
        When an answer is not a finite number.
    """
    if not len(inputs):
        answer, *others = session.get_outputs()
        return [np.zeros((0, answer.shape[1]))] + [np.zeros((0, 0))] * len(others)
    name = session.get_inputs()[0].name
    outputs = []
    # One buffer for all runs: fresh pages for each would cost more than filling them.
    padded = np.empty((batch, *inputs[0].shape), np.float32)
    for start in range(0, len(inputs), batch):
        part = inputs[start : start + batch]
        for row, pixels in enumerate(part):
            padded[row] = pixels
        padded[len(part) :] = 0
        outputs.append([output[: len(part)] for output in session.run(None, {name: padded})])
    values = [np.concatenate(parts).astype(np.float64) for parts in zip(*outputs, strict=True)]
    if not np.isfinite(values[0]).all():
        raise BundleError(
            "The network gave an answer that is not a finite number; its weights are damaged or "
            "its training went astray."
        )
    return values


def run_views(
    session: Any,
    seen: Sequence[FirstView],
    weights: Sequence[float] = (),
    *,
    batch: int = BATCH,
    again: MoreViews | None = None,
    measured: MeasuredLayer | None = None,
) -> tuple[list[npt.NDArray[np.float64]], list[npt.NDArray[np.float64]]]:
    """Run a session on the views of every picture, and average what it says of each picture.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
        One input.
    seen : sequence of N FirstView
        The first view of each picture, and what gives the others and its measures.
    weights : sequence of float
        What each view counts for; empty where all count the same.
    batch : int
        Rows of every run.
    again : callable, optional
        Says by the features of the first view which pictures are shown again, (N,) bool; the
        others are answered by it alone. All of them are when None.
    measured : MeasuredLayer, optional
        What measures of the cell add to every answer.

    Returns
    -------
    every : list of (N, M) float64
        Each output, not rounded: probabilities by `leuko.runtime.network.average.average_views`,
        features by their mean; with `again`, features of the first view, by which it chooses.
    first : list of (N, M) float64
        The same of the first view alone.

    Raises
    ------
    BundleError
        When an answer is not a finite number.
    """
    first = run_outputs(session, [one.pixels for one in seen], batch=batch)
    known = again is not None and len(first) > 1
    far = again(first[1]) if again is not None and known else np.ones(len(seen), bool)
    rows = np.flatnonzero(far).tolist()
    others = [seen[row].others() for row in rows]
    count = 1 + (len(others[0]) if others else 0)
    added = None if measured is None else measured.logits([one.measures() for one in seen])
    alone = [average_views(first[0], 1, added=added), *first[1:]]
    if count == 1:
        return alone, alone
    more = run_outputs(session, [view for views in others for view in views], batch=batch)

    def stacked(output: int) -> npt.NDArray[np.float64]:
        rest = more[output].reshape(len(rows), count - 1, -1)
        whole = np.concatenate([first[output][rows][:, None], rest], axis=1)
        return whole.reshape(len(rows) * count, -1)

    probabilities = alone[0].copy()
    probabilities[rows] = average_views(
        stacked(0), count, weights, None if added is None else added[rows]
    )
    features = first[1:]
    if not known:
        features = [mean_views(stacked(output), count, weights) for output in range(1, len(first))]
    return [probabilities, *features], alone
