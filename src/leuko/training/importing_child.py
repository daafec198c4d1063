"""The confined half of an import: runs in a child process of its own and nowhere else.

The foreign file is looked at before Keras sees it: its configuration is read as JSON against a list
of Keras's own classes, its weights are walked as plain arrays. Then Keras's own loader opens it, in
safe mode, and may make no more weights than the file has. Only Python's own modules are imported
until the process is confined.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import os
import re
import sys
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from leuko.errors import BundleError, LeukoError

__all__ = ["check_config", "confine", "main"]

_CONFIG, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_LARGEST: Final = {_CONFIG: 32 * 2**20, _METADATA: 2**20, _WEIGHTS: 2**30}
_MAXIMUM_RATIO: Final = 200
_ORDINARY: Final = 2**20
_LARGEST_SIDE: Final = 1024
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_MODELS: Final = _words("Functional Model Sequential")
_ALLOWED: Final = _MODELS | _words(
    # layers, and the arithmetic that Keras 3 writes for x / 127.5 - 1
    "Activation Add Average AveragePooling2D BatchNormalization "
    "CenterCrop Concatenate Conv2D Cropping2D Dense DepthwiseConv2D ELU EinsumDense Flatten "
    "GlobalAveragePooling2D GlobalMaxPooling2D GroupNormalization InputLayer LayerNormalization "
    "LeakyReLU MaxPooling2D Maximum Minimum MultiHeadAttention Multiply Normalization PReLU "
    "Permute ReLU Rescaling Reshape Resizing SeparableConv2D Softmax Subtract "
    "UnitNormalization UpSampling2D ZeroPadding2D Divide TrueDivide "
    # layers that act only in training
    "ActivityRegularization AlphaDropout Dropout GaussianDropout GaussianNoise RandomBrightness "
    "RandomContrast RandomFlip RandomHue RandomRotation RandomSaturation RandomShear "
    "RandomTranslation RandomZoom SpatialDropout2D "
    # initialisers, regularisers, constraints
    "Constant GlorotNormal GlorotUniform HeNormal HeUniform Identity LecunNormal LecunUniform "
    "Ones Orthogonal RandomNormal RandomUniform TruncatedNormal VarianceScaling Zeros L1 L2 L1L2 "
    "OrthogonalRegularizer MaxNorm MinMaxNorm NonNeg UnitNorm "
    # how JSON says other things
    "DTypePolicy Policy TensorShape __keras_tensor__ __numpy__ __tuple__ function"
)
_ACTIVATIONS: Final = _words(
    "elu exponential gelu hard_sigmoid hard_silu hard_swish leaky_relu linear log_softmax mish "
    "relu relu6 selu sigmoid silu softmax softplus softsign swish tanh"
)
# Keras 3 saves every call of these with training=True, and leaves that out when it predicts.
_AUGMENTS: Final = ("Random", "Resizing", "CenterCrop")
_RUNS_CODE: Final = _words("Lambda TFOpLambda TFSMLayer TorchModuleWrapper JaxLayer FlaxLayer")


def main(folder: str) -> None:
    """Do one import in `folder`, which holds the job and the foreign file.

    Parameters
    ----------
    folder : str
        The child's own temporary folder, its working directory.
    """
    home = Path(folder)
    job = json.loads((home / "job.json").read_text())
    result: dict[str, Any] = {"sentence": ""}
    try:
        result["limits"] = confine(home, job["limits"])
        result |= convert(home, job["scale"], job["offset"])
    except LeukoError as error:
        result["sentence"] = str(error)
    except MemoryError:
        result["sentence"] = (
            "The network needs more memory than an import may use "
            f"({job['limits']['memory'] / 2**30:.0f} GiB)."
        )
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent needs a sentence
        first = (str(error).strip().splitlines() or [""])[0][:300]
        result["sentence"] = (
            f"This Keras cannot rebuild the network ({type(error).__name__}: {first}). Save it "
            "again with Keras 3 as .keras, or export it to ONNX."
        )
    (home / "result.json").write_text(json.dumps(result))


def confine(home: Path, limits: dict[str, int]) -> list[str]:
    """Take from this process, for good, what an import has no use for.

    Parameters
    ----------
    home : Path
        The only folder in which it may write from now on.
    limits : dict
        ``memory`` and ``file`` in bytes, ``cpu`` in seconds.

    Returns
    -------
    list of str
        Which limits this system knows and has set.
    """
    kept = _limit_resources(limits)
    with contextlib.suppress(AttributeError, OSError, TypeError):
        # A network of its own without any device; others than root need a user of their own for
        # that. It works while there is one thread.
        unshare = ctypes.CDLL(None).unshare
        if unshare(_CLONE_NEWNET) == 0 or unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0:
            kept.append("network")
    root = os.path.realpath(home)
    refused = (
        "subprocess.", "socket.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn",
        "os.startfile", "pty.", "ftplib.", "smtplib.", "urllib.", "http.", "webbrowser.",
        "pickle.find_class", "os.kill",
    )  # fmt: skip
    changing = _words(
        "os.chmod os.chown os.link os.mkdir os.remove os.rename os.rmdir os.symlink os.truncate "
        "os.utime shutil.move shutil.rmtree"
    )

    def guard(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
            if isinstance(flags, int) and flags & writes and not isinstance(path, int):
                _inside(path, root, event)
        elif event in changing:
            for path in arguments:
                if isinstance(path, str | bytes | os.PathLike):
                    _inside(path, root, event)
        elif event.startswith(refused):
            raise PermissionError(f"an import may not use {event}")

    sys.addaudithook(guard)
    return [*kept, "no processes, no network, no writing elsewhere (in Python)"]


def _inside(path: Any, root: str, event: str) -> None:
    real = os.path.realpath(os.fsdecode(path))
    if real not in (root, os.devnull) and not real.startswith(root + os.sep):
        raise PermissionError(f"an import may not use {event} outside its own folder")


def _limit_resources(limits: dict[str, int]) -> list[str]:
    """Limit memory, processor time, file size and open files where the system can."""
    try:
        import resource
    except ImportError:  # Windows
        return []
    done = []
    for name, kind, value in (
        ("memory", "RLIMIT_AS", limits["memory"]),
        ("cpu", "RLIMIT_CPU", limits["cpu"]),
        ("file", "RLIMIT_FSIZE", limits["file"]),
        ("open files", "RLIMIT_NOFILE", 256),
        ("core", "RLIMIT_CORE", 0),
    ):
        which = getattr(resource, kind, None)
        if which is None:
            continue
        ceiling = resource.getrlimit(which)[1]
        wanted = value if ceiling == resource.RLIM_INFINITY else min(value, ceiling)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(which, (wanted, wanted))
            done.append(name)
    return done


def convert(home: Path, scale: Sequence[float], offset: Sequence[float]) -> dict[str, Any]:
    """Check the foreign file, let Keras open it, and convert what it built.

    Parameters
    ----------
    home : Path
        Holds ``foreign``; gets ``model.onnx``.
    scale, offset : one or three floats
        The two networks are compared on pixels 0 to 255 times `scale` plus `offset`.

    Returns
    -------
    dict
        ``format`` and ``version`` of the file, and how many ``parameters`` it has.

    Raises
    ------
    LeukoError
        When the file is refused, or the two networks answer differently.
    """
    with (home / "foreign").open("rb") as file:
        kind = "keras" if file.read(4) == b"PK\x03\x04" else "h5"
    path, version, stored = (open_archive if kind == "keras" else open_h5)(home)

    import keras
    import numpy as np

    from leuko.training.to_onnx import example_pixels, features_onnx

    with _bounded(stored):
        model = keras.models.load_model(path, compile=False, safe_mode=True, custom_objects=None)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Normalization):
            # As tensors these would become inputs of the network.
            layer.mean, layer.variance = np.asarray(layer.mean), np.asarray(layer.variance)
    shape = tuple(model.input_shape) if len(model.inputs) == 1 else ()
    sides = [side for side in shape[1:3] if isinstance(side, int) and side <= _LARGEST_SIDE]
    if len(shape) != 4 or len(sides) != 2:
        raise BundleError(
            f"The network takes {model.input_shape}; expected colour pictures of one size, at most "
            f"{_LARGEST_SIDE} pixels a side."
        )
    samples = example_pixels((sides[0], sides[1]), count=3)
    samples = samples * np.asarray(scale, np.float32) + np.asarray(offset, np.float32)
    (home / "model.onnx").write_bytes(features_onnx(model, samples))
    return {"format": kind, "version": version, "parameters": model.count_params()}


@contextlib.contextmanager
def _bounded(most: int) -> Iterator[None]:
    """Let Keras make no more weights than there are numbers in the file."""
    import keras

    made, original = 0, keras.layers.Layer.add_weight

    def add_weight(self: Any, shape: Any = None, *args: Any, **settings: Any) -> Any:
        nonlocal made
        made += math.prod(shape or ())
        if made > most:
            raise BundleError(
                f"The architecture needs more weights than the {most:,} that the file holds (the "
                f"layer {self.name!r} alone wants {math.prod(shape or ()):,}); the two do not "
                "belong together, or the file is damaged."
            )
        return original(self, shape, *args, **settings)

    keras.layers.Layer.add_weight = add_weight
    try:
        yield
    finally:
        keras.layers.Layer.add_weight = original


def check_config(document: Any, version: str) -> Any:
    """Refuse what is not Keras's own, and rewrite what Keras 2 spelt otherwise.

    Parameters
    ----------
    document : JSON value
        The configuration of a model. It is changed in place.
    version : str
        Of the Keras that wrote it.

    Returns
    -------
    JSON value
        The document.

    Raises
    ------
    BundleError
        One sentence that names the layer at fault.
    """
    waiting: list[tuple[Any, str]] = [(document, "The model")]
    while waiting:
        value, where = waiting.pop()
        if isinstance(value, list):
            waiting += [(item, where) for item in value]
        if not isinstance(value, dict):
            continue
        config = value.get("config")
        value.pop("compile_config", None)
        if isinstance(config, dict) and isinstance(config.get("name"), str):
            where = f"The layer {config['name'][:60]!r}"
        if not {"class_name", "module", "registered_name"}.isdisjoint(value):
            _check_object(value, where)
            _respell(value["class_name"], config)
        kind = str(value.get("class_name"))
        if not kind.startswith(_AUGMENTS) and _in_training(value.get("inbound_nodes")):
            raise BundleError(
                f"{where} is called with training=True, so that an answer depends on chance "
                "or on the other pictures. Save the model without it."
            )
        for name, item in value.items():
            if name.endswith("activation") and isinstance(item, str):
                _check_function(item, where, version)
        if value.get("class_name") == "function":
            _check_function(config, where, version)
        waiting += [(item, where) for item in value.values()]
    return document


def _check_object(value: dict[str, Any], where: str) -> None:
    """Refuse classes that are not on the list, and those of the list from elsewhere."""
    kind, module = str(value.get("class_name")), value.get("module")
    registered = value.get("registered_name")
    if kind in _RUNS_CODE:
        raise BundleError(
            f"{where} is a {kind}, which carries code or calls it; no code of a stranger is run. "
            "Put Keras's own layers in its place and save the model again, or export it to ONNX."
        )
    own = module is None or re.fullmatch(
        r"builtins|(keras|tensorflow\.keras)(\.\w+)*", str(module), re.ASCII
    )
    named = registered in (None, kind) or str(registered).startswith("Keras>")
    if kind not in _ALLOWED or not own or not named:
        origin = registered if own and not named else module
        raise BundleError(
            f"{where} is a {kind[:60]!r} of {str(origin)[:60]!r}, which is not on the list of "
            "Keras's own classes that are imported. Export the model to ONNX instead."
        )


def _check_function(name: object, where: str, version: str) -> None:
    """Refuse functions that are not Keras's own, or meant something else."""
    if str(name) not in _ACTIVATIONS:
        raise BundleError(
            f"{where} has the activation {str(name)[:60]!r}; expected one of Keras's own: "
            f"{', '.join(sorted(_ACTIVATIONS))}."
        )
    if name == "hard_sigmoid" and not version.startswith("3"):
        raise BundleError(
            f"{where} has the activation hard_sigmoid of Keras {version}, which was clip(0.2 x + "
            "0.5, 0, 1); since Keras 3 it is relu6(x + 3) / 6, and the network would answer "
            "otherwise."
        )


