"""``leuko export``: what is written, what is refused, and what the new bundle says of itself."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from five import CLASSES
from leuko.bundle import ModelBundle
from leuko.cells.texture import views
from leuko.data.synth import draw_cell, draw_slide_style
from leuko.errors import BundleError, DataError, LeukoError, OutputError, UsageError
from leuko.support.reporter import Reporter

pytest.importorskip("onnx", reason="needs the extra 'export'")

from convnet import make_convnet_bundle
from leuko.formats import export
from leuko.formats.export import ExportRequest, export_model
from leuko.formats.graph import open_session
from leuko.history import Change, Compared
from leuko.runtime.classifier import OnnxClassifier, make_goldens
from leuko.runtime.network.average import average_views
from leuko.runtime.trust.calibrate import without_trust
from leuko.runtime.trust.decide import Trust
from leuko.runtime.zoo import load
from leuko.workflows.evaluate import evaluate
from limited import with_limit
from tiny import SIDE, paint, write_dataset

pytestmark = pytest.mark.slow

PAINTED = np.stack([paint(name, seed=n, shape=(SIDE, SIDE)) for name in CLASSES for n in range(5)])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small convolutional network as a zip."""
    path = tmp_path_factory.mktemp("model") / "convnet.zip"
    make_convnet_bundle(width=70).save(path)
    return path


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve painted pictures of each class on three slides, and a file that is none."""
    folder = write_dataset(tmp_path_factory.mktemp("set") / "Test", each=12, slides=3)
    (folder / "Monocyte" / "95-8-1-1_99_1.jpg").write_bytes(b"no picture")
    return folder


def written(path: Path) -> ModelBundle:
    return ModelBundle.load(path)


def test_int8_with_labels(model: Path, labelled: Path, tmp_path: Path) -> None:
    said: list[str] = []
    done = export_model(
        model,
        tmp_path / "new" / "a.zip",
        ExportRequest(weights="int8", check=labelled),
        reporter=Reporter(say=said.append),
    )
    source, bundle = ModelBundle.load(model), written(tmp_path / "new" / "a.zip")
    assert done.path == tmp_path / "new" / "a.zip"
    assert (done.size, done.source_size) == (len(bundle.onnx), len(source.onnx))
    assert done.size < 0.5 * done.source_size
    assert done.digest == bundle.digest != source.digest
    assert bundle.name == "convnet-int8"
    variant = bundle.provenance["variant"]
    assert (variant["format"], variant["weights"]) == ("onnx", "int8")
    assert variant["source"]["digest"] == source.digest
    assert variant["source"]["validation"] == source.validation
    # A third of each class at most measures the ranges: 4 of 12; the rest is compared.
    check = variant["check"]
    assert 19 <= variant["calibration"]["n"] <= 20
    assert check["n"] + variant["calibration"]["n"] + check["rejected"] in (60, 61)
    assert check["classes"]["Basophil"] == 8
    assert check["balanced_accuracy"] == {"original": 1.0, "variant": 1.0}
    assert check["agreement"] == 1.0
    assert 0 < check["largest_difference"] < 0.2
    assert len(check["digest"]) == 64
    # Its figures are its own.
    assert bundle.validation["split"] == "check"
    assert bundle.validation["n"] == check["n"]
    assert bundle.validation["metrics"]["accuracy"]["value"] == 1.0
    assert np.trace(bundle.validation["confusion"]) == check["n"]
    assert "Balanced accuracy 1.0000, the original's 1.0000" in bundle.card
    assert "Takes the nearest colour." in bundle.card
    assert "Research use only" in bundle.card
    assert any("The rarest class has" in line for line in said)
    assert not np.array_equal(bundle.goldens.probabilities, source.goldens.probabilities)
    # And the runtime opens it and answers.
    row = load(done.path).predict_one(next((labelled / "Eosinophil").iterdir()))
    assert row.likeliest == "Eosinophil"


def test_the_same_call_gives_the_same_bytes(model: Path, labelled: Path, tmp_path: Path) -> None:
    for name in ("a.zip", "b.zip"):
        export_model(
            model,
            tmp_path / name,
            ExportRequest(weights="int8", check=labelled),
            workers=len(name) - 4,
        )
    export_model(model, tmp_path / "c.zip", ExportRequest(weights="int8", check=labelled, seed=1))
    first, second, third = ((tmp_path / n).read_bytes() for n in ("a.zip", "b.zip", "c.zip"))
    assert first == second
    assert first != third  # other pictures measured its ranges


def test_ranges_are_not_measured_on_what_is_checked(
    model: Path, labelled: Path, tmp_path: Path
) -> None:
    done = export_model(
        model, tmp_path / "a", ExportRequest(weights="int8", check=labelled, calibrate=labelled)
    )
    # The folder is given twice: the pictures with the same bytes are left out of the check.
    assert done.variant.calibration[0] + done.variant.check.n == 60


def test_a_variant_that_got_worse_is_refused(labelled: Path, tmp_path: Path) -> None:
    make_convnet_bundle(fragile=True).save(tmp_path / "fragile.zip")
    arguments: dict[str, Any] = {"weights": "int8", "check": labelled}
    with pytest.raises(
        BundleError,
        match=r"balanced accuracy of 0\.\d{4} on 4\d pictures where the original has 1\.0000; "
        r"more than 0\.3 points lower is refused\. Nothing was written\.",
    ):
        export_model(tmp_path / "fragile.zip", tmp_path / "out.zip", ExportRequest(**arguments))
    with pytest.raises(BundleError, match=r"gives \d\d\.\d\d% of 4\d pictures the original's"):
        export_model(
            tmp_path / "fragile.zip",
            tmp_path / "out.zip",
            ExportRequest(weights="int8", calibrate=labelled),
        )
    assert sorted(place.name for place in tmp_path.iterdir()) == ["fragile.zip"]


def test_int8_without_labels_is_judged_by_agreement(
    model: Path, labelled: Path, tmp_path: Path
) -> None:
    loose = tmp_path / "loose"
    loose.mkdir()
    for number, path in enumerate(sorted(labelled.rglob("*.jpg"))):
        (loose / f"{number:03d}.jpg").write_bytes(path.read_bytes())
    said: list[str] = []
    done = export_model(
        model,
        tmp_path / "a.zip",
        ExportRequest(weights="int8", calibrate=loose),
        reporter=Reporter(say=said.append),
    )
    assert said[0].endswith("pictures are drawn at random.")
    agreement = done.variant.agreement
    assert done.variant.check is None
    assert done.variant.calibration[0] + agreement.n + agreement.rejected in (60, 61)
    assert agreement.agreement == 1.0
    bundle = written(tmp_path / "a.zip")
    assert bundle.validation == {}  # nobody measured it
    assert "Its accuracy was not measured." in bundle.card


def test_too_few_pictures(model: Path, tmp_path: Path) -> None:
    few = write_dataset(tmp_path / "few", each=4)
    with pytest.raises(DataError, match=r"needs 10 pictures or more .* 20 were given and 5 could"):
        export_model(model, tmp_path / "a.zip", ExportRequest(weights="int8", check=few))
    some = write_dataset(tmp_path / "some", each=6)
    with pytest.raises(DataError, match="20 were given and 6 could be used"):
        export_model(
            model, tmp_path / "a.zip", ExportRequest(weights="int8", calibrate=few / "*" / "*.jpg")
        )
    export_model(model, tmp_path / "b.zip", ExportRequest(weights="int8", check=some))


def test_float16(model: Path, labelled: Path, tmp_path: Path) -> None:
    done = export_model(model, tmp_path / "a.zip", ExportRequest(weights="float16"))
    assert done.size < 0.7 * done.source_size
    assert done.variant.drawn.agreement == 1.0
    assert 0 < done.variant.drawn.largest_difference < 0.1
    bundle = written(tmp_path / "a.zip")
    assert (bundle.name, bundle.validation) == ("convnet-float16", {})
    assert "compared on drawn cells alone" in bundle.card
    checked = export_model(
        model, tmp_path / "b.zip", ExportRequest(weights="float16", check=labelled)
    )
    assert checked.variant.check.n == 60
    assert checked.variant.check.rejected == 1
    assert checked.variant.calibration is None


def test_float32_onnx_is_the_bundle_itself(model: Path, tmp_path: Path) -> None:
    done = export_model(model, tmp_path / "copy")
    assert done.digest == ModelBundle.load(model).digest
    assert written(tmp_path / "copy").members() == ModelBundle.load(model).members()


def test_calibration_and_limits_go_with_it(labelled: Path, tmp_path: Path) -> None:
    from leuko.data.reading import read_folder
    from leuko.runtime.trust.calibrate import fit_trust

    (labelled / "Monocyte" / "95-8-1-1_99_1.jpg").rename(tmp_path / "aside")
    try:
        trusted = fit_trust(make_convnet_bundle(), read_folder(labelled))
    finally:
        (tmp_path / "aside").rename(labelled / "Monocyte" / "95-8-1-1_99_1.jpg")
    assert trusted.calibration["method"] == "temperature"
    trusted.save(tmp_path / "trusted.zip")
    export_model(
        tmp_path / "trusted.zip", tmp_path / "a.zip", ExportRequest(weights="int8", check=labelled)
    )
    bundle = written(tmp_path / "a.zip")
    assert bundle.calibration == trusted.calibration
    assert bundle.thresholds == trusted.thresholds
    assert (bundle.space is None) == (trusted.space is None)
    assert "trust" not in bundle.validation
    raw = make_goldens(bundle.onnx, bundle.preprocess)
    expected = Trust.of(bundle).calibrate(raw.probabilities.astype(np.float64))
    np.testing.assert_allclose(bundle.goldens.probabilities, expected, atol=1e-5)
    load(tmp_path / "a.zip")


def test_what_is_judged_is_what_is_written(tmp_path: Path) -> None:
    """A bundle that answers the nearer half by its first look is judged doing so."""
    from leuko.data.reading import read_folder
    from leuko.imaging.decode import encode_png

    for number, name in enumerate(CLASSES * 5):
        rng = np.random.default_rng([32, number])
        path = tmp_path / "cells" / name / f"95-8-{number % 3}-1_{number}_1.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(draw_cell(name, rng, draw_slide_style(rng)).pixels))
    rows = read_folder(tmp_path / "cells")
    bundled = load("default").bundle
    distances = [row.distance for row in load("default").predict(rows.files()).rows]
    with_limit(bundled, float(np.median(distances))).save(tmp_path / "halved.zip")
    export_model(
        tmp_path / "halved.zip",
        tmp_path / "a.zip",
        ExportRequest(weights="float16", check=tmp_path / "cells"),
    )
    made = written(tmp_path / "a.zip")
    report = evaluate(OnnxClassifier(made), rows).to_dict()
    assert made.validation["confusion"] == report["confusion"]
    assert made.validation["metrics"] == report["metrics"]


def test_what_stands_in_the_way(model: Path, labelled: Path, tmp_path: Path) -> None:
    def refused(kind: type[LeukoError], match: str, out: Path, **settings: Any) -> None:
        source = settings.pop("source", model)
        with pytest.raises(kind, match=match):
            export_model(source, out, ExportRequest(**settings))

    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.txt").write_text("years")
    (tmp_path / "data.zip").write_bytes(b"something")
    refused(OutputError, "such as thesis.txt", tmp_path / "work")
    refused(OutputError, "such as thesis.txt", tmp_path / "work", form="litert")
    refused(OutputError, "no bundle", tmp_path / "data.zip")
    refused(OutputError, "is the model itself", model)
    refused(UsageError, "written as a folder", tmp_path / "a.zip", form="litert")
    refused(UsageError, "Unknown format 'tflite'", tmp_path / "a", form="tflite")
    refused(UsageError, "Unknown weights 'int4'", tmp_path / "a", weights="int4")
    refused(UsageError, "Give --check FOLDER", tmp_path / "a", weights="int8")
    refused(UsageError, "is for --int8", tmp_path / "a", calibrate=labelled)
    refused(BundleError, "There is no model", tmp_path / "a", source=tmp_path / "nothing.zip")
    refused(DataError, "does not exist", tmp_path / "a", weights="int8", check=tmp_path / "no")
    (tmp_path / "file").write_text("x")
    refused(OutputError, "a file stands where a folder is needed", tmp_path / "file" / "a.zip")
    refused(
        OutputError,
        "a folder stands where a file",
        tmp_path / "d.zip",
        source=folder(tmp_path, model),
    )
    export_model(model, tmp_path / "quarter.zip", ExportRequest(weights="int8", check=labelled))
    refused(UsageError, "is int8 already, and rounding twice", tmp_path / "a",
            source=tmp_path / "quarter.zip", weights="float16")  # fmt: skip
    assert (tmp_path / "work" / "thesis.txt").read_text() == "years"
    assert (tmp_path / "data.zip").read_bytes() == b"something"
    assert not (tmp_path / "a").exists()


def folder(tmp_path: Path, model: Path) -> Path:
    """Make a folder that is called as a zip, and give the model back."""
    (tmp_path / "d.zip").mkdir()
    return model


def test_an_older_export_is_replaced(model: Path, tmp_path: Path) -> None:
    for name in ("a.zip", "a", "a.zip", "a"):
        export_model(model, tmp_path / name)
    assert sorted(place.name for place in tmp_path.iterdir()) == ["a", "a.zip"]
    assert written(tmp_path / "a").digest == written(tmp_path / "a.zip").digest


def test_the_default_name(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert export_model(model, request=ExportRequest(weights="float16")).path == Path(
        "convnet-float16.zip"
    )
    assert written(tmp_path / "convnet-float16.zip").name == "convnet-float16"


def test_a_run_folder_stands_for_its_bundle(model: Path, tmp_path: Path) -> None:
    ModelBundle.load(model).save(tmp_path / "run" / "bundle")
    done = export_model(tmp_path / "run", tmp_path / "a.zip", ExportRequest(weights="float16"))
    assert done.variant.source_name == "convnet"
    with pytest.raises(OutputError, match="is the model itself"):
        export_model(
            tmp_path / "run", tmp_path / "run" / "bundle", ExportRequest(weights="float16")
        )


@pytest.mark.data
def test_the_bundled_model_keeps_its_accuracy(tmp_path: Path) -> None:
    """On real cells, int8 `default` gives what `default` gives; a few of each class, for time."""
    root = Path(os.environ.get("LEUKO_DATA", "no such folder")) / "raabin-wbc-288" / "Train"
    if not root.is_dir():
        pytest.skip("LEUKO_DATA does not point to a folder with raabin-wbc-288")
    small = tmp_path / "Train"
    for name in CLASSES:
        files = sorted((root / name).iterdir())
        (small / name).mkdir(parents=True)
        for path in files[:: max(1, len(files) // 15)][:15]:
            shutil.copy(path, small / name)
    done = export_model("default", tmp_path / "a.zip", ExportRequest(weights="int8", check=small))
    figures = done.variant.check.balanced_accuracy
    assert figures.before > 0.9
    assert figures.after >= figures.before - 0.003
    assert done.variant.check.agreement >= 0.95
    assert done.size < 0.3 * done.source_size


def test_json_stays_json(model: Path, labelled: Path, tmp_path: Path) -> None:
    done = export_model(model, tmp_path / "a.zip", ExportRequest(weights="int8", check=labelled))
    assert json.loads(json.dumps(done.variant.to_dict(), allow_nan=False)) == done.variant.to_dict()


def test_a_variant_is_judged_by_the_answers_that_its_original_gives(tmp_path: Path) -> None:
    """Several looks, one of them heavier: what is compared is their weighted mean."""
    bundle = without_trust(load("default", threads=1).bundle)
    spec = replace(bundle.preprocess, styles=("plain", "flat"), weights=(5.0, 1.0))
    made = replace(bundle, preprocess=spec, goldens=make_goldens(bundle.onnx, spec))
    made.save(tmp_path / "twice.zip")
    judged: list[Any] = []
    told = Compared(n=1, agreement=1.0, largest_difference=0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "compare_drawn", lambda pair: judged.append(pair) or told)
        export_model(
            tmp_path / "twice.zip", tmp_path / "half.zip", ExportRequest(weights="float16")
        )
    rng = np.random.default_rng(3)
    pixels = draw_cell("Monocyte", rng, draw_slide_style(rng)).pixels
    stack = views(pixels, spec)[None]
    wanted = OnnxClassifier(made, threads=1).predict_views(stack)
    np.testing.assert_allclose(judged[0].original(stack), wanted, atol=1e-5)
    np.testing.assert_allclose(judged[0].variant(stack), wanted, atol=5e-3)
    even = average_views(OnnxClassifier(made, threads=1).predict_views(stack[0]), 2)
    assert np.abs(even - wanted).max() > 1e-3


@pytest.mark.parametrize("weights", ["float32", "float16", "int8"])
def test_openvino_reads_a_bundles_network_itself(
    weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Imported as its maker meant it, it would report to him and write an identity."""
    monkeypatch.setitem(sys.modules, "openvino_telemetry", None)
    core = pytest.importorskip("openvino", reason="needs the extra 'dev'").Core()
    make_convnet_bundle(width=70).save(tmp_path / "m.zip")
    check = write_dataset(tmp_path / "Test", each=9) if weights == "int8" else None
    export_model(tmp_path / "m.zip", tmp_path / "out", ExportRequest(weights=weights, check=check))
    network, pixels = tmp_path / "out" / "model.onnx", PAINTED
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    answer = core.compile_model(core.read_model(network), "CPU", settings)
    received = answer([pixels.astype(np.float32)])[0]
    session = open_session(network.read_bytes())
    expected = np.asarray(session.run(None, {"pixels": pixels.astype(np.float32)})[0])
    assert np.ptp(expected, axis=0).max() > 0.05
    np.testing.assert_allclose(received, expected, atol=0.05 if weights == "int8" else 2e-5)


def test_a_model_of_16_bits_goes_on_and_one_of_8_does_not(tmp_path: Path) -> None:
    make_convnet_bundle(width=70).save(tmp_path / "m.zip")
    export_model(tmp_path / "m.zip", tmp_path / "half.zip", ExportRequest(weights="float16"))
    labelled = write_dataset(tmp_path / "Test", each=9)
    sizes = {}
    for weights in ("float32", "float16", "int8"):
        again = export_model(
            tmp_path / "half.zip",
            tmp_path / f"out-{weights}",
            ExportRequest(weights=weights, check=labelled),
        )
        assert again.variant.check.balanced_accuracy == Change(1.0, 1.0)
        sizes[weights] = again.size
    assert sizes["int8"] < sizes["float16"] == sizes["float32"]
    with pytest.raises(UsageError, match="is int8 already"):
        export_model(tmp_path / "out-int8", tmp_path / "b")
