"""Keras files through the confined child, as a process."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from five import CLASSES
from leuko.bundle import ModelBundle
from leuko.errors import BundleError, MissingExtraError
from leuko.formats import confined
from leuko.formats.confined import convert_keras
from leuko.formats.importing import ForeignPixels, import_bundle, read_pixels
from leuko.runtime.classifier import OnnxClassifier
from leuko.support.reporter import Reporter

keras = pytest.importorskip("keras", reason="needs the extra 'train'")
pytest.importorskip("tf2onnx", reason="needs the extra 'train'")

# Keras's own reading of TensorFlow variables; NumPy 2 warns about it.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

layers = keras.layers
PIXELS = ((1.0,), (0.0,))
ORDER = ("neut", "EOS", "monocytes", "LYMPH", "basophil")
TAKE = [4, 1, 3, 2, 0]
DRAWN = np.random.default_rng(0).integers(0, 256, (4, 24, 20, 3)).astype(np.uint8)


def network(*more: Any) -> Any:
    """A network of random weights that tells pictures apart."""
    keras.utils.set_random_seed(4)
    stack = [
        keras.Input((24, 20, 3)),
        *more,
        layers.Conv2D(8, 3, strides=2, activation="relu"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(5, kernel_initializer=keras.initializers.RandomNormal(stddev=3)),
    ]
    return keras.Sequential(stack)


def check_import(bundle: ModelBundle, model: Any, form: str, scaled: np.ndarray) -> None:
    """The bundle answers `DRAWN` as the model does the same pictures, scaled for it."""
    raw = np.asarray(model(scaled, training=False), np.float64)[:, TAKE]
    expected = np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(OnnxClassifier(bundle).predict_views(DRAWN), expected, atol=1e-4)
    source = bundle.provenance["imported"]
    assert source["source_format"] == form
    assert source["keras_version"] == keras.__version__
    assert source["softmax_added"]
    assert bundle.parameters == model.count_params()
    if sys.platform == "linux":
        assert {"memory", "cpu", "file"} < {*source["limits"]}


def test_an_h5_file_becomes_a_bundle(tmp_path: Path) -> None:
    model = network()
    model.save(tmp_path / "m.h5")
    pixels = read_pixels("1/127.5", "-1")
    bundle = import_bundle(tmp_path / "m.h5", classes=ORDER, pixels=pixels)
    check_import(bundle, model, "h5", DRAWN / np.float32(127.5) - 1)


def test_a_keras_file_with_a_rescaling_inside_becomes_a_bundle(tmp_path: Path) -> None:
    model = network(layers.Rescaling(1 / 255))
    model.save(tmp_path / "m.keras")
    said: list[str] = []
    bundle = import_bundle(
        tmp_path / "m.keras",
        classes=ORDER,
        pixels=ForeignPixels(),
        reporter=Reporter(say=said.append),
    )
    check_import(bundle, model, "keras", DRAWN.astype(np.float32))
    assert "The network scales pixels itself, so it is given 0 to 255: scale 1." in said
    assert bundle.provenance["imported"]["input_scale"] == [1.0]
    with pytest.raises(BundleError, match=r"contradicts the network.* Give --input-scale 1"):
        import_bundle(tmp_path / "m.keras", classes=ORDER, pixels=read_pixels("1/255"))


def test_a_lambda_layer_is_never_run(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    name = str(marker)
    model = network(layers.Lambda(lambda x: (open(name, "w").close(), x)[1]))
    for form in ("m.keras", "m.h5"):
        model.save(tmp_path / form)
        marker.unlink(missing_ok=True)  # building the model here has run it
        with pytest.raises(BundleError, match=r"^m\.\w+ cannot be imported\. .*Lambda, which carr"):
            import_bundle(tmp_path / form, classes=CLASSES, pixels=ForeignPixels((1.0,)))
        assert not marker.exists()


def test_a_child_that_takes_too_long_or_too_much_is_ended(tmp_path: Path) -> None:
    network().save(tmp_path / "m.keras")
    data = (tmp_path / "m.keras").read_bytes()
    with pytest.raises(BundleError, match=r"longer than 0\.02 seconds"):
        convert_keras(data, "m.keras", *PIXELS, timeout=0.02)
    if sys.platform == "linux":
        with pytest.raises(BundleError, match=r"gave no result|cannot be imported"):
            convert_keras(data, "m.keras", *PIXELS, memory=500 * 2**20)


def test_what_the_child_says_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    assert confined._read(tmp_path / "link", 100) is None
    assert confined._read(tmp_path / "secret", 5) is None
    assert confined._read(tmp_path / "none", 5) is None
    assert confined._read(tmp_path / "secret", 6) == b"secret"
    assert confined._plain("a\nb\x1b[31mc", 5) == "a b ["


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confined, "_PACKAGES", ("keras", "no_such_package"))
    with pytest.raises(MissingExtraError, match="no_such_package"):
        convert_keras(b"PK\x03\x04", "m.keras", *PIXELS)
