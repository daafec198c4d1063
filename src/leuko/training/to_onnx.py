"""A Keras model becomes one self-contained ONNX file, compared with Keras before it is returned.

The graph that ships takes pixels as they come out of `leuko.imaging.decode` and speaks in Leuko's
class order, so whatever a model wants done to its input or output is done inside the graph:

* input ``pixels``: (N, h, w, 3) float32, RGB 0 to 255, any N;
* output ``probabilities``: (N, classes) float32, softmax, in the order of the class scheme.

The conversion is that of tf2onnx, which names everything after the Python objects of the moment.
The names are rewritten here, so that equal weights give equal bytes in any process.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from leuko.errors import BundleError, TrainingError
from leuko.runtime.network.session import load_graph
from leuko.support.packages import import_extra
from leuko.support.quiet import silence

if TYPE_CHECKING:
    import keras

__all__ = [
    "INPUT_NAME",
    "OPSET",
    "OUTPUT_NAME",
    "canonical",
    "check_parity",
    "example_pixels",
    "export_onnx",
    "features_onnx",
]

INPUT_NAME: Final = "pixels"
"""Name of the only input: (N, h, w, 3) float32, RGB 0 to 255."""

OUTPUT_NAME: Final = "probabilities"
"""Name of the only output: (N, classes) float32, rows that sum to 1."""

OPSET: Final = 17
"""Version of the ONNX operators that is written; ONNX Runtime 1.13 and later read it."""

FEATURES_NAME: Final = "features"
"""Name of the output of `features_onnx`: (N, d) float32."""

PARITY: Final = 1e-5
"""Largest difference of a probability between Keras and ONNX that is let through."""

# tf2onnx writes 9 for graphs of this operator set; 8 is the version that belongs to it.
_IR_VERSION: Final = 8
_PARITY_SEED: Final = 20220113
_UNOPENED: Final = "The converted network cannot be opened"


def require_converters() -> None:
    """Raise before any work when no network can be exported.

    Raises
    ------
    MissingExtraError
        When a package that the conversion needs is not installed.
    """
    for package in ("tf2onnx", "onnx", "onnxruntime"):
        _import(package)


def export_onnx(model: keras.Model) -> bytes:
    """Convert a Keras classifier to ONNX and check that both give the same probabilities.

    Parameters
    ----------
    model : keras.Model
        Built, float32, from RGB 0 to 255, (None, h, w, 3), to probabilities in class order,
        (None, 5). It is not changed.

    Returns
    -------
    bytes
        A complete ONNX file: float32, any batch size, no external data. Equal weights give
        equal bytes.

    Raises
    ------
    TrainingError
        When the model has other inputs or outputs, another dtype, weights that are not finite,
        or cannot be converted.
    BundleError
        When ONNX Runtime gives other probabilities than Keras does (`check_parity`).
    MissingExtraError
        When a package that the conversion needs is not installed.
    """
    whole, data = _converted(model, OUTPUT_NAME)
    check_parity(whole, data, example_pixels(whole.input_shape[1:3], count=3))
    return data


def features_onnx(trunk: keras.Model, samples: npt.NDArray[np.float32] | None = None) -> bytes:
    """Convert a network of any width: one without its head, or somebody else's.

    Parameters
    ----------
    trunk : keras.Model
        Built, float32, from pixels (None, h, w, 3) to features (None, d). It is not changed.
    samples : (N, h, w, 3) float32, optional
        What the two networks are compared on; `example_pixels` when left out.

    Returns
    -------
    bytes
        A complete ONNX file from ``pixels`` to ``features``, any batch size. Equal weights give
        equal bytes.

    Raises
    ------
    TrainingError
        As `export_onnx`.
    BundleError
        When ONNX Runtime's features differ from Keras's by more than 1e-4 of the largest.
    MissingExtraError
        When a package that the conversion needs is not installed.
    """
    whole, data = _converted(trunk, FEATURES_NAME)
    session = load_graph(data, _UNOPENED)
    if samples is None:
        samples = example_pixels(whole.input_shape[1:3], count=3)
    for batch in (samples[:1], samples):
        expected = np.asarray(whole(batch, training=False), dtype=np.float64)
        received = np.asarray(session.run([FEATURES_NAME], {INPUT_NAME: batch})[0], np.float64)
        worst = float(np.abs(expected - received).max())
        if not worst <= 1e-4 * max(1.0, float(np.abs(expected).max())):
            raise BundleError(
                f"The converted network differs from Keras by {worst:.2g} in a feature; nothing "
                "was written."
            )
    return data


def check_parity(
    model: keras.Model,
    onnx_bytes: bytes,
    samples: npt.NDArray[np.float32],
    atol: float = PARITY,
) -> float:
    """Compare ONNX Runtime with Keras, at batch 1 and with all samples at once.

    Parameters
    ----------
    model : keras.Model
        Takes the same pixels as the graph does.
    onnx_bytes : bytes
        The converted model; it is loaded from memory, which rules out external data.
    samples : (N, h, w, 3) float32, RGB 0 to 255
        At least two images.
    atol : float
        Largest difference of a probability that is accepted.

    Returns
    -------
    float
        The largest difference found, 0 to `atol`.

    Raises
    ------
    BundleError
        When the two disagree, or either gives something that is no table of probabilities.
    """
    samples = np.ascontiguousarray(samples, dtype=np.float32)
    if len(samples) < 2:
        raise BundleError(
            f"The comparison with Keras needs two images or more; received {len(samples)}."
        )
    session = load_graph(onnx_bytes, _UNOPENED)
    worst = 0.0
    for batch in (samples[:1], samples):
        expected = np.asarray(model(batch, training=False), dtype=np.float64)
        received = np.asarray(session.run([OUTPUT_NAME], {INPUT_NAME: batch})[0], dtype=np.float64)
        for who, table in (("Keras", expected), ("ONNX Runtime", received)):
            if table.shape != expected.shape or table.shape[:1] != (len(batch),):
                raise BundleError(
                    f"{who} gave an array of shape {table.shape} for {len(batch)} images; "
                    f"expected {expected.shape}."
                )
            if not np.isfinite(table).all():
                raise BundleError(f"{who} gave probabilities that are not finite numbers.")
            if np.abs(table.sum(axis=1) - 1).max() > 1e-4 or table.min() < -1e-6:
                raise BundleError(
                    f"{who} gave rows that are not probabilities: they lie between "
                    f"{table.min():.3g} and {table.max():.3g} and the first sums to "
                    f"{table[0].sum():.6g}. The model must end in a softmax."
                )
        worst = max(worst, float(np.abs(expected - received).max()))
    if worst > atol:
        raise BundleError(
            f"The converted model differs from Keras by {worst:.2g} in a probability; at most "
            f"{atol:.0e} is accepted. The conversion is at fault, not the model: nothing was "
            "written."
        )
    return worst


def example_pixels(size: tuple[int, int], *, count: int) -> npt.NDArray[np.float32]:
    """Make images for comparisons: smooth blobs, noise and one that is black and white.

    Parameters
    ----------
    size : (int, int)
        Height and width in pixels.
    count : int
        How many, at least 2.

    Returns
    -------
    (count, height, width, 3) float32
        Whole numbers from 0 to 255, the same in every call.
    """
    rng = np.random.default_rng(_PARITY_SEED)
    rows, columns = np.meshgrid(
        np.linspace(-1, 1, size[0]), np.linspace(-1, 1, size[1]), indexing="ij"
    )
    images = np.empty((count, *size, 3), np.float32)
    for index in range(count):
        for channel in range(3):
            row, column, width = rng.uniform((-0.4, -0.4, 0.2), (0.4, 0.4, 0.8))
            blob = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / width**2)
            images[index, :, :, channel] = 230 - rng.uniform(40, 200) * blob
        images[index] += rng.normal(0, 12, images[index].shape)
    images[-1] = 255 * rng.integers(0, 2, images[-1].shape)
    return np.clip(np.rint(images), 0, 255).astype(np.float32)


def _converted(model: keras.Model, output: str) -> tuple[keras.Model, bytes]:
    """The network from ``pixels`` on, and as ONNX."""
    require_converters()
    keras, tensorflow, tf2onnx = map(_import, ("keras", "tensorflow", "tf2onnx"))
    rows, columns, width = _check_network(model)
    pixels = keras.Input((rows, columns, 3), name=INPUT_NAME, dtype="float32")
    whole = keras.Model(pixels, model(pixels, training=False), name="exported")
    asked = tensorflow.function(lambda pixels: whole(pixels, training=False), autograph=False)
    taken = tensorflow.TensorSpec((None, rows, columns, 3), tensorflow.float32, INPUT_NAME)
    try:
        with _quiet():
            graph, _ = tf2onnx.convert.from_function(asked, [taken], opset=OPSET)
    except Exception as error:
        raise TrainingError(
            f"This model cannot be written as ONNX: {_one_line(error)} Use layers that the "
            "conversion knows, such as those of Leuko's own recipes."
        ) from error
    return whole, canonical(graph, (INPUT_NAME, output), [("N", rows, columns, 3), ("N", width)])


def _check_network(model: keras.Model) -> tuple[int, int, int]:
    """Height, width and number of outputs of a network, or a sentence why it cannot be taken."""
    inputs, outputs = list(model.inputs or ()), list(model.outputs or ())
    if len(inputs) != 1 or len(outputs) != 1:
        raise TrainingError(
            f"A model with one input and one output is needed; this one has {len(inputs)} and "
            f"{len(outputs)}. Build it first if it has none."
        )
    shape, last = tuple(inputs[0].shape), tuple(outputs[0].shape)
    if len(shape) != 4 or shape[0] is not None or shape[3] != 3 or None in shape[1:]:
        raise TrainingError(
            f"The model's input must be (None, height, width, 3) with a fixed size; "
            f"received {shape}."
        )
    if len(last) != 2 or not isinstance(last[1], int):
        raise TrainingError(f"The model must give one row for each image; received {last}.")
    for layer in model._flatten_layers():
        if layer.compute_dtype != "float32":
            raise TrainingError(
                f"Only float32 models can be exported; layer {layer.name!r} computes in "
                f"{layer.compute_dtype}. Build the model under the dtype policy 'float32' and "
                "load the weights into it."
            )
    for weight in model.weights:
        if not np.isfinite(np.asarray(weight)).all():
            raise TrainingError(
                f"The weights {weight.path!r} hold values that are not finite numbers; "
                "such a model is never exported."
            )
    return int(shape[1]), int(shape[2]), int(last[1])


def canonical(model: Any, ends: tuple[str, str], shapes: Sequence[tuple[int | str, ...]]) -> bytes:
    """Rename everything in an ONNX graph in its order of use; check that it stands alone.

    Parameters
    ----------
    model : onnx.ModelProto
        With one input and one output; it is changed.
    ends : (str, str)
        What these are called.
    shapes : sequence of 2 tuples of int or str
        Their shapes; a side with a name is free.

    Returns
    -------
    bytes
        A complete ONNX file. Equal weights give equal bytes.

    Raises
    ------
    BundleError
        When it has other inputs or outputs, or weights beside it.
    TrainingError
        When it holds a condition, a loop or operators outside standard ONNX.
    """
    onnx = _import("onnx")
    graph = model.graph
    if len(graph.input) != 1 or len(graph.output) != 1:
        raise BundleError(
            f"The conversion gave {len(graph.input)} inputs and {len(graph.output)} outputs; "
            "expected one of each."
        )
    graphs = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
    if any(attribute.type in graphs for node in graph.node for attribute in node.attribute):
        raise TrainingError(
            "The model holds a condition or a loop, which Leuko's bundles do not carry. "
            "Use a plain feed-forward network."
        )
    names = {graph.input[0].name: ends[0], graph.output[0].name: ends[1], "": ""}
    constants = {item.name: item for item in graph.initializer}
    used: list[Any] = []
    for number, node in enumerate(graph.node):
        for place, name in enumerate(node.input):
            if name in constants and name not in names:
                names[name] = f"w{len(used)}"
                used.append(constants[name])
            node.input[place] = names[name]
        for place, name in enumerate(node.output):
            node.output[place] = names.setdefault(name, f"t{number}_{place}")
        node.name = f"n{number}"
        node.doc_string = ""
    for item in used:
        item.name = names[item.name]
        item.doc_string = ""
        if item.data_location == onnx.TensorProto.EXTERNAL or item.external_data:
            raise BundleError("The conversion put weights beside the model instead of inside it.")
    kept = [type(item).FromString(item.SerializeToString(deterministic=True)) for item in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    del graph.value_info[:]
    for value, name, shape in zip((*graph.input, *graph.output), ends, shapes, strict=True):
        value.CopyFrom(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
        value.doc_string = ""
    graph.name = "leuko"
    graph.doc_string = model.doc_string = ""
    model.producer_name, model.producer_version = "leuko", ""
    model.ir_version = _IR_VERSION
    del model.metadata_props[:]
    domains = {node.domain for node in graph.node}
    if domains - {"", "ai.onnx"}:
        raise TrainingError(
            f"The model needs operators outside standard ONNX ({', '.join(sorted(domains))}), "
            "which Leuko's bundles do not carry."
        )
    standard = [item for item in model.opset_import if item.domain in ("", "ai.onnx")]
    version = standard[0].version
    del model.opset_import[:]
    model.opset_import.append(onnx.helper.make_opsetid("", version))
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back the log lines of the converters below the level of an error."""
    loggers = [logging.getLogger(name) for name in ("tf2onnx", "tensorflow", "absl")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _import(package: str) -> Any:
    """Import a package of the extra `train`, or say what to install."""
    silence()  # one of them is ONNX Runtime
    return import_extra(package, "Converting a Keras model", "train")


def _one_line(error: BaseException) -> str:
    """First line of an error's text, at most 300 characters, ending in a full stop."""
    text = (str(error).strip().splitlines() or [type(error).__name__])[0][:300].strip()
    return text if text.endswith((".", "!", "?")) else text + "."