def _respell(kind: str, config: Any) -> None:
    """Write a layer of Keras 2 as Keras 3 reads it, and mixed precision in full."""
    if not isinstance(config, dict):
        return
    if kind in ("DepthwiseConv2D", "SeparableConv2D"):
        # Settings of a parent class, which mean nothing there.
        for name in ("kernel_initializer", "kernel_regularizer", "kernel_constraint"):
            config.pop(name, None)
        if config.get("groups") == 1:
            del config["groups"]
    if kind == "LeakyReLU" and "alpha" in config:
        config["negative_slope"] = config.pop("alpha")
    axis = config.get("axis")
    if kind == "BatchNormalization" and isinstance(axis, list) and len(axis) == 1:
        config["axis"] = axis[0]
    if kind in _MODELS:
        _renumber_calls(config)
    policy = config.get("dtype")
    if isinstance(policy, dict) and policy.get("class_name") in ("DTypePolicy", "Policy"):
        policy = (policy.get("config") or {}).get("name")
    if policy in ("mixed_float16", "mixed_bfloat16"):
        config["dtype"] = "float32"


def _renumber_calls(config: dict[str, Any]) -> None:
    """Count the calls of nested models from 0; for Keras 2 the first was their own making."""
    layers = [layer for layer in config.get("layers") or [] if isinstance(layer, dict)]
    nested = {layer.get("name"): layer.get("class_name") for layer in layers}
    calls = [call for layer in layers for call in _calls(layer.get("inbound_nodes"))]
    # Keras 3 does it by itself for outputs, but of a Sequential.
    outputs = [*_calls(config.get("output_layers"))]
    calls += [call for call in outputs if nested.get(call[0]) == "Sequential"]
    calls = [call for call in calls if nested.get(call[0]) in _MODELS]
    for name in {call[0] for call in calls}:
        first = min(call[1] for call in calls if call[0] == name)
        for call in calls:
            call[1] -= first if call[0] == name else 0


