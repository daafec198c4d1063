"""A second last layer, of numbers measured on the cell: fitted, kept in a bundle, explained."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from five import CLASSES
from leuko.bundle import MeasuredLayer, ModelBundle
from leuko.cells.morphometry import MEASURES
from leuko.data.reading import read_folder
from leuko.data.synth import draw_cell, draw_slide_style
from leuko.errors import AdaptError, BundleError, UsageError
from leuko.formats.export import ExportRequest, export_model
from leuko.history import TrustTargets
from leuko.imaging.decode import decode_image, encode_png
from leuko.imaging.preprocess import PreprocessSpec
from leuko.runtime.adapt.adapt import Adaptation, adapt
from leuko.runtime.adapt.last_layer import Cells, Head, fit_head
from leuko.runtime.classifier import OnnxClassifier, make_goldens
from leuko.runtime.explain import Explainer
from leuko.runtime.network.average import average_views, softmax
from leuko.runtime.trust.calibrate import TrustSettings, fit_trust, without_trust
from leuko.source import file_source
from leuko.statistics import log_loss
from leuko.support.artifacts import digest_json, json_text
from tiny import make_pooled_onnx

pytestmark = pytest.mark.slow

SPEC = PreprocessSpec((64, 64), view="cell", width=20.0, styles=("plain", "flat"))


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn cells of one microscope in class folders, and labels of 60 of them."""
    root = tmp_path_factory.mktemp("laboratory")
    style = draw_slide_style(np.random.default_rng(17))
    rows = [["path", "label"]]
    for name in CLASSES:
        (root / name).mkdir()
        for number in range(18):
            rng = np.random.default_rng([3, CLASSES.index(name), number])
            file = root / name / f"{number}.png"
            file.write_bytes(encode_png(draw_cell(name, rng, style).pixels))
            if number < 12:
                rows.append([f"{name}/{number}.png", name])
    with (root / "few.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return root


@pytest.fixture(scope="module")
def blind() -> ModelBundle:
    """The tiny network, which takes the nearest mean colour, on views of the cell."""
    onnx = make_pooled_onnx(side=64)
    return ModelBundle("tiny", onnx, SPEC, "# Tiny\n", make_goldens(onnx, SPEC), 20)


@pytest.fixture(scope="module")
def fitted(blind: ModelBundle, laboratory: Path) -> Adaptation:
    return adapt(blind, [str(laboratory)], labels=laboratory / "few.csv", threads=2)


def right(bundle: ModelBundle, laboratory: Path) -> float:
    """Accuracy on the cells without a label."""
    files = [laboratory / name / f"{number}.png" for name in CLASSES for number in range(12, 18)]
    table = OnnxClassifier(bundle, threads=2).predict(files)
    return float((table.probabilities.argmax(axis=1) == np.repeat(np.arange(5), 6)).mean())


def test_measures_name_what_the_network_does_not_see(
    fitted: Adaptation, blind: ModelBundle, laboratory: Path
) -> None:
    network = adapt(
        blind, [str(laboratory)], labels=laboratory / "few.csv", measure=False, threads=2
    )
    labels = fitted.labels
    assert (labels.kind, network.labels.kind) == ("measured", "ridge")
    assert labels.log_loss.after < network.labels.log_loss.after
    assert fitted.bundle.measured is not None
    assert network.bundle.measured is None
    assert right(fitted.bundle, laboratory) >= 0.8
    assert right(fitted.bundle, laboratory) > right(network.bundle, laboratory) + 0.1
    assert "15 numbers measured on cells" in " ".join(fitted.sentences())


def test_the_answer_is_the_sum_of_both_layers(fitted: Adaptation, laboratory: Path) -> None:
    """Whichever way it is asked; with the layer taken out it is the network's alone."""
    bundle, file = fitted.bundle, laboratory / "Monocyte" / "13.png"
    classifier = OnnxClassifier(bundle, threads=1)
    pixels = decode_image(file.read_bytes()).pixels
    row = classifier.predict_one(file)
    assert classifier.predict_one(pixels).probabilities == row.probabilities
    assert classifier.predict([file]).rows[0].probabilities == row.probabilities
    raw = classifier.ask([pixels])[0]
    np.testing.assert_allclose(
        classifier.trust.calibrate(raw)[0], row.probabilities, atol=1e-6, rtol=0
    )
    observed = next(iter(classifier.observe([file_source(file)])))
    np.testing.assert_allclose(observed.probabilities, raw[0], atol=1e-12)
    bare = replace(
        bundle, measured=None, goldens=make_goldens(bundle.onnx, bundle.preprocess),
        calibration={"method": "none"},
    )  # fmt: skip
    alone = OnnxClassifier(bare, threads=1).ask([pixels])[0]
    added = np.log(raw) - np.log(alone)
    layer = bundle.measured
    assert layer is not None
    assert np.ptp(added) > 0.1
    from leuko.cells.texture import first_view

    wanted = layer.logits([first_view(pixels, bundle.preprocess).measures()])
    np.testing.assert_allclose(added - added.mean(), wanted - wanted.mean(), atol=1e-4, rtol=0)


def test_a_picture_without_a_cell_is_left_to_the_network(fitted: Adaptation) -> None:
    layer = fitted.bundle.measured
    assert layer is not None
    found = layer.logits([None, layer.middle + layer.spread])
    assert not found[0].any()
    np.testing.assert_allclose(found[1], layer.weights.sum(axis=0))
    assert layer.logits([]).shape == (0, 5)
    blank = np.full((80, 90, 3), 230, np.uint8)
    assert np.isfinite(OnnxClassifier(fitted.bundle).predict_one(blank).probabilities).all()


def test_cut_inputs_are_not_enough(fitted: Adaptation) -> None:
    with pytest.raises(UsageError, match="must be given pictures"):
        OnnxClassifier(fitted.bundle).predict_views(np.zeros((1, 64, 64, 3), np.uint8))


def test_a_bundle_keeps_its_layer(fitted: Adaptation, blind: ModelBundle, tmp_path: Path) -> None:
    bundle = fitted.bundle
    assert bundle.digest != replace(bundle, measured=None).digest
    for name in ("b", "b.zip"):
        bundle.save(tmp_path / name)
        again = ModelBundle.load(tmp_path / name)
        assert again.members() == bundle.members()
        OnnxClassifier(again, threads=1)
    assert "measured" not in json.loads(blind.members()["bundle.json"])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"spread": [0.0] * 15}, "does not fit itself"),
        ({"middle": [0.0] * 14}, "does not fit itself"),
        ({"weights": [[0.0] * 4] * 15}, "does not fit itself"),
        ({"names": []}, "does not fit itself"),
        ({"weights": [[1e7] * 5] * 15}, "does not fit itself"),
        ({"middle": "x"}, "damaged"),
    ],
)
def test_a_damaged_layer_is_refused(
    change: dict, why: str, fitted: Adaptation, tmp_path: Path
) -> None:
    fitted.bundle.save(tmp_path / "b")
    place = tmp_path / "b" / "bundle.json"
    document = json.loads(place.read_text())
    document["measured"].update(change)
    del document["seal"]
    document["seal"] = digest_json(document)
    place.write_text(json_text(document))
    with pytest.raises(BundleError, match=why):
        ModelBundle.load(tmp_path / "b")


