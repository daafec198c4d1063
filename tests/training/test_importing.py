"""Models from strangers: what works, what is refused, and that nothing of theirs is run."""

from __future__ import annotations

import copy
import io
import json
import pickle
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leuko.errors import BundleError, LeukoError, UsageError
from leuko.taxonomy import CLASSES

h5py = pytest.importorskip("h5py", reason="needs the extra 'train'")
keras = pytest.importorskip("keras", reason="needs the extra 'train'")
pytest.importorskip("tf2onnx", reason="needs the extra 'train'")

import onnxruntime  # noqa: E402

from leuko.training import importing_child  # noqa: E402
from leuko.training.export import INPUT_NAME, OUTPUT_NAME, example_pixels  # noqa: E402
from leuko.training.importing import import_keras, parse_scale, read_classes  # noqa: E402
from leuko.training.importing_layers import read_architecture  # noqa: E402

# Keras's own reading of TensorFlow variables; NumPy 2 warns about it.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

layers = keras.layers
ORDER = ("neut", "EOS", "monocytes", "LYMPH", "basophil")
# Where each of Basophil, Eosinophil, Lymphocyte, Monocyte, Neutrophil stands in ORDER.
TAKE = [4, 1, 3, 2, 0]


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


def transfer_model() -> Any:
    """A partly frozen nested backbone with arithmetic, a residual join, and a logits head."""
    inner = keras.Input((40, 32, 3))
    x = layers.Conv2D(6, 3, strides=2, padding="same", use_bias=False, name="stem")(inner)
    x = layers.BatchNormalization(name="stem_bn")(x)
    x = start = layers.ReLU(6.0)(x)
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depth")(x)
    x = layers.BatchNormalization(name="depth_bn")(x)
    x = layers.Conv2D(6, 1, name="project")(x)
    x = layers.Add(name="join")([start, x])
    x = layers.ZeroPadding2D(((0, 1), (1, 0)))(x)
    x = layers.MaxPooling2D(3, strides=2)(x)
    backbone = keras.Model(inner, x, name="backbone")
    backbone.get_layer("stem").trainable = False
    backbone.get_layer("depth_bn").trainable = False
    pixels = keras.Input((40, 32, 3))
    x = layers.RandomFlip()(pixels)
    x = x / 127.5 - 1.0
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
    if entry["class_name"] == "DepthwiseConv2D":
        config["groups"] = 1
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
                if len(node["args"]) > 1:
                    # What Keras 2 makes of arithmetic on a tensor.
                    function = {"TrueDivide": "math.truediv", "Subtract": "math.subtract"}
                    item["config"]["function"] = function[item["class_name"]]
                    item["class_name"] = "TFOpLambda"
                    calls[0][3] = {"y": node["args"][1], "name": None}
                    nodes[-1] = calls[0]
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