def _calls(nodes: Any) -> Iterator[list[Any]]:
    """What a layer takes, as Keras 2 writes it: [name, call, output, ...]."""
    if isinstance(nodes, list):
        if len(nodes) > 2 and isinstance(nodes[0], str) and isinstance(nodes[1], int):
            yield nodes
        else:
            for item in nodes:
                yield from _calls(item)


def _in_training(nodes: Any) -> bool:
    """Whether a layer is called as in training, in the words of Keras 2 or 3."""
    if isinstance(nodes, list):
        return any(map(_in_training, nodes))
    if isinstance(nodes, dict):
        return bool(nodes.get("training")) or _in_training([*nodes.values()])
    return False


def open_h5(home: Path) -> tuple[Path, str, int]:
    """Check a legacy HDF5 model.

    Parameters
    ----------
    home : Path
        Holds ``foreign``.

    Returns
    -------
    path : Path
        What Keras may open.
    version : str
        Of the Keras that wrote it.
    stored : int
        Numbers in the model's weights.
    """
    path = (home / "foreign").rename(home / "model.h5")
    with _h5(path, "r+") as file:
        stored = _count_weights(file, path.stat().st_size)
        text = file.attrs.get("model_config")
        if text is None:
            raise BundleError(
                "The file holds weights but no architecture; save the whole model "
                "(model.save), not its weights alone."
            )
        version = _version(file.attrs.get("keras_version"))
        document = check_config(_json(text, "model_config"), version)
        file.attrs["model_config"] = json.dumps(document)
    return path, version, stored


