"""Models of any classes: everything that a bundle does, for schemes of 2, 5, 8 and 21."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the extra 'train'")

from leuko.bundle import Goldens, ModelBundle
from leuko.data.reading import read_folder
from leuko.errors import BundleError, DataError, UsageError
from leuko.history import TrustTargets
from leuko.imaging.decode import encode_png
from leuko.manifest import Manifest
from leuko.render.heat import heat_picture
from leuko.render.picture import prediction_picture, prediction_sheet
from leuko.runtime.adapt.adapt import adapt
from leuko.runtime.classifier import OnnxClassifier
from leuko.runtime.explain import Explainer
from leuko.runtime.trust.calibrate import TrustSettings, fit_trust
from leuko.runtime.trust.decide import class_limit
from leuko.scheme import ClassScheme, load_scheme, scheme_of
from tiny import SIDE, make_bundle, paint

SCHEMES = (
    scheme_of(["Sickle cell", "тень"]),
    load_scheme("differential-5"),
    load_scheme("pbc-8"),
    scheme_of([f"Class no. {number:02}" for number in range(21)]),
)


def painted(scheme: ClassScheme, name: str, seed: int = 0) -> np.ndarray:
    return paint(name, seed=seed, shape=(SIDE, SIDE), names=scheme.names)


def cells(folder: Path, scheme: ClassScheme, each: int) -> Manifest:
    """Class folders of pictures that the model knows, of two slides."""
    for name in scheme.names:
        (folder / name).mkdir(parents=True)
        for number in range(each):
            data = encode_png(painted(scheme, name, number))
            (folder / name / f"95-8-{number % 2 + 1}-1_{number}_1.png").write_bytes(data)
    return read_folder(folder, scheme=scheme)


@pytest.fixture(scope="module", params=SCHEMES, ids=lambda scheme: str(len(scheme)))
def scheme(request: pytest.FixtureRequest) -> ClassScheme:
    found = request.param
    assert isinstance(found, ClassScheme)
    return found


@pytest.fixture(scope="module")
def fitted(scheme: ClassScheme, tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    """With temperature, limits and feature space."""
    rows = cells(tmp_path_factory.mktemp("cells"), scheme, each=max(6, 120 // len(scheme)))
    targets = TrustTargets(accuracy=0.8, coverage=0.8, alarms=0.02)
    return fit_trust(make_bundle(scheme=scheme), rows, TrustSettings(targets=targets), threads=2)


def test_it_opens_as_it_was_written(fitted: ModelBundle, tmp_path: Path) -> None:
    fitted.save(tmp_path / "m.zip")
    opened = ModelBundle.load(tmp_path / "m.zip")
    assert opened.scheme == fitted.scheme
    assert opened.digest == fitted.digest
    OnnxClassifier(opened, threads=1)
    goldens = Goldens(fitted.goldens.pictures, fitted.goldens.probabilities[:, ::-1].copy())
    with pytest.raises(BundleError, match="does not answer as it did"):
        OnnxClassifier(replace(opened, goldens=goldens))
    more = scheme_of([*fitted.scheme.names, "one more"])
    with pytest.raises(BundleError, match=rf"the bundle promises .* and \[{len(more)}\]"):
        OnnxClassifier(replace(make_bundle(scheme=fitted.scheme), scheme=more))


def test_it_answers_decides_and_names_sets(fitted: ModelBundle, tmp_path: Path) -> None:
    scheme = fitted.scheme
    limits = {class_limit(name) for name in scheme.names}
    assert {name for name in fitted.thresholds if name.startswith("set_")} == limits
    classifier = OnnxClassifier(fitted, threads=2)
    rows = cells(tmp_path / "cells", scheme, each=1)
    table = classifier.predict([*rows.files(), tmp_path / "none.png"])
    assert table.scheme == scheme
    assert [row.label for row in table.predicted] == list(scheme.names)
    assert all(name in row.prediction_set for name, row in zip(scheme.names, table.predicted))
    assert table.probabilities.shape == (len(scheme), len(scheme))
    assert {*table.labels.values()} == {1}
    even = classifier.trust.judge(np.full(len(scheme), round(1 / len(scheme), 6)))
    assert (even.decision, even.reason) == ("unsure", "low-confidence")
    assert even.prediction_set[0] == scheme.names[0]
    assert classifier.predict_one(np.full((SIDE, SIDE, 3), 255, np.uint8)).decision != "class"


def test_it_is_explained_and_drawn(fitted: ModelBundle) -> None:
    scheme = fitted.scheme
    classifier = OnnxClassifier(fitted, threads=1)
    explainer = Explainer(classifier)
    drawn = []
    for place in (0, len(scheme) - 1):
        pixels, name = painted(scheme, scheme.names[place], 3), scheme.names[place]
        row, found = classifier.predict_one(pixels), explainer.explain(pixels, name)
        assert (found.label, len(found.probabilities)) == (name, len(scheme))
        assert found.evidence > 0
        colour = [int(scheme.classes[place].colour[at : at + 2], 16) for at in (1, 3, 5)]
        drawn.append((pixels, row))
        for picture in (
            heat_picture(pixels, row, found),
            prediction_picture(pixels, row),
            prediction_sheet(drawn),
        ):
            assert (picture == colour).all(axis=2).sum() > 100
    with pytest.raises(UsageError, match=f"one of {scheme.names[0]}, "):
        explainer.explain(pixels, "no class")


@pytest.mark.slow
def test_labels_move_the_last_layer(fitted: ModelBundle, tmp_path: Path) -> None:
    """Every class has the colour of the next one at this microscope."""
    scheme, names = fitted.scheme, fitted.scheme.names
    with (tmp_path / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label"])
        for number in range(max(24, 3 * len(scheme))):
            place = number % len(scheme)
            data = encode_png(painted(scheme, names[(place + 1) % len(scheme)], number))
            (tmp_path / f"{number}.png").write_bytes(data)
            rows.writerow([f"{number}.png", names[place]])
    adapted = adapt(fitted, labels=tmp_path / "labels.csv", measure=False, threads=2)
    assert [*adapted.labels.classes] == list(names)
    assert adapted.bundle.scheme == scheme
    row = OnnxClassifier(adapted.bundle, threads=1).predict_one(painted(scheme, names[1], 99))
    assert row.likeliest == names[0]


def test_labels_of_other_classes_are_refused(fitted: ModelBundle, tmp_path: Path) -> None:
    other = scheme_of(["this", "that"])
    with pytest.raises(DataError, match=r"labelled with this, that; tiny tells"):
        fit_trust(fitted, cells(tmp_path / "cells", other, each=2))
