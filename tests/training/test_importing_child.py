"""The child of an import: what it takes, what it refuses, and that nothing foreign is run."""

from __future__ import annotations

import copy
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leuko.errors import BundleError, LeukoError, TrainingError

h5py = pytest.importorskip("h5py", reason="needs the extra 'train'")
keras = pytest.importorskip("keras", reason="needs the extra 'train'")
pytest.importorskip("tf2onnx", reason="needs the extra 'train'")

import onnxruntime  # noqa: E402

from leuko.training import importing_child as child  # noqa: E402
from leuko.training.to_onnx import example_pixels  # noqa: E402

# Keras's own reading of TensorFlow variables; NumPy 2 warns about it.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

layers = keras.layers


def shuffle_weights(model: Any, seed: int = 3) -> Any:
    """Random weights and random moving statistics, of a size that keeps answers apart."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if "variance" in weight.path or "gamma" in weight.path:
            values = rng.uniform(0.5, 1.5, weight.shape)
        elif "kernel" in weight.path:
            values = rng.normal(0, 1.5 / np.sqrt(np.prod(weight.shape[:-1])), weight.shape)
        else:
            values = rng.normal(0, 0.3, weight.shape)
        weight.assign(values.astype(np.float32))
    return model


def published_cnn(side: int = 350) -> Any:
    """The published CNN; 87,245 parameters at its own size."""
    stack: list[Any] = [keras.Input((side, side, 3)), layers.Rescaling(1 / 255)]
    for filters in (4, 8, 16, 32, 64):
        stack.append(layers.Conv2D(filters, 3, strides=2, padding="same", activation="relu"))
        stack.append(layers.BatchNormalization())
    stack += [
        layers.Flatten(),
        layers.Dense(8, activation="relu"),
        layers.BatchNormalization(),
        layers.Dense(5, activation="softmax"),
    ]
    return shuffle_weights(keras.Sequential(stack))


def transfer_model(*, arithmetic: bool = True) -> Any:
    """A partly frozen nested backbone with a residual join, and a logits head."""
    inner = keras.Input((40, 32, 3))
    x = layers.Conv2D(6, 3, strides=2, padding="same", use_bias=False, name="stem")(inner)
    x = layers.BatchNormalization(name="stem_bn")(x)
    x = start = layers.ReLU(6.0)(x)
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depth")(x)
    x = layers.BatchNormalization(name="depth_bn")(x)
    x = layers.Conv2D(6, 1, name="project")(x)
    x = layers.Add(name="join")([start, x])
    x = layers.LeakyReLU(0.2)(layers.SeparableConv2D(6, 3, padding="same", name="apart")(x))
    x = layers.ZeroPadding2D(((0, 1), (1, 0)))(x)
    x = layers.MaxPooling2D(3, strides=2)(x)
    backbone = keras.Model(inner, x, name="backbone")
    backbone.get_layer("stem").trainable = False
    backbone.get_layer("depth_bn").trainable = False
    pixels = keras.Input((40, 32, 3))
    x = layers.RandomFlip()(pixels)
    x = x / 127.5 - 1.0 if arithmetic else layers.Rescaling(1 / 127.5, -1)(x)
    x = backbone(x, training=False)
    both = [layers.GlobalAveragePooling2D()(x), layers.GlobalMaxPooling2D()(x)]
    x = layers.Concatenate()(both)
    x = layers.Dropout(0.4)(x)
    head = keras.Sequential([layers.Dense(16, activation="relu"), layers.BatchNormalization()])
    x = head(x)
    return shuffle_weights(keras.Model(pixels, layers.Dense(5)(x)))


def as_keras2(entry: dict[str, Any], channels: int = 3) -> dict[str, Any]:
    """Write a configuration of Keras 3 in the dialect of Keras 2."""
    entry = copy.deepcopy(entry)
    config = entry["config"]
    config["dtype"] = "float32"
    if "batch_shape" in config:
        config["batch_input_shape"] = config.pop("batch_shape")
        config["ragged"] = config["sparse"] = False
        config.pop("optional", None)
    for key, value in list(config.items()):
        if isinstance(value, dict) and "class_name" in value:
            config[key] = {"class_name": value["class_name"], "config": value["config"]}
    if entry["class_name"] == "BatchNormalization":
        config["axis"] = [channels]
        for key in ("renorm", "renorm_clipping", "renorm_momentum", "synchronized"):
            config.pop(key, None)
    if entry["class_name"] in ("DepthwiseConv2D", "SeparableConv2D"):
        config["groups"] = 1
        config["kernel_initializer"] = {"class_name": "GlorotUniform", "config": {"seed": None}}
    if entry["class_name"] == "LeakyReLU":
        config["alpha"] = config.pop("negative_slope")
    if "layers" in config:
        config.pop("dtype")
        config.pop("build_input_shape", None)
        kinds = {item["config"]["name"]: item["class_name"] for item in config["layers"]}
        stack, channels = config["layers"], 3
        for place, item in enumerate(stack):
            if item["class_name"] in ("Flatten", "Dense"):
                channels = 1
            stack[place] = as_keras2(item, channels)
        for item in stack:
            nodes = []
            for node in item.get("inbound_nodes", []):
                calls: list[Any] = []
                tensors = node["args"][0]
                for tensor in tensors if isinstance(tensors, list) else [tensors]:
                    name, _, place = tensor["config"]["keras_history"]
                    nested = kinds[name] in ("Functional", "Sequential")
                    calls.append([name, 1 if nested else 0, place, {}])
                nodes.append(calls)
            if "inbound_nodes" in item:
                item["inbound_nodes"] = nodes
        for key in ("input_layers", "output_layers"):
            if key in config and isinstance(config[key][0], str):
                config[key] = [config[key]]
    return entry


def into_keras2(path: Path) -> None:
    """Rewrite the architecture in an .h5 file as Keras 2 would have written it."""
    with h5py.File(path, "r+") as file:
        config = as_keras2(json.loads(file.attrs["model_config"]))
        file.attrs["model_config"] = json.dumps(config).encode()
        file.attrs["keras_version"] = b"2.10.0"


def convert_here(
    path: Path, folder: Path, scale: float = 1.0, offset: float = 0.0
) -> tuple[dict[str, Any], bytes]:
    """Do the child's work in this process, without its limits, to save its start."""
    (folder / "foreign").write_bytes(path.read_bytes())
    report = child.convert(folder, [scale], [offset])
    return report, (folder / "model.onnx").read_bytes()