def open_archive(home: Path) -> tuple[Path, str, int]:
    """Check a ``.keras`` archive, and write the members that Keras needs anew.

    Parameters
    ----------
    home : Path
        Holds ``foreign``.

    Returns
    -------
    path, version, stored
        See `open_h5`.
    """
    members = _read_members(home / "foreign")
    metadata = _json(members.get(_METADATA, b"{}"), _METADATA)
    version = _version(metadata.get("keras_version") if isinstance(metadata, dict) else None)
    document = check_config(_json(members[_CONFIG], _CONFIG), version)
    weights = home / _WEIGHTS
    weights.write_bytes(members[_WEIGHTS])
    with _h5(weights, "r") as file:
        stored = _count_weights(file, len(members[_WEIGHTS]))
    path = home / "model.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(_METADATA, "{}")
        archive.writestr(_CONFIG, json.dumps(document))
        archive.write(weights, _WEIGHTS)
    return path, version, stored


def _read_members(path: Path) -> dict[str, bytes]:
    """Read the members of a .keras archive that Keras needs; the others are never unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = {info.filename: info for info in archive.infolist()}
            missing = {_CONFIG, _WEIGHTS} - {*infos}
            if missing:
                raise BundleError(
                    f"The archive lacks {', '.join(sorted(missing))}; it is not a model saved by "
                    "Keras 3 in its .keras format."
                )
            for name in {*_LARGEST} & {*infos}:
                size, packed = infos[name].file_size, infos[name].compress_size
                if size > min(_LARGEST[name], max(_ORDINARY, _MAXIMUM_RATIO * packed)):
                    raise BundleError(
                        f"The member {name!r} would unpack to {size:,} bytes from {packed:,}; "
                        "that is refused."
                    )
            return {name: archive.read(name) for name in {*_LARGEST} & {*infos}}
    except (
        zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError,
        NotImplementedError,
    ) as error:  # fmt: skip
        raise BundleError(
            f"The file is damaged or cut short: it cannot be read as a .keras archive ({error})."
        ) from error


@contextlib.contextmanager
def _h5(path: Path, mode: str) -> Iterator[Any]:
    """Open an HDF5 file; whatever the library stumbles over is a damaged file."""
    import h5py

    try:
        with h5py.File(path, mode) as file:
            yield file
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        raise BundleError(
            f"The file is damaged or cut short: its HDF5 part cannot be read ({str(error)[:120]})."
        ) from error


def _count_weights(file: Any, length: int) -> int:
    """Count the numbers of a model's weights; refuse links, loops and data kept elsewhere."""
    import h5py

    links: list[tuple[str, Any]] = []
    names: list[str] = []
    file.visititems_links(lambda *found: links.append(found))
    file.visit(names.append)
    for name, link in links:
        if not isinstance(link, h5py.HardLink):
            raise BundleError(
                f"The file has a link to elsewhere ({type(link).__name__} {name[:80]!r}); "
                "only self-contained files are imported."
            )
    if len(links) != len(names):
        raise BundleError("The inside of the file is tangled: an object stands in two places.")
    sizes = {name: _size(file[name], name, length) for name in names}
    return sum(size for name, size in sizes.items() if not name.startswith("optimizer"))