def run(data: bytes, pixels: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return np.asarray(session.run([OUTPUT_NAME], {INPUT_NAME: pixels})[0])


def convert_here(path: Path, folder: Path, scale: float = 1.0) -> tuple[dict[str, Any], bytes]:
    """Do the child's work in this process, without its limits, to save its start."""
    (folder / importing_child.FOREIGN).write_bytes(path.read_bytes())
    job = {"input_scale": scale, "class_order": TAKE, "outputs": 5}
    report = importing_child._convert(folder, job)
    return report, (folder / importing_child.MODEL).read_bytes()


def inspect(data: bytes, folder: Path) -> Any:
    """Only the child's first part, before TensorFlow is imported."""
    path = folder / importing_child.FOREIGN
    path.write_bytes(data)
    rebuild = importing_child._rebuild_archive if data[:2] == b"PK" else importing_child._rebuild_h5
    return rebuild(path, folder, {"outputs": 5})


@pytest.fixture(scope="module")
def published() -> Any:
    return published_cnn()


@pytest.fixture(scope="module")
def transfer() -> Any:
    return transfer_model()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A small sound model: its .keras and .h5 bytes and its two configurations."""
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


def test_published_format_through_the_confined_child(published: Any, tmp_path: Path) -> None:
    """Keras 2's .h5, 350 x 350, own Rescaling, pixels divided by 255 beforehand."""
    assert published.count_params() == 87_245
    path = tmp_path / "someone.h5"
    published.save(path)
    into_keras2(path)
    out = tmp_path / "model.onnx"
    result = import_keras(path, classes=ORDER, input_scale=parse_scale("1/255"), out=out)
    assert result["parameters"] == 87_245
    assert result["input_size"] == (350, 350)
    assert result["keras_version"] == "2.10.0"
    assert result["class_order"] == tuple(TAKE)
    assert result["model_classes"][0] == "Neutrophil"
    assert not result["softmax_added"]
    assert out.read_bytes() == result["onnx"]
    pixels = example_pixels((350, 350), count=4)
    expected = published.predict(pixels / np.float32(255), verbose=0)[:, TAKE]
    received = run(result["onnx"], pixels)
    np.testing.assert_allclose(received, expected, atol=1e-5)
    assert np.abs(received - expected[:, ::-1]).max() > 1e-2
    assert not list(tmp_path.glob("leuko-*"))


def test_published_network_in_the_new_format(published: Any, tmp_path: Path) -> None:
    published.save(tmp_path / "m.keras")
    report, data = convert_here(tmp_path / "m.keras", tmp_path, 1 / 255)
    assert (report["format"], report["parameters"]) == ("keras", 87_245)
    pixels = example_pixels((350, 350), count=2)
    expected = published.predict(pixels / np.float32(255), verbose=0)[:, TAKE]
    np.testing.assert_allclose(run(data, pixels), expected, atol=1e-5)


@pytest.mark.parametrize("form", ["m.keras", "m.h5", "keras2.h5"])
def test_nested_frozen_backbones_arithmetic_and_logits(
    transfer: Any, tmp_path: Path, form: str
) -> None:
    path = tmp_path / form
    transfer.save(path)
    if form == "keras2.h5":
        into_keras2(path)
    report, data = convert_here(path, tmp_path)
    assert report["softmax_added"]
    assert report["parameters"] == transfer.count_params()
    notes = " ".join(report["notes"])
    assert "softmax was added" in notes
    assert "only in training" in notes
    pixels = example_pixels((40, 32), count=3)
    raw = np.asarray(transfer(pixels, training=False), np.float64)[:, TAKE]
    expected = np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(run(data, pixels), expected, atol=1e-5)


def test_norms_over_each_picture_are_understood(tmp_path: Path) -> None:
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.Conv2D(6, 3, name="conv"),
            layers.GroupNormalization(groups=3, name="groups"),
            layers.GroupNormalization(groups=-1, scale=False, epsilon=0.01, name="instance"),
            layers.LayerNormalization(name="layer"),
            layers.GlobalMaxPooling2D(),
            layers.Dense(5, activation="softmax"),
        ]
    )
    shuffle_weights(model)
    model.save(tmp_path / "m.keras")
    report, data = convert_here(tmp_path / "m.keras", tmp_path)
    assert report["parameters"] == model.count_params()
    pixels = example_pixels((16, 16), count=3)
    expected = model.predict(pixels, verbose=0)[:, TAKE]
    np.testing.assert_allclose(run(data, pixels), expected, atol=1e-5)
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        config = json.loads(archive.read("config.json"))
    with pytest.raises(BundleError, match="groups = 4; expected -1 or a divisor of 6"):
        read_architecture(edited(config, setting(2, "groups", 4)), outputs=5)


def test_an_activation_that_had_another_meaning_is_refused(tmp_path: Path) -> None:
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.Conv2D(4, 3, activation="hard_sigmoid"),
            layers.GlobalMaxPooling2D(),
            layers.Dense(5, activation="softmax"),
        ]
    )
    model.save(tmp_path / "m.h5")
    convert_here(tmp_path / "m.h5", tmp_path)
    with h5py.File(tmp_path / "m.h5", "a") as file:
        file.attrs["keras_version"] = "2.11.0"
    with pytest.raises(BundleError, match=r"from Keras 2\.11\.0, where hard_sigmoid was"):
        convert_here(tmp_path / "m.h5", tmp_path)


