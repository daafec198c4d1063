"""What a foreign Keras architecture may say, worked out on paper before any of it is built.

The configuration in a foreign file is read as plain JSON and understood here, layer by layer,
against an allow-list: class, every setting, how layers are joined. Shapes and parameters are
computed by arithmetic alone. What comes out is a *new* configuration, written from what was
understood; nothing that was not understood is passed on to Keras. No Keras import in this
module.

Layers that act only in training (dropout, noise, random augmentation) become identities, and
arithmetic with a constant (``x / 127.5 - 1``) becomes a Rescaling layer. Initialisers,
regularisers and constraints must be Keras's own and are then left out, since every weight comes
from the file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from leuko.errors import BundleError

__all__ = ["MAXIMUM_PARAMETERS", "Architecture", "read_architecture"]

MAXIMUM_PARAMETERS: Final = 200_000_000
"""Most parameters that an imported network may have."""

MAXIMUM_LAYERS: Final = 3000
MAXIMUM_DEPTH: Final = 8
MAXIMUM_ACTIVATION: Final = 2**26
SMALLEST_SIDE: Final = 16
LARGEST_SIDE: Final = 1024


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ACTIVATIONS: Final = _words(
    "elu exponential gelu hard_sigmoid hard_silu hard_swish leaky_relu linear mish relu relu6 "
    "selu sigmoid silu softmax softplus softsign swish tanh"
)
_INITIALISERS: Final = _words(
    "Constant GlorotNormal GlorotUniform HeNormal HeUniform Identity LecunNormal LecunUniform "
    "Ones Orthogonal RandomNormal RandomUniform TruncatedNormal VarianceScaling Zeros"
)
_REGULARISERS: Final = _words("L1 L2 L1L2 OrthogonalRegularizer")
_CONSTRAINTS: Final = _words("MaxNorm MinMaxNorm NonNeg UnitNorm")
_MODELS: Final = _words("Functional Model Sequential")
_TRAINING_ONLY: Final = _words(
    "ActivityRegularization AlphaDropout AutoContrast Dropout GaussianDropout GaussianNoise "
    "RandomBrightness RandomContrast RandomFlip RandomHue RandomRotation RandomSaturation "
    "RandomShear RandomTranslation RandomZoom SpatialDropout2D"
)
_RUNS_CODE: Final = _words("Lambda TFSMLayer TorchModuleWrapper JaxLayer FlaxLayer")
_MERGES: Final = _words("Add Average Maximum Minimum Multiply Subtract")
# Settings that say how a layer is trained or stored and change nothing in what it computes.
_SILENT: Final = _words(
    "name trainable dtype autocast batch_input_shape batch_shape input_shape seed synchronized "
    "momentum renorm_momentum fused ragged sparse optional supports_masking implementation "
    "build_input_shape input_dtype"
)
# Settings that are understood only when switched off.
_OFF: Final = _words(
    "renorm renorm_clipping virtual_batch_size adjustment quantization_config lora_rank "
    "lora_alpha input_dim"
)

_Shape = tuple[int, ...]


@dataclass(frozen=True)
class Architecture:
    """A network that was understood.

    Attributes
    ----------
    config : dict
        A Keras 3 configuration, written anew.
    size : (int, int)
        Height and width of the input, pixels.
    parameters : int
        Numbers in all weights, moving statistics included.
    layers : int
        Layers, those of nested models included.
    ending : str
        ``"softmax"`` or ``"linear"``: what stands last.
    notes : tuple of str
        What was replaced, in sentences.
    """

    config: dict[str, Any]
    size: tuple[int, int]
    parameters: int
    layers: int
    ending: str
    notes: tuple[str, ...]


@dataclass
class _Tally:
    """What is counted over all nested models."""

    layers: int = 0
    parameters: int = 0
    notes: list[str] = field(default_factory=list)

    def note(self, sentence: str) -> None:
        if sentence not in self.notes and len(self.notes) < 20:
            self.notes.append(sentence)


@dataclass(frozen=True)
class _Node:
    """One layer with its place in the graph."""

    config: dict[str, Any]
    shape: _Shape
    ending: str


def read_architecture(document: object, *, outputs: int) -> Architecture:
    """Understand the configuration of a foreign model, or say which layer cannot be taken.

    Parameters
    ----------
    document : object
        What `json` made of ``config.json`` or of the attribute ``model_config``.
    outputs : int
        How many values the network must give for each image.

    Returns
    -------
    Architecture
        Shapes, parameters, and a new configuration.

    Raises
    ------
    BundleError
        One sentence that names the layer or setting at fault.
    """
    tally = _Tally()
    entry = _mapping(document, "the model's configuration")
    kind = _class_of(entry, "the model")
    if kind not in _MODELS:
        raise _refuse_class(kind, "the model itself")
    config, shape, given, ending = _read_model(entry, None, tally, depth=0)
    if len(given) != 3 or given[2] != 3:
        raise BundleError(
            f"The network takes an input of shape {(None, *given)}; expected images, "
            "(None, height, width, 3)."
        )
    rows, columns, _ = given
    if not (SMALLEST_SIDE <= rows <= LARGEST_SIDE and SMALLEST_SIDE <= columns <= LARGEST_SIDE):
        raise BundleError(
            f"The network takes images of {rows}x{columns} pixels; sides from {SMALLEST_SIDE} to "
            f"{LARGEST_SIDE} are accepted."
        )
    if shape != (outputs,):
        raise BundleError(
            f"The network gives an output of shape {(None, *shape)}; expected (None, {outputs}), "
            f"one value for each of the {outputs} classes."
        )
    if ending not in ("softmax", "linear"):
        raise BundleError(
            f"The network ends in {ending!r}; expected a softmax over the {outputs} classes, or "
            "a linear layer to which one can be added."
        )
    return Architecture(
        config, (rows, columns), tally.parameters, tally.layers, ending, tuple(tally.notes)
    )


# --- models ----------------------------------------------------------------------------------


def _read_model(
    entry: Mapping[str, Any], given: _Shape | None, tally: _Tally, depth: int
) -> tuple[dict[str, Any], _Shape, _Shape, str]:
    """Read a model: its new configuration, output shape, input shape and how it ends."""
    if depth > MAXIMUM_DEPTH:
        raise BundleError(f"Models are nested more than {MAXIMUM_DEPTH} deep; that is refused.")
    kind = _class_of(entry, "a model")
    config = _mapping(entry.get("config"), f"the configuration of a {kind}")
    if kind == "Sequential" or (kind == "Model" and "input_layers" not in config):
        return _read_sequential(config, given, tally, depth)
    return _read_functional(config, given, tally, depth)


def _read_sequential(
    config: Mapping[str, Any], given: _Shape | None, tally: _Tally, depth: int
) -> tuple[dict[str, Any], _Shape, _Shape, str]:
    """Read layers that stand one behind the other."""
    name = _name_of(config, "Sequential")
    entries = [_mapping(item, f"a layer of {name!r}") for item in _list(config, "layers", name)]
    if not entries:
        raise BundleError(f"The model {name!r} has no layers.")
    layers = []
    if _class_of(entries[0], name) == "InputLayer":
        own = _input_shape(_mapping(entries[0].get("config"), "an InputLayer"), "InputLayer")
        start = _same_input(own, given, name)
        first = _name_of(_mapping(entries[0].get("config"), "an InputLayer"), "InputLayer")
        entries = entries[1:]
    else:
        declared = _find_input(entries[0]) or config.get("build_input_shape")
        if not declared and given is None:
            raise BundleError(
                f"The model {name!r} does not say the size of its input; save it after it has "
                "been built for one image size."
            )
        own = _shape_of(declared, f"the input of {name!r}") if declared else given or ()
        start = _same_input(own, given, name)
        first = f"{name}_input"
    tally.layers += 1
    layers.append(_keras_layer("InputLayer", first, _input_config(start, first)))
    shape, ending = start, "input"
    for entry in entries:
        node = _read_layer(entry, [shape], [ending], (), tally, depth)
        layers.append(node.config)
        shape, ending = node.shape, node.ending
    new = {"name": name, "trainable": _trainable(config), "layers": layers}
    return _keras_model("Sequential", new), shape, start, ending


def _read_functional(
    config: Mapping[str, Any], given: _Shape | None, tally: _Tally, depth: int
) -> tuple[dict[str, Any], _Shape, _Shape, str]:
    """Read a graph of layers, each used once."""
    model = _name_of(config, "Functional")
    entries: dict[str, Mapping[str, Any]] = {}
    calls: dict[str, tuple[list[str], tuple[float, ...], Mapping[str, Any]]] = {}
    for item in _list(config, "layers", model):
        entry = _mapping(item, f"a layer of {model!r}")
        name = _text(entry.get("name") or _mapping(entry.get("config"), "a layer").get("name"))
        if name in entries:
            raise BundleError(f"Two layers of {model!r} have the name {name!r}.")
        entries[name] = entry
        calls[name] = _read_calls(entry.get("inbound_nodes"), name)
    first = _single_end(config.get("input_layers"), model, "input")
    last = _single_end(config.get("output_layers"), model, "output")
    for name in (first, last):
        if name not in entries:
            raise BundleError(f"The model {model!r} names a layer {name!r} that it does not have.")
    if _class_of(entries[first], first) != "InputLayer":
        raise BundleError(f"The input of the model {model!r} is not an InputLayer.")
    own = _input_shape(_mapping(entries[first].get("config"), first), first)
    start = _same_input(own, given, model)

    nodes: dict[str, _Node] = {}
    written: dict[str, dict[str, Any]] = {}
    waiting = list(entries)
    while waiting:
        ready = [name for name in waiting if all(item in nodes for item in calls[name][0])]
        if not ready:
            raise BundleError(
                f"The layers of {model!r} are joined in a circle or to a layer that does not "
                f"exist, near {waiting[0]!r}."
            )
        for name in ready:
            entry = entries[name]
            sources, numbers, settings = calls[name]
            if _class_of(entry, name) == "InputLayer":
                if name != first:
                    raise BundleError(f"The model {model!r} has a second input, {name!r}.")
                tally.layers += 1
                node = _Node(
                    _keras_layer("InputLayer", name, _input_config(start, name)), start, "input"
                )
            else:
                if not sources:
                    raise BundleError(f"The layer {name!r} is not joined to any other.")
                node = _read_layer(
                    entry,
                    [nodes[source].shape for source in sources],
                    [nodes[source].ending for source in sources],
                    numbers,
                    tally,
                    depth,
                    name=name,
                    settings=settings,
                )
            nodes[name] = node
            tensors = [
                {
                    "class_name": "__keras_tensor__",
                    "config": {
                        "shape": [None, *nodes[source].shape],
                        "dtype": "float32",
                        "keras_history": [source, 0, 0],
                    },
                }
                for source in sources
            ]
            merged = _merges(node.config)
            argument: list[Any] = [tensors] if merged else tensors
            written[name] = node.config | {
                "name": name,
                "inbound_nodes": [{"args": argument, "kwargs": {}}] if sources else [],
            }
        done = set(ready)
        waiting = [name for name in waiting if name not in done]
    new = {
        "name": model,
        "trainable": _trainable(config),
        "layers": [written[name] for name in entries],
        "input_layers": [first, 0, 0],
        "output_layers": [last, 0, 0],
    }
    return _keras_model("Model", new), nodes[last].shape, start, nodes[last].ending


def _read_calls(value: object, name: str) -> tuple[list[str], tuple[float, ...], Mapping[str, Any]]:
    """Understand how a layer is called: names of its sources, constants, and settings."""
    if value in (None, []):
        return [], (), {}
    if not isinstance(value, list):
        raise BundleError(f"It is not clear what the layer {name!r} is joined to.")
    # Keras 2 writes [[["a", 0, 0, {}], ["b", 0, 0, {}]]], and for bare arithmetic a list less.
    if value and isinstance(value[0], list) and value[0] and isinstance(value[0][0], str):
        value = [value]
    if len(value) != 1:
        raise BundleError(
            f"The layer {name!r} is used {len(value)} times; only networks in which every layer "
            "is used once can be imported."
        )
    call = value[0]
    sources: list[str] = []
    numbers: list[float] = []
    settings: Mapping[str, Any] = {}
    if isinstance(call, list):
        for item in call:
            if not isinstance(item, list) or len(item) < 3 or not isinstance(item[0], str):
                raise BundleError(f"It is not clear what the layer {name!r} is joined to.")
            sources.append(_checked_name(item[0]))
            if len(item) > 3 and isinstance(item[3], dict):
                settings = item[3]
    elif isinstance(call, dict):
        _collect(call.get("args"), sources, numbers, name, 0)
        extra = call.get("kwargs") or {}
        settings = _mapping(extra, f"the call of {name!r}")
        for key, item in settings.items():
            if isinstance(item, dict | list):
                raise BundleError(
                    f"The layer {name!r} is called with {key!r} in a way that is not understood."
                )
    else:
        raise BundleError(f"It is not clear what the layer {name!r} is joined to.")
    return sources, tuple(numbers), settings


def _collect(
    value: object, sources: list[str], numbers: list[float], name: str, depth: int
) -> None:
    """Find tensors and plain numbers in the arguments of a call."""
    if isinstance(value, list) and depth < 4:
        for item in value:
            _collect(item, sources, numbers, name, depth + 1)
    elif isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
        history = _mapping(value.get("config"), "a tensor").get("keras_history")
        if not isinstance(history, list) or not history:
            raise BundleError(f"It is not clear what the layer {name!r} is joined to.")
        sources.append(_checked_name(_text(history[0])))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if sources and len(numbers) == 0:
            numbers.append(_number(value, name, "argument"))
        else:
            raise BundleError(
                f"The layer {name!r} is called with a number first, which is not understood."
            )
    elif value is not None:
        raise BundleError(f"The layer {name!r} is called with an argument not understood.")


# --- one layer -------------------------------------------------------------------------------


def _read_layer(
    entry: Mapping[str, Any],
    shapes: list[_Shape],
    endings: list[str],
    numbers: tuple[float, ...],
    tally: _Tally,
    depth: int,
    *,
    name: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> _Node:
    """Understand one layer: new configuration, output shape, and what it would end in."""
    kind = _class_of(entry, name or "a layer")
    config = _mapping(entry.get("config"), f"the configuration of a {kind}")
    name = name or _name_of(config, kind)
    tally.layers += 1
    if tally.layers > MAXIMUM_LAYERS:
        raise BundleError(f"The network has more than {MAXIMUM_LAYERS} layers; that is refused.")
    if kind in _MODELS:
        if len(shapes) != 1:
            raise BundleError(f"The nested model {name!r} takes {len(shapes)} inputs, not one.")
        new, shape, _, ending = _read_model(entry, shapes[0], tally, depth + 1)
        new["config"]["name"] = name
        return _Node(new, shape, ending)
    arithmetic = _read_arithmetic(kind, entry, config, numbers, settings or {}, name, len(shapes))
    if arithmetic is not None:
        new_kind, own = arithmetic
        tally.note("Arithmetic with tensors was rewritten as Rescaling and joining layers.")
        kind, config = new_kind, {"name": name, "trainable": True, **own}
    elif numbers:
        raise BundleError(f"The layer {name!r} ({kind}) is called with a number.")
    if kind in _TRAINING_ONLY:
        tally.note("Layers that act only in training (dropout, noise, augmentation) were left out.")
        kind, config = "Activation", {"name": name, "activation": "linear"}
    reader = _READERS.get(kind)
    if reader is None:
        raise _refuse_class(kind, name)
    if kind not in _MERGES and kind != "Concatenate" and len(shapes) != 1:
        raise BundleError(f"The layer {name!r} ({kind}) takes {len(shapes)} inputs, not one.")
    _check_policy(config.get("dtype"), name, tally)
    values = _Settings(kind, name, config)
    shape, parameters, ending = reader(values, shapes, endings)
    values.finish()
    if any(side < 1 for side in shape):
        raise BundleError(f"The layer {name!r} ({kind}) would leave an image with no pixels.")
    if math.prod(shape) > MAXIMUM_ACTIVATION:
        raise BundleError(
            f"The layer {name!r} ({kind}) would give {math.prod(shape):,} values for one image; "
            f"at most {MAXIMUM_ACTIVATION:,} are accepted."
        )
    tally.parameters += parameters
    if tally.parameters > MAXIMUM_PARAMETERS:
        raise BundleError(
            f"The network has more than {MAXIMUM_PARAMETERS:,} parameters: the layer {name!r} "
            f"({kind}) alone has {parameters:,}."
        )
    new_config = {"name": name, "trainable": _trainable(config), "dtype": "float32", **values.kept}
    return _Node(_keras_layer(kind, name, new_config), shape, ending)


def _read_arithmetic(
    kind: str,
    entry: Mapping[str, Any],
    config: Mapping[str, Any],
    numbers: tuple[float, ...],
    settings: Mapping[str, Any],
    name: str,
    inputs: int,
) -> tuple[str, dict[str, Any]] | None:
    """Turn ``x / 127.5`` and the like into a Rescaling layer; None for an ordinary layer."""
    if kind == "TFOpLambda":
        # The name that Keras 2 gives to a TensorFlow function applied to a tensor.
        function = str(config.get("function"))
        operation = {
            "math.truediv": "Divide",
            "math.divide": "Divide",
            "math.multiply": "Multiply",
            "math.subtract": "Subtract",
            "math.add": "Add",
            "__operators__.add": "Add",
        }.get(function)
        number = settings.get("y")
        if operation is None or inputs != 1 or not isinstance(number, int | float):
            raise BundleError(
                f"The layer {name!r} calls the TensorFlow function {function[:60]!r}, which is "
                "not imported; put a Rescaling or Activation layer in its place and save again."
            )
        numbers = (_number(number, name, "y"),)
    elif kind in ("TrueDivide", "Divide"):
        operation = "Divide"
    elif kind in ("Add", "Subtract", "Multiply") and (
        numbers or "ops" in str(entry.get("module") or "")
    ):
        operation = kind
    else:
        return None
    if not numbers:
        if operation == "Divide" or inputs != 2:
            raise BundleError(
                f"The arithmetic {name!r} ({kind}) joins {inputs} tensors, not understood."
            )
        return operation, {}
    if inputs != 1:
        raise BundleError(f"The arithmetic {name!r} ({kind}) is not understood.")
    number = numbers[0]
    if operation == "Divide":
        if number == 0:
            raise BundleError(f"The arithmetic {name!r} divides by zero.")
        return "Rescaling", {"scale": 1 / number, "offset": 0.0}
    if operation == "Multiply":
        return "Rescaling", {"scale": float(number), "offset": 0.0}
    offset = float(number) if operation == "Add" else -float(number)
    return "Rescaling", {"scale": 1.0, "offset": offset}


class _Settings:
    """The settings of one layer: each is asked for once, and none may be left over."""

    def __init__(self, kind: str, name: str, config: Mapping[str, Any]) -> None:
        self.kind = kind
        self.name = name
        self.kept: dict[str, Any] = {}
        self._left = dict(config)

    def take(self, key: str, default: Any) -> Any:
        value = self._left.pop(key, None)
        return default if value is None else value

    def boolean(self, key: str, default: bool) -> bool:
        value = self.take(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, value, "true or false")
        self.kept[key] = value
        return value

    def whole(self, key: str, default: int | None, low: int, high: int) -> int:
        value = self.take(key, default)
        if isinstance(value, float) and value == int(value):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.wrong(key, value, f"a whole number from {low} to {high}")
        self.kept[key] = value
        return value

    def pair(self, key: str, default: Any, low: int, high: int) -> tuple[int, int]:
        value = self.take(key, default)
        both = [value, value] if isinstance(value, int) else value
        if (
            not isinstance(both, list)
            or len(both) != 2
            or not all(isinstance(item, int) and low <= item <= high for item in both)
        ):
            raise self.wrong(key, value, f"two whole numbers from {low} to {high}")
        self.kept[key] = list(both)
        return both[0], both[1]

    def number(self, key: str, default: float | None) -> float | None:
        value = self.take(key, default)
        if value is None:
            self.kept[key] = None
            return None
        # Some files hold a number in an array of one.
        if isinstance(value, dict) and value.get("class_name") == "__numpy__":
            value = _mapping(value.get("config"), "an array").get("value")
        value = _number(value, self.name, key)
        self.kept[key] = value
        return value

    def choice(self, key: str, default: str, allowed: str) -> str:
        value = self.take(key, default)
        if not isinstance(value, str) or value not in allowed.split():
            raise self.wrong(key, value, f"one of {allowed.replace(' ', ', ')}")
        self.kept[key] = value
        return value

    def activation(self, default: str = "linear") -> str:
        value = self.take("activation", default)
        if isinstance(value, dict):
            _check_module(value, f"the activation of {self.name!r}")
            if value.get("class_name") != "function":
                raise self.wrong("activation", value.get("class_name"), "the name of a function")
            value = value.get("config")
        if not isinstance(value, str) or value not in _ACTIVATIONS:
            raise self.wrong("activation", value, "one of " + ", ".join(sorted(_ACTIVATIONS)))
        self.kept["activation"] = value
        return value

    def axis(self, rank: int) -> None:
        """Accept only the last axis, which holds the channels."""
        value = self.take("axis", -1)
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if value not in (-1, rank):
            raise self.wrong("axis", value, "the last axis (-1), which holds the channels")
        self.kept["axis"] = -1

    def channels_last(self) -> None:
        value = self.take("data_format", "channels_last")
        if value != "channels_last":
            raise self.wrong("data_format", value, "channels_last")
        self.kept["data_format"] = "channels_last"

    def wrong(self, key: str, value: object, expected: str) -> BundleError:
        return BundleError(
            f"The layer {self.name!r} ({self.kind}) has {key} = {_short(value)}; "
            f"expected {expected}."
        )

    def finish(self) -> None:
        """Refuse whatever is set and was not asked for."""
        for key, value in self._left.items():
            if key in _SILENT or value is None:
                continue
            if key in _OFF and not value:
                continue
            for ending, allowed in (
                ("initializer", _INITIALISERS),
                ("regularizer", _REGULARISERS),
                ("constraint", _CONSTRAINTS),
            ):
                if key.endswith(ending):
                    self._check_object(key, value, allowed)
                    break
            else:
                raise BundleError(
                    f"The layer {self.name!r} ({self.kind}) has a setting {_short(key)} = "
                    f"{_short(value)} that is not understood."
                )

    def _check_object(self, key: str, value: object, allowed: frozenset[str]) -> None:
        kind: object = value
        if isinstance(value, dict):
            _check_module(value, f"{key} of the layer {self.name!r}")
            kind = value.get("class_name")
        folded = {item.lower(): item for item in allowed}
        if not isinstance(kind, str) or kind.replace("_", "").lower() not in folded:
            raise BundleError(
                f"The layer {self.name!r} ({self.kind}) has {key} = {_short(kind)}, which is not "
                "one of Keras's own; custom objects are not imported."
            )


_Reader = Callable[[_Settings, list[_Shape], list[str]], tuple[_Shape, int, str]]


def _image(values: _Settings, shapes: list[_Shape]) -> tuple[int, int, int]:
    if len(shapes[0]) != 3:
        raise BundleError(
            f"The layer {values.name!r} ({values.kind}) needs images, but gets values of shape "
            f"{(None, *shapes[0])}."
        )
    rows, columns, channels = shapes[0]
    return rows, columns, channels


def _window(
    side: int, size: int, stride: int, padding: str, dilation: int = 1
) -> int:  # positions along one side
    if padding == "same":
        return -(-side // stride)
    return (side - (size - 1) * dilation - 1) // stride + 1


def _convolution(values: _Settings, shapes: list[_Shape]) -> tuple[int, int, int, int, bool]:
    """What the kinds of convolution share: sizes, channels, output sizes, bias."""
    rows, columns, channels = _image(values, shapes)
    kernel = values.pair("kernel_size", None, 1, 255)
    strides = values.pair("strides", [1, 1], 1, 255)
    dilation = values.pair("dilation_rate", [1, 1], 1, 64)
    padding = values.choice("padding", "valid", "valid same")
    values.channels_last()
    bias = values.boolean("use_bias", True)
    after = tuple(
        _window(side, size, stride, padding, rate)
        for side, size, stride, rate in zip((rows, columns), kernel, strides, dilation, strict=True)
    )
    return channels, after[0], after[1], kernel[0] * kernel[1], bias


def _conv2d(values: _Settings, shapes: list[_Shape], _: list[str]) -> tuple[_Shape, int, str]:
    channels, rows, columns, window, bias = _convolution(values, shapes)
    filters = values.whole("filters", None, 1, 2**20)
    groups = values.whole("groups", 1, 1, 2**20)
    if channels % groups or filters % groups:
        raise values.wrong("groups", groups, f"a divisor of {channels} and of {filters}")
    count = window * (channels // groups) * filters + bias * filters
    return (rows, columns, filters), count, values.activation()


def _depthwise(values: _Settings, shapes: list[_Shape], _: list[str]) -> tuple[_Shape, int, str]:
    channels, rows, columns, window, bias = _convolution(values, shapes)
    multiplier = values.whole("depth_multiplier", 1, 1, 1024)
    # Keras 2 writes settings of its parent class that mean nothing here.
    values.take("groups", 1)
    values.take("filters", None)
    filters = channels * multiplier
    return (rows, columns, filters), window * filters + bias * filters, values.activation()


def _separable(values: _Settings, shapes: list[_Shape], _: list[str]) -> tuple[_Shape, int, str]:
    channels, rows, columns, window, bias = _convolution(values, shapes)
    filters = values.whole("filters", None, 1, 2**20)
    inner = channels * values.whole("depth_multiplier", 1, 1, 1024)
    values.take("groups", 1)
    count = window * inner + inner * filters + bias * filters
    return (rows, columns, filters), count, values.activation()


def _dense(values: _Settings, shapes: list[_Shape], _: list[str]) -> tuple[_Shape, int, str]:
    units = values.whole("units", None, 1, 2**31)
    bias = values.boolean("use_bias", True)
    count = shapes[0][-1] * units + bias * units
    return (*shapes[0][:-1], units), count, values.activation()


def _batch_normalization(
    values: _Settings, shapes: list[_Shape], _: list[str]
) -> tuple[_Shape, int, str]:
    values.axis(len(shapes[0]))
    values.number("epsilon", 1e-3)
    count = 2 + values.boolean("center", True) + values.boolean("scale", True)
    return shapes[0], shapes[0][-1] * count, "BatchNormalization"


def _group_normalization(
    values: _Settings, shapes: list[_Shape], _: list[str]
) -> tuple[_Shape, int, str]:
    values.axis(len(shapes[0]))
    values.number("epsilon", 1e-3)
    channels = shapes[0][-1]
    groups = values.whole("groups", 32, -1, 2**20)
    if groups == 0 or channels % groups:
        raise values.wrong("groups", groups, f"-1 or a divisor of {channels}")
    count = values.boolean("center", True) + values.boolean("scale", True)
    return shapes[0], channels * count, "GroupNormalization"


def _layer_normalization(
    values: _Settings, shapes: list[_Shape], _: list[str]
) -> tuple[_Shape, int, str]:
    values.axis(len(shapes[0]))
    values.number("epsilon", 1e-3)
    if values.take("rms_scaling", False):
        raise values.wrong("rms_scaling", True, "false")
    count = values.boolean("center", True) + values.boolean("scale", True)
    return shapes[0], shapes[0][-1] * count, "LayerNormalization"


def _rescaling(values: _Settings, shapes: list[_Shape], _: list[str]) -> tuple[_Shape, int, str]:
    for key, default in (("scale", 1.0), ("offset", 0.0)):
        value = values.take(key, default)
        if isinstance(value, list) and len(value) == shapes[0][-1] <= 16:
            values.kept[key] = [_number(item, values.name, key) for item in value]
        else:
            values.kept[key] = _number(value, values.name, key)
    return shapes[0], 0, "Rescaling"


def _pooling(values: _Settings, shapes: list[_Shape], _: list[str]) -> tuple[_Shape, int, str]:
    rows, columns, channels = _image(values, shapes)
    size = values.pair("pool_size", [2, 2], 1, 255)
    strides = values.pair("strides", list(size), 1, 255)
    padding = values.choice("padding", "valid", "valid same")
    values.channels_last()
    after = (
        _window(rows, size[0], strides[0], padding),
        _window(columns, size[1], strides[1], padding),
    )
    return (*after, channels), 0, values.kind


def _global_pooling(
    values: _Settings, shapes: list[_Shape], endings: list[str]
) -> tuple[_Shape, int, str]:
    _, _, channels = _image(values, shapes)
    values.channels_last()
    keep = values.boolean("keepdims", False)
    # A mean of softmax rows is one; a maximum is not.
    average = values.kind == "GlobalAveragePooling2D"
    return (1, 1, channels) if keep else (channels,), 0, endings[0] if average else values.kind


def _four_sides(values: _Settings, key: str) -> tuple[int, int, int, int]:
    value = values.take(key, [[1, 1], [1, 1]] if key == "padding" else [[0, 0], [0, 0]])
    if isinstance(value, int):
        value = [[value, value], [value, value]]
    if isinstance(value, list) and len(value) == 2:
        value = [[item, item] if isinstance(item, int) else item for item in value]
        if all(isinstance(item, list) and len(item) == 2 for item in value):
            sides = [side for item in value for side in item]
            if all(isinstance(side, int) and 0 <= side <= LARGEST_SIDE for side in sides):
                values.kept[key] = value
                return sides[0], sides[1], sides[2], sides[3]
    raise values.wrong(key, value, "the rows and columns of each side")


def _padding(values: _Settings, shapes: list[_Shape], _: list[str]) -> tuple[_Shape, int, str]:
    rows, columns, channels = _image(values, shapes)
    top, bottom, left, right = _four_sides(values, "padding")
    values.channels_last()
    return (rows + top + bottom, columns + left + right, channels), 0, values.kind


def _cropping(values: _Settings, shapes: list[_Shape], _: list[str]) -> tuple[_Shape, int, str]:
    rows, columns, channels = _image(values, shapes)
    top, bottom, left, right = _four_sides(values, "cropping")
    values.channels_last()
    return (rows - top - bottom, columns - left - right, channels), 0, values.kind


def _flatten(
    values: _Settings, shapes: list[_Shape], endings: list[str]
) -> tuple[_Shape, int, str]:
    values.channels_last()
    single = math.prod(shapes[0]) == shapes[0][-1]
    return (math.prod(shapes[0]),), 0, endings[0] if single else "Flatten"


def _reshape(
    values: _Settings, shapes: list[_Shape], endings: list[str]
) -> tuple[_Shape, int, str]:
    target = values.take("target_shape", None)
    if not isinstance(target, list) or not all(isinstance(item, int) for item in target):
        raise values.wrong("target_shape", target, "a list of whole numbers")
    total = math.prod(shapes[0])
    known = math.prod(item for item in target if item != -1)
    shape = tuple(total // max(1, known) if item == -1 else item for item in target)
    if not 1 <= len(shape) <= 4 or min(shape) < 1 or math.prod(shape) != total:
        raise values.wrong("target_shape", target, f"sides whose product is {total}")
    values.kept["target_shape"] = list(shape)
    return shape, 0, endings[0] if shape[-1] == shapes[0][-1] else "Reshape"


def _activation(
    values: _Settings, shapes: list[_Shape], endings: list[str]
) -> tuple[_Shape, int, str]:
    name = values.activation()
    return shapes[0], 0, endings[0] if name == "linear" else name


def _relu(values: _Settings, shapes: list[_Shape], _: list[str]) -> tuple[_Shape, int, str]:
    values.number("max_value", None)
    values.number("negative_slope", 0.0)
    values.number("threshold", 0.0)
    return shapes[0], 0, "ReLU"


def _leaky_relu(values: _Settings, shapes: list[_Shape], _: list[str]) -> tuple[_Shape, int, str]:
    older = values.take("alpha", 0.3)  # the name in Keras 2
    values.number("negative_slope", _number(older, values.name, "alpha"))
    return shapes[0], 0, "LeakyReLU"


def _elu(values: _Settings, shapes: list[_Shape], _: list[str]) -> tuple[_Shape, int, str]:
    values.number("alpha", 1.0)
    return shapes[0], 0, "ELU"


def _softmax(values: _Settings, shapes: list[_Shape], _: list[str]) -> tuple[_Shape, int, str]:
    values.axis(len(shapes[0]))
    return shapes[0], 0, "softmax"


def _merge(values: _Settings, shapes: list[_Shape], _: list[str]) -> tuple[_Shape, int, str]:
    if len(shapes) < 2 or (values.kind == "Subtract" and len(shapes) != 2):
        raise BundleError(f"The layer {values.name!r} ({values.kind}) joins {len(shapes)} inputs.")
    if any(len(shape) != len(shapes[0]) for shape in shapes):
        raise BundleError(
            f"The layer {values.name!r} ({values.kind}) joins unequal shapes {shapes}."
        )
    shape = []
    for sides in zip(*shapes, strict=True):
        largest = max(sides)
        if any(side not in (1, largest) for side in sides):
            raise BundleError(
                f"The layer {values.name!r} ({values.kind}) joins unequal shapes {shapes}."
            )
        shape.append(largest)
    return tuple(shape), 0, values.kind


def _concatenate(values: _Settings, shapes: list[_Shape], _: list[str]) -> tuple[_Shape, int, str]:
    values.axis(len(shapes[0]))
    if any(shape[:-1] != shapes[0][:-1] for shape in shapes):
        raise BundleError(f"The layer {values.name!r} (Concatenate) joins unequal shapes {shapes}.")
    return (*shapes[0][:-1], sum(shape[-1] for shape in shapes)), 0, "Concatenate"


_READERS: Final[dict[str, _Reader]] = {
    "Activation": _activation,
    "AveragePooling2D": _pooling,
    "BatchNormalization": _batch_normalization,
    "Concatenate": _concatenate,
    "Conv2D": _conv2d,
    "Cropping2D": _cropping,
    "Dense": _dense,
    "DepthwiseConv2D": _depthwise,
    "ELU": _elu,
    "Flatten": _flatten,
    "GlobalAveragePooling2D": _global_pooling,
    "GlobalMaxPooling2D": _global_pooling,
    "GroupNormalization": _group_normalization,
    "LayerNormalization": _layer_normalization,
    "LeakyReLU": _leaky_relu,
    "MaxPooling2D": _pooling,
    "ReLU": _relu,
    "Rescaling": _rescaling,
    "Reshape": _reshape,
    "SeparableConv2D": _separable,
    "Softmax": _softmax,
    "ZeroPadding2D": _padding,
    **dict.fromkeys(_MERGES, _merge),
}


# --- small pieces ----------------------------------------------------------------------------


def _keras_layer(kind: str, name: str, config: dict[str, Any]) -> dict[str, Any]:
    return {
        "module": "keras.layers",
        "class_name": kind,
        "config": config | {"name": name},
        "registered_name": None,
    }


def _keras_model(kind: str, config: dict[str, Any]) -> dict[str, Any]:
    return {"module": "keras", "class_name": kind, "config": config, "registered_name": None}


def _merges(config: Mapping[str, Any]) -> bool:
    return config["class_name"] in _MERGES or config["class_name"] == "Concatenate"


def _input_config(shape: _Shape, name: str) -> dict[str, Any]:
    return {"batch_shape": [None, *shape], "dtype": "float32", "name": name}


def _class_of(entry: Mapping[str, Any], where: str) -> str:
    """Class of a serialised layer, once it is sure that Keras itself is meant."""
    _check_module(entry, where)
    kind = entry.get("class_name")
    if not isinstance(kind, str):
        raise BundleError(f"The kind of {where!r} is not given.")
    return kind


def _check_module(entry: Mapping[str, Any], where: str) -> None:
    """Refuse objects that come from anywhere but Keras."""
    module, registered = entry.get("module"), entry.get("registered_name")
    kind = entry.get("class_name")
    if module is not None and not re.fullmatch(
        r"(keras|tensorflow\.python\.keras|tf_keras)(\.\w+)*|builtins", str(module)
    ):
        raise BundleError(
            f"{where} is a custom object ({_short(kind)} from {_short(module)}); importing it "
            "would need its code, and no code of a stranger is run."
        )
    if isinstance(registered, str) and ">" in registered and not registered.startswith("Keras>"):
        raise BundleError(
            f"{where} is a custom object (registered as {_short(registered)}); importing it "
            "would need its code, and no code of a stranger is run."
        )
    if isinstance(kind, str) and ">" in kind:
        raise BundleError(
            f"{where} is a custom object ({_short(kind)}); importing it would need its code, and "
            "no code of a stranger is run."
        )


def _refuse_class(kind: str, name: str) -> BundleError:
    if kind in _RUNS_CODE or kind.startswith("__"):
        return BundleError(
            f"The layer {name!r} is a {kind}, which carries code; no code of a stranger is run. "
            "Replace it by Keras's own layers and save the model again."
        )
    return BundleError(
        f"The layer {name!r} is of the kind {_short(kind)}, which is not on the list of layers "
        "that can be imported: " + ", ".join(sorted(set(_READERS) | {"Dropout"})) + "."
    )


def _check_policy(value: object, name: str, tally: _Tally) -> None:
    """Take plain and mixed precision; the network is rebuilt in float32."""
    if isinstance(value, dict):
        _check_module(value, f"the dtype of {name!r}")
        if value.get("class_name") not in ("DTypePolicy", "Policy"):
            raise BundleError(
                f"The layer {name!r} has the dtype policy {_short(value.get('class_name'))}, "
                "which is not understood (quantised layers are not imported)."
            )
        value = _mapping(value.get("config"), "a dtype policy").get("name")
    if value in (None, "float32"):
        return
    if value not in ("float64", "float16", "mixed_float16", "mixed_bfloat16"):
        raise BundleError(f"The layer {name!r} has the dtype {_short(value)}; expected float32.")
    tally.note(f"The network was written in {value}; it is rebuilt in float32.")


def _input_shape(config: Mapping[str, Any], name: str) -> _Shape:
    value = config.get("batch_shape") or config.get("batch_input_shape")
    return _shape_of(value, f"the input {name!r}")


def _find_input(entry: Mapping[str, Any]) -> object:
    config = entry.get("config")
    return config.get("batch_input_shape") if isinstance(config, dict) else None


def _shape_of(value: object, where: str) -> _Shape:
    if isinstance(value, dict) and value.get("class_name") in ("__tuple__", "TensorShape"):
        value = value.get("items")
    if not isinstance(value, list) or not 2 <= len(value) <= 5:
        raise BundleError(f"The shape of {where} is {_short(value)}; expected a list of sides.")
    sides = value[1:]
    if not all(isinstance(side, int) and not isinstance(side, bool) for side in sides):
        raise BundleError(
            f"The shape of {where} is {_short(value)}; expected a fixed height and width, so save "
            "the model for one image size."
        )
    if any(not 1 <= side <= 2**24 for side in sides):
        raise BundleError(f"The shape of {where} is {_short(value)}, which is out of range.")
    return tuple(sides)


def _same_input(own: _Shape, given: _Shape | None, name: str) -> _Shape:
    if given is not None and own != given:
        raise BundleError(
            f"The nested model {name!r} takes {(None, *own)} but gets {(None, *given)}."
        )
    return own


def _single_end(value: object, model: str, what: str) -> str:
    """Name of the only input or output layer: ["a", 0, 0] or [["a", 0, 0]]."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    if isinstance(value, list) and len(value) == 3 and isinstance(value[0], str):
        return _checked_name(value[0])
    count = len(value) if isinstance(value, list | dict) else 0
    raise BundleError(f"The model {model!r} has {count} {what}s; expected one {what}.")


