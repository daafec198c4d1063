"""Looking again only where the first look lies far from training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from five import CLASSES
from leuko.cells.texture import views
from leuko.data.synth import draw_cell, draw_slide_style
from leuko.errors import BundleError
from leuko.history import Change, LabelsReport
from leuko.imaging.decode import encode_png
from leuko.runtime.adapt.adapt import _made
from leuko.runtime.adapt.labels import Refit
from leuko.runtime.adapt.last_layer import Head
from leuko.runtime.classifier import OnnxClassifier
from leuko.runtime.explain import Explainer
from leuko.runtime.network.wire import expose
from leuko.runtime.trust.calibrate import _fit_again, _Seen
from leuko.runtime.trust.decide import Trust
from leuko.runtime.zoo import load
from limited import with_limit


@pytest.fixture(scope="module")
def cells() -> list[np.ndarray]:
    """Three drawn cells of each class."""
    pictures = []
    for number, name in enumerate(CLASSES * 3):
        rng = np.random.default_rng([31, number])
        pictures.append(draw_cell(name, rng, draw_slide_style(rng)).pixels)
    return pictures


@pytest.fixture(scope="module")
def halved(cells: list[np.ndarray]) -> OnnxClassifier:
    """The bundled model, which looks again at the further half of the drawn cells."""
    classifier = load("default", threads=1)
    distances = [classifier.predict_one(cell).distance for cell in cells]
    return OnnxClassifier(with_limit(classifier.bundle, float(np.median(distances))), threads=2)


@pytest.mark.slow
def test_the_bundled_model_looks_again_at_a_part(cells: list[np.ndarray]) -> None:
    classifier = load("default", threads=1)
    assert "again" in classifier.trust.limits
    assert classifier.bundle.validation["trust"]["again"] < 0.5


@pytest.mark.slow
def test_near_pictures_are_answered_by_the_first_look_and_far_ones_by_all(
    halved: OnnxClassifier, cells: list[np.ndarray]
) -> None:
    spec, limit = halved.bundle.preprocess, halved.trust.limits["again"]
    rows = [halved.predict_one(cell) for cell in cells]
    far = [row.distance is None or row.distance > limit for row in rows]
    assert {*far} == {False, True}
    alone = replace(halved.bundle, preprocess=replace(spec, styles=("plain",), weights=()))
    first = OnnxClassifier(with_limit(alone, limit), threads=1)
    always = Trust(halved.trust.temperature, {"again": -1.0}, halved.trust.space)
    every = halved.trust.calibrate(halved.ask(cells, always)[0])
    for row, cell, again, whole in zip(rows, cells, far, every, strict=True):
        near = first.predict_one(cell)
        assert row.distance == near.distance  # of the first look, either way
        wanted = tuple(whole) if again else near.probabilities
        np.testing.assert_allclose(row.probabilities, wanted, atol=2e-6)
    stacks = np.stack([views(cell, spec) for cell in cells])
    np.testing.assert_array_equal(
        halved.predict_views(stacks), np.array([row.probabilities for row in rows])
    )


@pytest.mark.slow
def test_answers_depend_on_no_neighbour(
    halved: OnnxClassifier, cells: list[np.ndarray], tmp_path: Path
) -> None:
    paths = []
    for number, cell in enumerate(cells):
        paths.append(tmp_path / f"{number}.png")
        paths[-1].write_bytes(encode_png(cell))
    together = [row.probabilities for row in halved.predict(paths).rows]
    backwards = [row.probabilities for row in halved.predict(paths[::-1]).rows]
    assert together == backwards[::-1]
    assert together == [halved.predict_one(path).probabilities for path in paths]


@pytest.mark.slow
def test_maps_explain_the_answer_that_was_given(
    halved: OnnxClassifier, cells: list[np.ndarray]
) -> None:
    explainer = Explainer(halved, threads=1)
    for cell in cells:
        found = explainer.explain(cell)
        answer = halved.ask([cell])[0][0]
        np.testing.assert_allclose(found.probabilities, answer, atol=2e-6)
        assert float(found.values.mean()) + found.bias == pytest.approx(found.evidence, abs=1e-4)


@pytest.mark.slow
def test_a_bundle_that_looks_again_opens_again(halved: OnnxClassifier, tmp_path: Path) -> None:
    halved.bundle.save(tmp_path / "halved.zip")
    assert load(tmp_path / "halved.zip", threads=1).trust.limits == halved.trust.limits
    with pytest.raises(BundleError, match="a threshold for distances and no feature space"):
        OnnxClassifier(replace(halved.bundle, space=None, thresholds={"again": 1.0}))


def seen(far_is_better: bool) -> _Seen:
    """A hundred and twenty pictures of four slides; far ones are told by all looks, or by one."""
    rng = np.random.default_rng(7)
    labels = np.arange(120) % 5
    features = np.eye(8)[labels] + rng.normal(0, 0.05, (120, 8))
    features[::4] += rng.normal(0, 0.6, (30, 8))  # the far ones
    right = np.full((120, 5), 0.05)
    right[np.arange(120), labels] = 0.8
    wrong = np.roll(right, 1, axis=1)
    far = np.arange(120) % 4 == 0
    alone = np.where(far[:, None], wrong, right) if far_is_better else wrong
    observations = [
        Observed(first_probabilities=a, first_features=f.astype(np.float32))
        for a, f in zip(alone, features, strict=True)
    ]
    return _Seen(observations, right, features.astype(np.float32), labels, [""] * 120)


class Observed:
    """What the fit reads of an observation."""

    def __init__(self, **values: object) -> None:
        self.__dict__ |= values


def test_the_least_share_that_loses_no_answer_is_taken() -> None:
    groups = [f"slide {number // 5 % 4}" for number in range(120)]
    limits: dict[str, float] = {}
    before = seen(far_is_better=True)
    after, share = _fit_again(before, groups, limits, seed=0, axes=4)
    assert share == pytest.approx(0.3, abs=0.02)
    assert (after.probabilities.argmax(axis=1) == after.labels).all()
    assert (after.probabilities == [o.first_probabilities for o in before.observations]).any()
    limits.clear()
    before = seen(far_is_better=False)
    after, none = _fit_again(before, groups, limits, seed=0, axes=4)
    assert none is None
    assert after is before
    assert limits == {}


def test_one_look_is_no_choice() -> None:
    same = seen(far_is_better=True)
    same = replace(same, probabilities=np.stack([o.first_probabilities for o in same.observations]))
    limits: dict[str, float] = {}
    assert _fit_again(same, ["a", "b"] * 60, limits, seed=0, axes=4) == (same, None)
    assert limits == {}


@pytest.mark.slow
def test_what_is_fitted_to_a_microscope_always_looks_again(
    halved: OnnxClassifier, cells: list[np.ndarray]
) -> None:
    bundle = halved.bundle
    exposed, bias = expose(bundle.onnx, maps=False), np.array([0, 0, 0.5, 0, 0])
    assert exposed.weights is not None
    assert exposed.bias is not None
    head = Head(exposed.weights.astype(np.float64), exposed.bias + bias)
    same = Change(0.5, 0.5)
    facts = LabelsReport(
        n=4, classes={}, dealt="slides", slides=2, unseen=0, folds=2, repeats=4, kind="bias",
        strength=0.0, log_loss=same, accuracy=same, balanced_accuracy=same, low=0.5, high=0.5,
        calibrated=False, temperature=halved.trust.temperature,
    )  # fmt: skip
    fitted = Refit(head, None, facts, np.zeros((5, 5), np.int64), None)
    made = OnnxClassifier(_made(bundle, fitted), threads=1)
    assert made.trust.limits == {**halved.trust.limits, "again": -1.0}
    always = Trust(1.0, {"again": -1.0}, halved.trust.space)
    for cell in cells[:3]:
        before, after = (np.log(one.ask([cell], always)[0][0]) for one in (halved, made))
        gained = after - before
        np.testing.assert_allclose(gained - gained[0], bias, atol=2e-3)
        assert made.predict_one(cell).distance == halved.predict_one(cell).distance