def test_parameters_and_shapes_on_paper_equal_keras(transfer: Any) -> None:
    for model in (published_cnn(64), transfer):
        config = keras.saving.serialize_keras_object(model)
        found = read_architecture(json.loads(json.dumps(config)), outputs=5)
        assert found.parameters == model.count_params()
        assert found.size == model.input_shape[1:3]


@pytest.mark.parametrize(
    ("text", "value"), [("1", 1.0), ("1/255", 1 / 255), (" 0.5 ", 0.5), ("2e-3", 0.002)]
)
def test_scales_are_read(text: str, value: float) -> None:
    assert parse_scale(text) == value


@pytest.mark.parametrize("text", ["0", "-1", "1/0", "nan", "inf", "", "1/2/3", "__import__('os')"])
def test_other_scales_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="positive number or fraction"):
        parse_scale(text)


def test_classes_must_be_the_five_in_some_order() -> None:
    assert sorted(read_classes(ORDER)) == sorted(CLASSES)
    assert read_classes("2,1,3,4,5")[0] == "Lymphocyte"
    with pytest.raises(UsageError, match="each of"):
        read_classes(["neut", "neut", "eos", "mono", "baso"])
    with pytest.raises(UsageError, match="'platelet' is unknown"):
        read_classes(["platelet", "neut", "eos", "mono", "baso"])


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
    (insert(class_name="Lambda"), "'odd' is a Lambda, which carries code"),
    (insert(class_name="TFSMLayer"), "TFSMLayer, which carries code"),
    (insert(class_name="TorchModuleWrapper"), "carries code"),
    (insert(class_name="Dense", module="evil.layers"), "custom object .*evil.layers"),
    (insert(class_name="Dense", registered_name="pack>Dense"), "registered as 'pack>Dense'"),
    (insert(class_name="pack>Thing", module=None), "custom object"),
    (insert(class_name="Conv3D"), "not on the list"),
    (insert(class_name="os.system"), "not on the list"),
    (setting(1, "activation", "evil>run"), "activation = 'evil>run'"),
    (
        setting(1, "activation", {"class_name": "__lambda__", "config": {"value": "x"}}),
        "activation = '__lambda__'",
    ),
    (
        setting(1, "kernel_initializer", {"module": "os", "class_name": "system", "config": {}}),
        "custom object .*'os'",
    ),
    (setting(1, "kernel_initializer", "popen"), "not one of Keras's own"),
    (setting(1, "kernel_regularizer", {"class_name": "Spy", "config": {}}), "not one of Keras's"),
    (setting(1, "on_call", {"a": 1}), "setting 'on_call'"),
    (setting(-1, "units", 4), r"output of shape \(None, 4\)"),
    (setting(-1, "units", 1_000_000), "more than 200,000,000 parameters"),
    (setting(-1, "units", -5), "units = -5"),
    (setting(-1, "activation", "sigmoid"), "ends in 'sigmoid'"),
    (setting(0, "batch_shape", [None, 8, 8, 3]), "images of 8x8"),
    (setting(0, "batch_shape", [None, 4096, 4096, 3]), "4096x4096|values for one image"),
    (setting(0, "batch_shape", [None, None, None, 3]), "fixed height and width"),
    (setting(0, "batch_shape", [None, 64, 64, 1]), r"expected images"),
    (setting(1, "kernel_size", [40, 40]), "no pixels"),
    (setting(1, "dtype", "qint8"), "dtype 'qint8'"),
    (setting(1, "data_format", "channels_first"), "channels_last"),
    (insert(class_name="LayerNormalization", config={"name": "odd", "rms_scaling": True}), "rms"),
]


