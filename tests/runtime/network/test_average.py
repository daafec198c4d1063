"""One answer out of several looks, and features and maps that still add up to it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from five import CLASSES
from leuko.cells.texture import views
from leuko.data.synth import draw_cell, draw_slide_style
from leuko.imaging.decode import encode_png
from leuko.runtime.classifier import OnnxClassifier, make_goldens
from leuko.runtime.explain import Explainer
from leuko.runtime.network.average import average_views, mean_views, over_views
from leuko.runtime.trust.calibrate import without_trust
from leuko.runtime.zoo import load


@pytest.fixture(scope="module")
def cells() -> list[np.ndarray]:
    """One drawn cell of each class."""
    pictures = []
    for number, name in enumerate(CLASSES):
        rng = np.random.default_rng([29, number])
        pictures.append(draw_cell(name, rng, draw_slide_style(rng)).pixels)
    return pictures


@pytest.fixture(scope="module")
def twice() -> OnnxClassifier:
    """The bundled network, which looks twice here, the second time with three times the weight."""
    bundle = without_trust(load("default", threads=1).bundle)
    spec = replace(bundle.preprocess, styles=("plain", "flat"), weights=(1.0, 3.0))
    made = replace(bundle, preprocess=spec, goldens=make_goldens(bundle.onnx, spec))
    return OnnxClassifier(made, threads=2, features=True)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities."""
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def test_averaging_probabilities_is_averaging_logits() -> None:
    logits = np.random.default_rng(0).normal(0, 2, (6, 5))
    weights = (1.0, 2.0, 0.5)
    wanted = softmax(np.average(logits.reshape(2, 3, 5), axis=1, weights=weights))
    np.testing.assert_allclose(average_views(softmax(logits), 3, weights), wanted, atol=1e-12)
    means = mean_views(logits, 3, weights)
    np.testing.assert_allclose(softmax(means), wanted, atol=1e-12)


def test_one_look_is_left_alone() -> None:
    values = np.random.default_rng(0).dirichlet(np.ones(5), 4)
    np.testing.assert_array_equal(average_views(values, 1), values)


def test_a_probability_of_nought_does_not_decide_alone() -> None:
    found = average_views(np.array([[1.0, 0, 0, 0, 0], [0.2] * 5]), 2)[0]
    assert found[0] > 0.99
    assert np.isfinite(np.log(found)).all()


def test_a_network_of_one_look_answers_for_several() -> None:
    rng = np.random.default_rng(4)
    table = rng.dirichlet(np.ones(5), 256)
    run = over_views(lambda inputs: table[inputs[:, 0, 0, 0]], (3.0, 1.0))
    inputs = rng.integers(0, 256, (7, 2, 4, 4, 3)).astype(np.uint8)
    first, second = (table[inputs[:, k, 0, 0, 0]] for k in (0, 1))
    wanted = softmax((3 * np.log(first) + np.log(second)) / 4)
    np.testing.assert_allclose(run(inputs), wanted, atol=1e-12)


def test_the_classifier_averages_what_it_says_of_each_look(twice, cells) -> None:
    stacks = np.stack([views(cell, twice.bundle.preprocess) for cell in cells])
    each = np.stack([twice.predict_views(stacks[:, k]) for k in (0, 1)])
    logs = np.log(np.maximum(each, 1e-7))
    wanted = softmax((logs[0] + 3 * logs[1]) / 4)
    found = twice.predict_views(stacks)
    np.testing.assert_allclose(found, wanted, atol=2e-4)
    files = [twice.predict_one(cell).probabilities for cell in cells]
    np.testing.assert_array_equal(found, np.array(files))


@pytest.mark.slow
def test_answers_depend_on_no_neighbour_and_on_no_thread(twice, cells, tmp_path) -> None:
    paths = []
    for number, cell in enumerate(cells):
        paths.append(tmp_path / f"{number}.png")
        paths[-1].write_bytes(encode_png(cell))
    together = [row.probabilities for row in twice.predict(paths).rows]
    alone = [OnnxClassifier(twice.bundle, threads=1).predict_one(p).probabilities for p in paths]
    assert together == alone


def test_features_and_maps_add_up_to_the_averaged_answer(twice, cells) -> None:
    explainer = Explainer(twice, threads=1)
    assert explainer.method == "class-activation map"
    for cell in cells:
        found = explainer.explain(cell)
        answer, features = (rows[0] for rows in twice.ask([cell]))
        np.testing.assert_allclose(found.probabilities, answer, atol=2e-6)
        assert features.shape == (1280,)
        assert float(found.values.mean()) + found.bias == pytest.approx(found.evidence, abs=1e-4)
        logs = np.log(answer)
        assert found.evidence == pytest.approx(logs.max() - logs.mean(), abs=5e-3)


@pytest.mark.slow
def test_covering_works_on_every_look(twice, cells) -> None:
    found = Explainer(twice, threads=1, method="occlusion").explain(cells[0])
    assert np.isfinite(found.values).all()
    assert found.values.std() > 0


@pytest.mark.slow
def test_the_bundle_keeps_its_styles(twice, tmp_path) -> None:
    twice.bundle.save(tmp_path / "twice.zip")
    opened = load(tmp_path / "twice.zip", threads=1)
    assert opened.bundle.preprocess == twice.bundle.preprocess
