"""LiteRT, by Keras's own exporter: the answers of ONNX Runtime, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from five import CLASSES
from leuko.bundle import ModelBundle
from leuko.errors import BundleError, OutputError, TrainingError, UsageError
from leuko.recipe import Recipe
from leuko.support.artifacts import digest_file

pytest.importorskip("onnx", reason="needs the extra 'export'")

from leuko.formats.export import ExportRequest, export_model
from leuko.formats.graph import open_session
from leuko.runtime.classifier import make_goldens
from leuko.training.litert import litert_runner, to_litert
from tiny import SIDE, paint, write_dataset

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZE = (SIDE, SIDE)


def painted(each: int, *, seed: int = 0) -> np.ndarray:
    return np.stack(
        [
            paint(name, seed=100 * seed + number, shape=SIZE)
            for name in CLASSES
            for number in range(each)
        ]
    )


def reference(data: bytes, pixels: np.ndarray) -> np.ndarray:
    return np.asarray(open_session(data).run(None, {"pixels": pixels.astype(np.float32)})[0])


@pytest.fixture(scope="module")
def run(tiny: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run folder has of a network with fresh weights: the Keras model and the bundle."""
    keras = pytest.importorskip("keras", reason="needs the extra 'train'")
    from leuko.training.to_onnx import export_onnx

    keras.utils.set_random_seed(3)
    pixels = keras.Input((*SIZE, 3))
    maps = keras.layers.Rescaling(1 / 127.5, -1)(pixels)
    for width, stride in ((16, 2), (24, 2)):
        maps = keras.layers.Conv2D(width, 3, stride, "same", use_bias=False)(maps)
        maps = keras.layers.BatchNormalization()(maps)
        maps = keras.layers.ReLU()(maps)
    mean = keras.layers.GlobalAveragePooling2D()(maps)
    model = keras.Model(pixels, keras.layers.Dense(5, "softmax")(mean))
    folder = tmp_path_factory.mktemp("run")
    model.save(folder / "model.keras")
    onnx, spec = export_onnx(model), replace(tiny.preprocess, size=SIZE, crop=1.0)
    ModelBundle(
        name="fresh",
        onnx=onnx,
        preprocess=spec,
        card="# Fresh\n",
        goldens=make_goldens(onnx, spec),
        parameters=model.count_params(),
        provenance={"recipe": "none"},
        validation={},
    ).save(folder / "bundle")
    return folder


def network_of(run: Path) -> bytes:
    return (run / "bundle" / "model.onnx").read_bytes()


def test_litert_answers_as_onnx_runtime_does(run: Path) -> None:
    pixels = painted(4)
    expected = reference(network_of(run), pixels)
    assert np.ptp(expected, axis=0).max() > 0.02
    whole = to_litert(run / "model.keras", SIZE)
    np.testing.assert_allclose(litert_runner(whole)(pixels), expected, atol=2e-5)
    half = to_litert(run / "model.keras", SIZE, weights="float16")
    np.testing.assert_allclose(litert_runner(half)(pixels), expected, atol=0.01)
    quarter = to_litert(run / "model.keras", SIZE, weights="int8", pixels=pixels)
    np.testing.assert_allclose(litert_runner(quarter)(pixels), expected, atol=0.05)
    assert len(half) < 0.75 * len(whole)
    assert len(quarter) < 0.75 * len(whole)
    with pytest.raises(TrainingError, match="needs pictures"):
        to_litert(run / "model.keras", SIZE, weights="int8")


def test_what_keras_cannot_read(tmp_path: Path, run: Path) -> None:
    (tmp_path / "model.keras").write_bytes(b"PK not really")
    with pytest.raises(TrainingError, match=r"Keras cannot write .*model\.keras as LiteRT: "):
        to_litert(tmp_path / "model.keras", SIZE)


def test_the_folder_tells_a_deployer_everything(run: Path, tmp_path: Path) -> None:
    labelled, out = write_dataset(tmp_path / "Test", each=9), tmp_path / "out"
    done = export_model(run, out, ExportRequest(form="litert", check=labelled))
    note = json.loads((out / "export.json").read_text())
    bundle = ModelBundle.load(run)
    assert note["schema"] == "leuko.export/1"
    assert "Research use only" in note["research_use"]
    assert note["classes"] == list(CLASSES)
    assert note["preprocess"] == bundle.preprocess.to_dict()
    assert note["input"]["shape"] == [1, *SIZE, 3]
    assert note["variant"]["source"]["digest"] == bundle.digest
    figures = note["variant"]["check"]["balanced_accuracy"]
    assert figures["original"] == figures["variant"]
    assert {*note["files"]} == {"model.tflite", "goldens.npz", "card.md"}
    for name, digest in note["files"].items():
        assert digest_file(out / name) == digest
    assert done.digest == note["files"]["model.tflite"]
    # The goldens are this network's own answers.
    arrays = np.load(out / "goldens.npz")
    inputs = np.stack([bundle.preprocess.apply(picture) for picture in arrays["pictures"]])
    runner = litert_runner((out / "model.tflite").read_bytes())
    np.testing.assert_allclose(runner(inputs), arrays["probabilities"], atol=1e-6)
    # Written again, it is replaced by the same; anything else in it is not.
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    export_model(run, out, ExportRequest(form="litert", check=labelled))
    assert {path.name: path.read_bytes() for path in out.iterdir()} == first
    (out / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"such as notes\.txt"):
        export_model(run, out, ExportRequest(form="litert"))


def test_litert_is_written_from_a_run_folder_alone(tmp_path: Path, run: Path) -> None:
    for model, name in (("default", "default"), (run / "bundle", "fresh")):
        with pytest.raises(UsageError, match=f"There is no LiteRT of {name}: it is written from"):
            export_model(model, tmp_path / "out", ExportRequest(form="litert"))


def test_another_network_than_the_bundles_is_not_written(tmp_path: Path, run: Path) -> None:
    import keras

    other = tmp_path / "run"
    shutil.copytree(run, other)
    model = keras.saving.load_model(other / "model.keras")
    weights, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([-3 * weights, bias + np.eye(5)[0] * 3])
    model.save(other / "model.keras")
    labelled = write_dataset(tmp_path / "Test", each=9)
    for check in (None, labelled):
        with pytest.raises(
            BundleError, match=r"litert (network|variant).*(Nothing was|nothing was) written"
        ):
            export_model(
                other,
                tmp_path / "out",
                ExportRequest(form="litert", check=check),
            )
    assert not (tmp_path / "out").exists()