@pytest.mark.parametrize(("change", "sentence"), REFUSED)
def test_architectures_that_are_not_understood(
    small: dict[str, Any], change: Callable[[list[dict[str, Any]]], None], sentence: str
) -> None:
    assert read_architecture(small["config"], outputs=5).parameters == 56 + 14 * 14 * 2 * 5 + 5
    with pytest.raises(BundleError, match=sentence):
        read_architecture(edited(small["config"], change), outputs=5)


def test_graphs_that_loop_share_or_nest_without_end(small: dict[str, Any]) -> None:
    entry = small["config"]
    for _ in range(12):
        config = {"name": "s", "layers": [entry], "build_input_shape": [None, 16, 16, 3]}
        entry = {"class_name": "Sequential", "config": config}
    with pytest.raises(BundleError, match="nested more than"):
        read_architecture(entry, outputs=5)

    def node(name: str, source: str, calls: int = 1) -> dict[str, Any]:
        return {
            "class_name": "Activation",
            "name": name,
            "config": {"name": name, "activation": "softmax"},
            "inbound_nodes": [[[source, 0, 0, {}]]] * calls,
        }

    first = {
        "class_name": "InputLayer",
        "name": "i",
        "config": {"name": "i", "batch_input_shape": [None, 32, 32, 3]},
        "inbound_nodes": [],
    }
    graph = {"name": "g", "input_layers": [["i", 0, 0]], "output_layers": [["b", 0, 0]]}
    for stack, sentence in (
        ([first, node("a", "b"), node("b", "a")], "circle"),
        ([first, node("b", "i", calls=2)], "used 2 times"),
        ([first, node("b", "nobody")], "does not exist"),
    ):
        document = {"class_name": "Functional", "config": {**graph, "layers": stack}}
        with pytest.raises(BundleError, match=sentence):
            read_architecture(document, outputs=5)
    for document in (None, [], "x", {"class_name": 3}, {"class_name": "Functional"}):
        with pytest.raises(BundleError):
            read_architecture(document, outputs=5)


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