def _trainable(config: Mapping[str, Any]) -> bool:
    # It changes nothing in what is computed, but the order of the weights in a file.
    return config.get("trainable", True) is not False


def _name_of(config: Mapping[str, Any], kind: str) -> str:
    return _checked_name(_text(config.get("name") or kind.lower()))


def _checked_name(name: str) -> str:
    if not 1 <= len(name) <= 128 or not name.isprintable():
        raise BundleError(f"A layer has the name {_short(name)}, which is no plain name.")
    # Keras 3 has no slash in names.
    return name.replace("/", "_")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise BundleError(f"A layer's name is {_short(value)}; expected text.")
    return _checked_name(value)


def _mapping(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise BundleError(f"{where} is {_short(value)}; expected settings by name.")
    return value


def _list(config: Mapping[str, Any], key: str, where: str) -> list[Any]:
    value = config.get(key)
    if not isinstance(value, list) or len(value) > MAXIMUM_LAYERS:
        raise BundleError(f"The {key} of {where!r} are no list of at most {MAXIMUM_LAYERS}.")
    return value


def _number(value: object, name: str, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BundleError(f"The layer {name!r} has {key} = {_short(value)}; expected a number.")
    number = float(value) if abs(value) < 1e30 else math.inf
    if not math.isfinite(number):
        raise BundleError(f"The layer {name!r} has {key} = {_short(value)}, out of range.")
    return number


def _short(value: object) -> str:
    """A value as it may stand in a message: one line, printable, brief."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