def run(data: bytes, pixels: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["features"], {"pixels": pixels})[0])


def inspect(data: bytes, folder: Path) -> tuple[Path, str, int]:
    """Only the child's first part, before TensorFlow is imported."""
    (folder / "foreign").write_bytes(data)
    return (child.open_archive if data[:2] == b"PK" else child.open_h5)(folder)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A small sound model: its .keras and .h5 bytes and its configuration."""
    folder = tmp_path_factory.mktemp("small")
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.Conv2D(2, 3, activation="relu", name="conv"),
            layers.Flatten(name="flat"),
            layers.Dense(5, activation="softmax", name="last"),
        ],
        name="small",
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(np.zeros((2, 16, 16, 3)), np.array([0, 1]), verbose=0)
    model.save(folder / "m.keras")
    model.save(folder / "m.h5")
    with zipfile.ZipFile(folder / "m.keras") as archive:
        config = json.loads(archive.read("config.json"))
    return {
        "keras": (folder / "m.keras").read_bytes(),
        "h5": (folder / "m.h5").read_bytes(),
        "config": config,
    }


# --- what works ------------------------------------------------------------------------------


def test_the_published_network_in_both_formats(tmp_path: Path) -> None:
    model = published_cnn(96)
    pixels = example_pixels((96, 96), count=2) / np.float32(255)
    expected = model.predict(pixels, verbose=0)
    for form in ("m.keras", "m.h5", "keras2.h5"):
        model.save(tmp_path / form)
        if form == "keras2.h5":
            into_keras2(tmp_path / form)
        report, data = convert_here(tmp_path / form, tmp_path, 1 / 255)
        version = "2.10.0" if form == "keras2.h5" else keras.__version__
        counted = {"parameters": model.count_params()}
        assert report == {"format": form.split(".")[1], "version": version, **counted}
        np.testing.assert_allclose(run(data, pixels), expected, atol=1e-5)


@pytest.mark.parametrize("form", ["m.keras", "m.h5", "keras2.h5"])
def test_nested_frozen_backbones_and_arithmetic(tmp_path: Path, form: str) -> None:
    model = transfer_model(arithmetic=form == "m.keras")
    path = tmp_path / form
    model.save(path)
    if form == "keras2.h5":
        into_keras2(path)
    _, data = convert_here(path, tmp_path)
    pixels = example_pixels((40, 32), count=3)
    expected = np.asarray(model(pixels, training=False))
    np.testing.assert_allclose(run(data, pixels), expected, rtol=1e-4, atol=1e-4)


def test_norms_shared_layers_and_mixed_precision(tmp_path: Path) -> None:
    pixels = keras.Input((16, 16, 3))
    normal = layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 5.0, 6.0])
    x = layers.Conv2D(6, 3, name="conv", dtype="mixed_float16")(normal(pixels))
    x = layers.Resizing(12, 12)(layers.RandomZoom(0.5)(x))
    shared = layers.Conv2D(6, 1, name="shared", activation="swish")
    x = shared(shared(x))
    x = layers.GroupNormalization(groups=3, name="groups")(x)
    x = layers.LayerNormalization(name="layer")(x)
    x = layers.PReLU(shared_axes=[1, 2])(layers.UpSampling2D(2)(x))
    x = layers.GlobalMaxPooling2D()(x)
    model = shuffle_weights(keras.Model(pixels, layers.Dense(5, activation="softmax")(x)))
    model.save(tmp_path / "m.keras")
    _, data = convert_here(tmp_path / "m.keras", tmp_path)
    samples = example_pixels((16, 16), count=3)
    expected = model.predict(samples, verbose=0)
    np.testing.assert_allclose(run(data, samples), expected, atol=5e-3)  # half floats there
    assert np.ptp(expected, axis=0).max() > 0.01


def test_arithmetic_that_keras_cannot_read_from_its_own_h5(tmp_path: Path) -> None:
    transfer_model().save(tmp_path / "m.h5")
    (tmp_path / "job.json").write_text(json.dumps(
        {"scale": [1], "offset": [0], "limits": {}}))  # fmt: skip
    (tmp_path / "m.h5").rename(tmp_path / "foreign")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(child, "confine", lambda *_: [])  # this process is still needed
        child.main(str(tmp_path))
    sentence = json.loads((tmp_path / "result.json").read_text())["sentence"]
    assert sentence.startswith("This Keras cannot rebuild the network (ValueError: Unknown layer")
    assert sentence.endswith("Save it again with Keras 3 as .keras, or export it to ONNX.")


# --- what is refused before anything is built ------------------------------------------------


def edited(config: dict[str, Any], change: Callable[[list[dict[str, Any]]], None]) -> Any:
    config = copy.deepcopy(config)
    change(config["config"]["layers"])
    return config


def insert(**entry: Any) -> Callable[[list[dict[str, Any]]], None]:
    """Put a foreign layer before the last one."""
    whole = {"module": "keras.layers", "config": {"name": "odd"}, "registered_name": None} | entry
    return lambda stack: stack.insert(-1, whole)


def setting(place: int, key: str, value: Any) -> Callable[[list[dict[str, Any]]], None]:
    return lambda stack: stack[place]["config"].__setitem__(key, value)


REFUSED: list[tuple[Callable[[list[dict[str, Any]]], None], str]] = [
    (insert(class_name="Lambda"), "The layer 'odd' is a Lambda, which carries code"),
    (insert(class_name="TFSMLayer", config={"name": "odd", "filepath": "/x"}), "is a TFSMLayer"),
    (insert(class_name="TorchModuleWrapper"), "is a TorchModuleWrapper, which carries code"),
    (insert(class_name="TFOpLambda"), "is a TFOpLambda, which carries code or calls it"),
    (insert(class_name="Dense", module="evil.layers"), "'Dense' of 'evil.layers', which is not"),
    (insert(class_name="Dense", module="keras_evil"), "'Dense' of 'keras_evil'"),
    (insert(class_name="Dense", registered_name="pack>Dense"), "'Dense' of 'pack>Dense'"),
    (insert(class_name="pack>Thing", module=None), "'pack>Thing'"),
    (insert(class_name="Mine", module=None, registered_name="Custom>Mine"), "'Mine'"),
    (insert(class_name="Conv3D"), "not on the list"),
    (insert(class_name="os.system"), "not on the list"),
    (insert(class_name=["Dense"]), "not on the list"),
    (insert(class_name="TimeDistributed"), "not on the list"),
    (lambda stack: stack.append({"module": "os", "config": {}}), "'None' of 'os'"),
    (setting(1, "activation", "evil>run"), "activation 'evil>run'"),
    (
        setting(1, "activation", {"class_name": "__lambda__", "config": {"value": "x"}}),
        "'__lambda__'",
    ),
    (
        setting(1, "activation", {"module": "builtins", "class_name": "function",
                                  "config": "exec", "registered_name": "function"}),
        "activation 'exec'",
    ),
    (
        setting(1, "kernel_initializer", {"module": "os", "class_name": "system", "config": {}}),
        "'system' of 'os'",
    ),
    (setting(1, "kernel_regularizer", {"class_name": "Spy", "config": {}}), "'Spy'"),
    (
        setting(1, "dtype", {"module": "keras", "class_name": "QuantizedDTypePolicy",
                             "config": {"mode": "int8"}}),
        "'QuantizedDTypePolicy'",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("change", "sentence"), REFUSED)
def test_configurations_with_more_than_keras_layers(
    small: dict[str, Any],
    tmp_path: Path,
    change: Callable[[list[dict[str, Any]]], None],
    sentence: str,
) -> None:
    config = edited(small["config"], change)
    members = {**members_of(small["keras"]), "config.json": json.dumps(config).encode()}
    with pytest.raises(BundleError, match=sentence):
        inspect(archive_of(members), tmp_path)
    text = json.dumps(config)
    data = changed_h5(
        small["h5"], tmp_path, lambda file: file.attrs.__setitem__("model_config", text)
    )
    with pytest.raises(BundleError, match=sentence):
        inspect(data, tmp_path)


@pytest.mark.parametrize("kind", ["BatchNormalization", "Dropout"])
def test_layers_that_are_called_as_in_training(kind: str, tmp_path: Path) -> None:
    """A saved call with training=True makes an answer depend on its batch or on chance."""
    pixels = keras.Input((16, 16, 3))
    settings = {"rate": 0.5} if kind == "Dropout" else {}
    x = getattr(layers, kind)(name="odd", **settings)(pixels, training=True)
    inner = keras.Model(pixels, layers.GlobalAveragePooling2D()(x), name="inner")
    outer = keras.Input((16, 16, 3))
    model = keras.Model(outer, layers.Dense(5)(inner(outer)))
    samples = example_pixels((16, 16), count=3)
    alone, together = np.asarray(model(samples[:1])), np.asarray(model(samples))[:1]
    assert np.abs(alone - together).max() > 1e-3
    for form in ("m.keras", "m.h5"):
        model.save(tmp_path / form)
        with pytest.raises(BundleError, match="'odd' is called with training=True"):
            convert_here(tmp_path / form, tmp_path)
    old = [[["x", 0, 0, {"training": True}]]]
    with pytest.raises(BundleError, match="training=True"):
        child.check_config({"config": {"name": "a"}, "inbound_nodes": old}, "2.9")


def test_an_activation_that_had_another_meaning(tmp_path: Path) -> None:
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.Conv2D(4, 3, activation="hard_sigmoid"),
            layers.GlobalMaxPooling2D(),
            layers.Dense(5, activation="softmax"),
        ]
    )
    model.save(tmp_path / "m.h5")
    inspect((tmp_path / "m.h5").read_bytes(), tmp_path)
    for version in ("2.11.0", None):
        with h5py.File(tmp_path / "m.h5", "a") as file:
            del file.attrs["keras_version"]
            if version:
                file.attrs["keras_version"] = version
        with pytest.raises(BundleError, match=rf"hard_sigmoid of Keras {version or 'unknown'}"):
            inspect((tmp_path / "m.h5").read_bytes(), tmp_path)


def test_an_architecture_may_not_need_more_weights_than_the_file_has(
    small: dict[str, Any], tmp_path: Path
) -> None:
    for place, key, value in (
        (-1, "units", 2_000_000_000),
        (1, "filters", 10**6),
        (-1, "units", 6),
    ):
        config = edited(small["config"], setting(place, key, value))
        members = {**members_of(small["keras"]), "config.json": json.dumps(config).encode()}
        (tmp_path / "m.keras").write_bytes(archive_of(members))
        with pytest.raises(BundleError, match="needs more weights than the 2,021 that the file"):
            convert_here(tmp_path / "m.keras", tmp_path)
    config = edited(small["config"], setting(-1, "use_bias", False))
    members["config.json"] = json.dumps(config).encode()
    (tmp_path / "m.keras").write_bytes(archive_of(members))
    with pytest.raises((BundleError, ValueError), match=r"2,021|variables"):
        convert_here(tmp_path / "m.keras", tmp_path)
    assert not (tmp_path / "model.onnx").exists()


def test_weights_that_are_no_numbers_and_inputs_of_any_size(
    small: dict[str, Any], tmp_path: Path
) -> None:
    data = changed_h5(
        small["h5"],
        tmp_path,
        lambda file: file["model_weights/last/small/last/bias"].__setitem__(2, np.nan),
    )
    (tmp_path / "m.h5").write_bytes(data)
    with pytest.raises(TrainingError, match="not finite numbers"):
        convert_here(tmp_path / "m.h5", tmp_path)
    for shape in ((None, None, 3), (4096, 4096, 3)):
        free = keras.Sequential([keras.Input(shape), layers.GlobalMaxPooling2D(), layers.Dense(5)])
        free.save(tmp_path / "free.keras")
        with pytest.raises(BundleError, match="expected colour pictures of one size"):
            convert_here(tmp_path / "free.keras", tmp_path)


def archive_of(members: dict[str, bytes], *, packed: bool = False) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(
        buffer, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    ) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def members_of(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def changed_h5(data: bytes, folder: Path, change: Callable[[Any], None]) -> bytes:
    path = folder / "changed.h5"
    path.write_bytes(data)
    with h5py.File(path, "r+") as file:
        change(file)
    return path.read_bytes()


def test_archives_that_explode_or_lack(small: dict[str, Any], tmp_path: Path) -> None:
    members = members_of(small["keras"])
    cases = [
        (archive_of({**members, "model.weights.h5": bytes(8 * 2**20)}, packed=True), "would unp"),
        (archive_of({**members, "config.json": bytes(33 * 2**20)}), "would unpack to 34,603,008"),
        (archive_of({"config.json": members["config.json"]}), "lacks model.weights.h5"),
        (archive_of({**members, "config.json": b"[" * 200_000}), "config.json is damaged"),
        (archive_of({**members, "config.json": b'{"a": NaN}'}), "NaN is no JSON"),
        (archive_of({**members, "model.weights.h5": b"no"}), "HDF5 part cannot be read"),
        (small["keras"][:-30], "damaged or cut short"),
        (small["keras"][: len(small["keras"]) // 2], "damaged or cut short"),
    ]
    for data, sentence in cases:
        with pytest.raises(BundleError, match=sentence):
            inspect(data, tmp_path)
    # What Keras does not need is never unpacked, wherever it points.
    more = {**members, "../../escape.txt": b"x", "assets/bomb": bytes(2**20)}
    path, _, stored = inspect(archive_of(more, packed=True), tmp_path)
    assert stored == 2021
    assert zipfile.ZipFile(path).namelist() == ["metadata.json", "config.json", "model.weights.h5"]
    assert not (tmp_path.parent.parent / "escape.txt").exists()


def test_hdf5_files_that_point_elsewhere_lie_or_break(
    small: dict[str, Any], tmp_path: Path
) -> None:
    other = tmp_path / "secret.h5"
    with h5py.File(other, "w") as file:
        file["bias"] = np.zeros(5, np.float32)
    place = "model_weights/last/small/last/bias"

    def replace(make: Callable[[Any], None]) -> Callable[[Any], None]:
        def change(file: Any) -> None:
            del file[place]
            make(file)

        return change

    def virtual(file: Any) -> None:
        layout = h5py.VirtualLayout((5,), np.float32)
        layout[:] = h5py.VirtualSource(str(other), "bias", (5,))
        file.create_virtual_dataset(place, layout)

    external = [(str(other), 0, 20)]
    cases: list[tuple[Callable[[Any], None], str]] = [
        (
            replace(lambda f: f.__setitem__(place, h5py.ExternalLink(str(other), "bias"))),
            "ExternalLink",
        ),
        (replace(lambda f: f.__setitem__(place, h5py.SoftLink("/model_weights"))), "SoftLink"),
        (
            replace(lambda f: f.create_dataset(place, (5,), "f4", external=external)),
            "lies in another file",
        ),
        (replace(virtual), "lies in another file"),
        (
            replace(lambda f: f.create_dataset(place, (10**8,), "f4", chunks=(10**6,))),
            "claims 400,000,000 bytes",
        ),
        (replace(lambda f: f.create_dataset(place, data="text")), "no plain numbers"),
        (lambda f: f["model_weights"].__setitem__("loop", f["model_weights"]), "tangled"),
        (lambda f: f.attrs.__delitem__("model_config"), "weights but no architecture"),
        (lambda f: f.attrs.__setitem__("model_config", "{"), "model_config is damaged"),
    ]
    for change, sentence in cases:
        with pytest.raises(BundleError, match=sentence):
            inspect(changed_h5(small["h5"], tmp_path, change), tmp_path)
    for part in (600, len(small["h5"]) // 2, len(small["h5"]) - 100):
        with pytest.raises(BundleError, match=r"damaged|no architecture"):
            inspect(small["h5"][:part], tmp_path)
    assert inspect(small["h5"], tmp_path)[2] == 2021


def test_mutated_files_give_one_sentence_and_nothing_else(
    small: dict[str, Any], tmp_path: Path
) -> None:
    rng = np.random.default_rng(11)
    for kind in ("keras", "h5"):
        for _ in range(40):
            data = bytearray(small[kind])
            for place in rng.integers(8, len(data), 6):
                data[place] = rng.integers(0, 256)
            sentence = ""
            try:
                inspect(bytes(data), tmp_path)
            except LeukoError as error:
                sentence = str(error)
            assert "\n" not in sentence
            assert not sentence or len(sentence) > 30


# --- the process -----------------------------------------------------------------------------


def test_what_the_child_may_not_do(tmp_path: Path) -> None:
    """Each of these is tried in a confined process; the script prints what got through."""
    script = """