def test_archives_that_escape_explode_or_lack(small: dict[str, Any], tmp_path: Path) -> None:
    members = members_of(small["keras"])
    link = zipfile.ZipInfo("assets/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    buffer = io.BytesIO(small["keras"])
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    cases = [
        (archive_of({**members, "../../escape.txt": b"x"}), "points outside"),
        (archive_of({**members, "/absolute.txt": b"x"}), "points outside"),
        (archive_of({**members, "a\\..\\..\\b": b"x"}), "points outside"),
        (buffer.getvalue(), "has a link"),
        (archive_of({**members, "assets/bomb": bytes(8 * 2**20)}, packed=True), "would unpack"),
        (archive_of({**members, "config.json": bytes(33 * 2**20)}), "would unpack"),
        (archive_of({"config.json": members["config.json"]}), "lacks model.weights.h5"),
        (archive_of({**members, "config.json": b"[" * 200_000}), "config.json is damaged"),
        (archive_of({**members, "model.weights.h5": b"no"}), "HDF5 part cannot be read"),
        (small["keras"][:-30], "damaged or cut short"),
        (small["keras"][: len(small["keras"]) // 2], "damaged or cut short"),
    ]
    for data, sentence in cases:
        with pytest.raises(BundleError, match=sentence):
            inspect(data, tmp_path)
    assert not (tmp_path.parent.parent / "escape.txt").exists()
    assert inspect(small["keras"], tmp_path)[0].ending == "softmax"


def changed_h5(data: bytes, folder: Path, change: Callable[[Any], None]) -> bytes:
    path = folder / "changed.h5"
    path.write_bytes(data)
    with h5py.File(path, "r+") as file:
        change(file)
    return path.read_bytes()


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
        (replace(virtual), "made of other files"),
        (
            replace(lambda f: f.create_dataset(place, (10**8,), "f4", chunks=(10**6,))),
            "claims 400,000,000 bytes",
        ),
        (
            replace(lambda f: f.create_dataset(place, data=np.full(5, np.nan, np.float32))),
            "not finite",
        ),
        (
            replace(lambda f: f.create_dataset(place, data=np.full(5, 1e300))),
            "too large for float32",
        ),
        (replace(lambda f: f.create_dataset(place, data=np.zeros(6, "f4"))), "needs .* holds"),
        (replace(lambda f: f.create_dataset(place, data="text")), "no plain numbers"),
        (replace(lambda f: None), "are missing"),
        (lambda f: f["model_weights"].__setitem__("loop", f["model_weights"]), "tangled"),
        (lambda f: f.attrs.__delitem__("model_config"), "weights but no architecture"),
        (lambda f: f.attrs.__setitem__("model_config", "{"), "model_config is damaged"),
    ]
    for change, sentence in cases:
        with pytest.raises(BundleError, match=sentence):
            inspect(changed_h5(small["h5"], tmp_path, change), tmp_path)
    for part in (600, len(small["h5"]) // 2, len(small["h5"]) - 100):
        with pytest.raises(BundleError, match=r"damaged|missing|no architecture"):
            inspect(small["h5"][:part], tmp_path)
    assert inspect(small["h5"], tmp_path)[0].parameters == 2021


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


# --- the child -------------------------------------------------------------------------------


def test_a_lambda_layer_is_never_run(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    name = str(marker)
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.Lambda(lambda x: (open(name, "w").close(), x)[1], output_shape=(16, 16, 3)),
            layers.Flatten(),
            layers.Dense(5, activation="softmax"),
        ]
    )
    for form in ("m.keras", "m.h5"):
        path = tmp_path / form
        model.save(path)
        marker.unlink(missing_ok=True)  # building the model here has run it
        with pytest.raises(BundleError, match="Lambda, which carries code"):
            import_keras(path, classes=ORDER, input_scale=1.0)
        assert not marker.exists()


class _Payload:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (self.path, "w"))


def test_other_files_are_refused_without_a_child(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    path = tmp_path / "model.h5"
    path.write_bytes(pickle.dumps(_Payload(str(marker))))
    with pytest.raises(BundleError, match="neither an HDF5 file nor"):
        import_keras(path, classes=ORDER, input_scale=1.0)
    assert not marker.exists()
    path.write_bytes(b"")
    with pytest.raises(BundleError, match="neither an HDF5 file nor"):
        import_keras(path, classes=ORDER, input_scale=1.0)
    with pytest.raises(UsageError, match="does not exist"):
        import_keras(tmp_path / "none.h5", classes=ORDER, input_scale=1.0)
    with pytest.raises(UsageError, match="is a folder"):
        import_keras(tmp_path, classes=ORDER, input_scale=1.0)
    with pytest.raises(UsageError, match="input scale"):
        import_keras(path, classes=ORDER, input_scale=float("nan"))


def test_a_child_that_takes_too_long_or_too_much_is_ended(
    small: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "m.keras"
    path.write_bytes(small["keras"])
    with pytest.raises(BundleError, match=r"longer than 0\.02 seconds"):
        import_keras(path, classes=ORDER, input_scale=1.0, timeout=0.02)
    if sys.platform == "linux":
        with pytest.raises(BundleError, match=r"without a result|cannot be|memory"):
            import_keras(path, classes=ORDER, input_scale=1.0, memory=500 * 2**20)


def test_what_the_child_may_not_do(tmp_path: Path) -> None:
    """Each of these is tried in a confined process; the script prints what got through."""
    script = """
import os, pickle, socket, subprocess, sys
from pathlib import Path
from leuko.training.importing_child import confine
home = Path(sys.argv[1])
confine(home, {"memory": 2**33, "cpu": 60, "file": 2**20})
outside = str(home.parent / "marker")
tries = {
    "system": lambda: os.system("true"),
    "popen": lambda: subprocess.run(["true"]),
    "fork": lambda: os.fork(),
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