def _size(data: Any, name: str, length: int) -> int:
    """Numbers of an array; refused where it lies elsewhere or claims more than can be there."""
    import h5py

    if isinstance(data, h5py.Group):
        return 0
    if getattr(data, "shape", None) is None or data.dtype.kind not in "fiub":
        raise BundleError(f"The object {name[:80]!r} holds no plain numbers.")
    if data.external or data.is_virtual:
        raise BundleError(f"The array {name[:80]!r} lies in another file; that is refused.")
    claimed, stored = data.size * data.dtype.itemsize, min(length, data.id.get_storage_size())
    if claimed > max(_ORDINARY, _MAXIMUM_RATIO * stored):
        raise BundleError(
            f"The array {name[:80]!r} claims {claimed:,} bytes and holds {stored:,}; that is "
            "refused."
        )
    return int(data.size)


def _json(data: Any, name: str) -> Any:
    """Parse JSON that a stranger wrote: bounded, without the constants JSON does not have."""
    if not isinstance(data, bytes | str) or len(data) > _LARGEST[_CONFIG]:
        raise BundleError(f"{name} is no text, or too long; that is refused.")
    try:
        return json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{name} is damaged: {str(error)[:120]}.") from error


def _no_constant(name: str) -> Any:
    """Refuse NaN and the infinities, which Python reads and JSON does not have."""
    raise ValueError(f"{name} is no JSON")


def _version(value: object) -> str:
    """A version for the record, or "unknown"; it comes from the file and is only shown."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")
    return text if 0 < len(text) <= 20 and text.isascii() and text.isprintable() else "unknown"