import ctypes, errno, os, pickle, socket, subprocess, sys
from pathlib import Path
from leuko.training.importing_child import confine
home = Path(sys.argv[1])
limits = confine(home, {"memory": 2**33, "cpu": 60, "file": 2**20})
outside = str(home.parent / "marker")
def connect_natively():
    if "network" in limits:
        libc = ctypes.CDLL(None, use_errno=True)
        address = b"\\2\\0\\0\\x09" + bytes([127, 0, 0, 1]) + bytes(8)
        libc.connect(libc.socket(2, 1, 0), address, 16)
        assert ctypes.get_errno() == errno.ENETUNREACH, ctypes.get_errno()
    raise PermissionError
tries = {
    "system": lambda: os.system("true"),
    "popen": lambda: subprocess.run(["true"]),
    "fork": lambda: os.fork(),
    "native": connect_natively,
    "connect": lambda: socket.socket().connect(("127.0.0.1", 9)),
    "resolve": lambda: socket.getaddrinfo("localhost", 80),
    "write": lambda: open(outside, "w"),
    "up": lambda: open(home / ".." / "marker", "w"),
    "remove": lambda: os.remove(outside + "2"),
    "rename": lambda: os.rename(home / "a", outside),
    "link": lambda: os.symlink("/", outside),
    "pickle": lambda: pickle.loads(pickle.dumps(Path)),
}
(home / "a").write_text("inside works")
for name, action in tries.items():
    try:
        action()
        print("got through:", name)
    except PermissionError:
        pass
try:
    with open(home / "big", "wb") as file:
        file.write(bytes(2**21))
    print("got through: size")
except OSError:
    pass
print("done")
"""
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "marker2").write_text("stays")
    done = subprocess.run(
        [sys.executable, "-c", script, str(home)], capture_output=True, text=True, check=False
    )
    expected = "done\n" if sys.platform != "win32" else "got through: size\ndone\n"
    assert done.stdout == expected, done.stderr
    assert (home / "a").read_text() == "inside works"
    assert (tmp_path / "marker2").exists()
    assert not (tmp_path / "marker").exists()