def test_numbers_that_this_version_does_not_measure(fitted: Adaptation) -> None:
    layer = fitted.bundle.measured
    assert layer is not None
    other = MeasuredLayer(("girth", *layer.names[1:]), layer.middle, layer.spread, layer.weights)
    with pytest.raises(BundleError, match="numbers that this version of Leuko does not measure"):
        OnnxClassifier(replace(fitted.bundle, measured=other))
    centre = replace(fitted.bundle, preprocess=PreprocessSpec((64, 64)))
    with pytest.raises(BundleError, match="measures a cell that it does not find"):
        OnnxClassifier(centre)


def test_trust_is_fitted_to_the_whole_answer(fitted: Adaptation, laboratory: Path) -> None:
    wide = TrustTargets(accuracy=0.8, coverage=0.9, alarms=0.05)
    rows = read_folder(laboratory, ignore=("few.csv",))
    made = fit_trust(fitted.bundle, rows, TrustSettings(targets=wide), threads=2)
    assert made.measured is fitted.bundle.measured
    assert made.calibration["method"] == "temperature"
    assert right(made, laboratory) == right(fitted.bundle, laboratory)
    assert without_trust(made).measured is made.measured


def test_it_is_not_fitted_again_nor_exported(
    fitted: Adaptation, laboratory: Path, tmp_path: Path
) -> None:
    with pytest.raises(AdaptError, match="with all labels together"):
        adapt(fitted.bundle, labels=laboratory / "few.csv")
    fitted.bundle.save(tmp_path / "mine.zip")
    with pytest.raises(UsageError, match="--no-measure"):
        export_model(tmp_path / "mine.zip", tmp_path / "out.zip", ExportRequest(weights="float16"))


@pytest.mark.parametrize("method", ["class-activation map", "occlusion"])
def test_a_map_says_what_it_does_not_show(
    method: str, fitted: Adaptation, laboratory: Path
) -> None:
    classifier = OnnxClassifier(fitted.bundle, threads=1)
    explainer = Explainer(classifier, threads=2, method=method)
    pixels = decode_image((laboratory / "Neutrophil" / "14.png").read_bytes()).pixels
    found = explainer.explain(pixels)
    raw = classifier.ask([pixels])[0][0]
    np.testing.assert_allclose(found.probabilities, raw, atol=1e-5)
    logs = np.log(raw)
    place = CLASSES.index(found.label)
    assert found.evidence == pytest.approx(logs[place] - logs.mean(), abs=1e-3)
    assert found.measured != 0
    if method == "class-activation map":
        total = float(found.values.mean()) + found.bias + found.measured
        assert found.evidence == pytest.approx(total, abs=1e-3)


# The fit


def drawn(n: int, seed: int, classes: int = 5) -> tuple[np.ndarray, np.ndarray, list]:
    """Features that say little, and numbers of which the first five name the class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    numbers = rng.normal(0, 1, (n, len(MEASURES))) * 5 + 3
    numbers[:, :5] += 20 * np.eye(5)[labels]
    return rng.normal(0, 1, (n, 6)), labels, [*numbers]


HEAD = Head(np.random.default_rng(0).normal(0, 1, (6, 5)), np.zeros(5))


def answers(found: object, features: np.ndarray, numbers: list) -> np.ndarray:
    return softmax(found.head.logits(features) + found.layer.logits(numbers))


def test_the_fit_uses_what_the_numbers_say() -> None:
    features, labels, numbers = drawn(80, 1)
    found = fit_head(Cells(features, labels, measures=numbers), HEAD, temperature=0.7)
    assert found.kind == "measured"
    others, truth, theirs = drawn(400, 2)
    told = answers(found, others, theirs)
    assert (told.argmax(axis=1) == truth).mean() > 0.85
    before = softmax(HEAD.logits(others) / 0.7)
    assert log_loss(truth, told) < log_loss(truth, before) / 2
    # Numbers of another unit are the same numbers.
    scaled = [100 * one - 7 for one in numbers]
    again = fit_head(Cells(features, labels, measures=scaled), HEAD, temperature=0.7)
    np.testing.assert_allclose(
        answers(again, others, [100 * one - 7 for one in theirs]), told, atol=1e-8
    )


def test_cells_that_could_not_be_measured_are_fitted_too() -> None:
    features, labels, numbers = drawn(80, 3)
    some = [None if row % 9 == 0 else one for row, one in enumerate(numbers)]
    assert fit_head(Cells(features, labels, measures=some), HEAD).kind == "measured"
    none = fit_head(Cells(features, labels, measures=[None] * 80), HEAD)
    assert none.kind != "measured"
    assert none.layer is None


def test_a_class_without_a_label_gains_nothing_from_the_numbers() -> None:
    features, labels, numbers = drawn(80, 4, classes=4)
    found = fit_head(Cells(features, labels, measures=numbers), HEAD)
    assert found.kind == "measured"
    assert not found.layer.weights[:, 4].any()
    assert found.layer.weights[:, :4].any()


def test_where_few_were_measured_the_network_alone_is_fitted() -> None:
    features, labels, numbers = drawn(80, 5)
    some = [one if row < 40 else None for row, one in enumerate(numbers)]
    assert fit_head(Cells(features, labels, measures=some), HEAD).layer is None


def test_a_number_far_out_counts_for_no_more_than_the_fit_has_seen() -> None:
    layer = MeasuredLayer(("a", "b"), np.zeros(2), np.array([1.0, 1e-300]), np.ones((2, 5)))
    near, far = layer.logits([np.array([2.0, 1e-300]), np.array([500.0, 1e8])])
    np.testing.assert_array_equal(near, 3 * np.ones(5))
    np.testing.assert_array_equal(far, 4 * np.ones(5))


def test_a_class_that_the_network_rules_out_may_come_back() -> None:
    logits, added = np.array([[20.0, 0, -5, -5, -5]]), np.array([[-10.0, 12, 0, 0, 0]])
    found = average_views(softmax(logits), 1, added=added)
    np.testing.assert_allclose(found, softmax(logits + added), rtol=1e-6)
    both = average_views(softmax(np.repeat(logits, 2, axis=0)), 2, (3.0, 1.0), added)
    np.testing.assert_allclose(both, softmax(logits + added), rtol=1e-6)
