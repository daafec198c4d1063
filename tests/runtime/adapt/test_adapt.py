"""A bundle fitted to a laboratory, from images to a file that opens and answers."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import leuko
from five import CLASSES
from leuko.bundle import ModelBundle
from leuko.data.reading import read_folder
from leuko.errors import AdaptError, DataError, UsageError
from leuko.evaluation.counting.correction import design_effect
from leuko.history import TrustTargets
from leuko.imaging.decode import decode_image, encode_png
from leuko.runtime.adapt.adapt import Adaptation, adapt, fit_adaptation
from leuko.runtime.adapt.pictures import Picture, show, survey
from leuko.runtime.classifier import OnnxClassifier
from leuko.runtime.trust.calibrate import TrustSettings, fit_trust, without_trust
from leuko.runtime.trust.decide import Trust
from leuko.source import bytes_source, file_source
from leuko.support.reporter import Reporter
from tiny import COLOURS, SIDE, write_dataset

pytestmark = pytest.mark.slow

CAST = np.array([70, -35, -70.0])
"""What another camera adds to every pixel; the tiny model then takes classes for others."""


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of another camera."""
    root = tmp_path_factory.mktemp("laboratory")
    rng = np.random.default_rng(11)
    for label, name in enumerate(CLASSES):
        (root / name).mkdir()
        for number in range(20):
            pixels = COLOURS[label] + CAST + rng.normal(0, 8, 3) + rng.normal(0, 9, (SIDE, SIDE, 3))
            data = encode_png(np.clip(np.round(pixels), 0, 255).astype(np.uint8))
            (root / name / f"{number}.png").write_bytes(data)
    return root


@pytest.fixture(scope="module")
def few(laboratory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels of 60 of the cells, away from them; under names that people use."""
    table = tmp_path_factory.mktemp("table") / "few.csv"
    with table.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label"])
        for name in CLASSES:
            for number in range(12):
                rows.writerow([f"{name}/{number}.png", name.lower() + "s"])
    return table


@pytest.fixture(scope="module")
def trusting(tiny_bundle: ModelBundle, tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    """The tiny model with temperature, thresholds and a feature space."""
    rows = write_dataset(tmp_path_factory.mktemp("home"), each=30, slides=6, suffix=".png")
    wide = TrustTargets(accuracy=0.9, coverage=0.9, alarms=0.05)
    return fit_trust(tiny_bundle, read_folder(rows), TrustSettings(targets=wide), threads=2)


@pytest.fixture(scope="module")
def fitted(trusting: ModelBundle, laboratory: Path, few: Path) -> Adaptation:
    return adapt(trusting, [str(laboratory)], labels=few, seed=1, threads=2)


def accuracy(bundle: ModelBundle, folder: Path) -> float:
    rows = read_folder(folder)
    table = OnnxClassifier(bundle, threads=2).predict(rows.files())
    return float((table.probabilities.argmax(axis=1) == rows.labels).mean())


def test_labels_put_the_last_layer_right(
    fitted: Adaptation, trusting: ModelBundle, laboratory: Path
) -> None:
    before, after = accuracy(trusting, laboratory), accuracy(fitted.bundle, laboratory)
    assert before < 0.8
    assert after > 0.95
    labels = fitted.labels
    assert (labels.n, labels.kind, labels.calibrated) == (60, "ridge", True)
    assert labels.log_loss.after < labels.log_loss.before
    assert labels.accuracy.after > labels.accuracy.before
    assert fitted.to_dict()["schema"] == "leuko.adaptation/2"


def test_what_the_new_bundle_says_of_itself(
    fitted: Adaptation, trusting: ModelBundle, tmp_path: Path
) -> None:
    bundle = fitted.bundle
    for name in ("b", "b.zip"):
        bundle.save(tmp_path / name)
        again = ModelBundle.load(tmp_path / name)
        assert again.members() == bundle.members()
        OnnxClassifier(again, threads=1)  # goldens and distances are asked
    assert bundle.digest == fitted.to_dict()["digest"] != trusting.digest
    assert bundle.provenance["adapted_from"] == trusting.digest
    assert bundle.provenance["seed"] == 0
    assert bundle.provenance["adaptation"]["source"]["validation"] == trusting.validation
    assert bundle.provenance["adaptation"]["labels"] == fitted.labels.to_dict()
    assert bundle.thresholds == trusting.thresholds
    assert bundle.calibration["temperature"] == fitted.labels.temperature
    assert np.sum(bundle.validation["confusion"]) == 60
    assert bundle.validation["trust"] == trusting.validation["trust"]
    card = bundle.card
    assert card.index("## Adapted") < card.index("## Trust")
    assert "60 (12 Basophil, 12 Eosinophil" in card
    assert "fitted on another laboratory" in card


def test_the_same_seed_gives_the_same_bytes(
    fitted: Adaptation, trusting: ModelBundle, laboratory: Path, few: Path
) -> None:
    again = adapt(trusting, [str(laboratory)], labels=few, seed=1, threads=1)
    assert again.bundle.members() == fitted.bundle.members()
    assert again.to_dict() == fitted.to_dict()


def test_it_may_be_fitted_again(fitted: Adaptation, trusting: ModelBundle, few: Path) -> None:
    """To a third camera; what was there before either fit is not forgotten."""
    rng = np.random.default_rng(5)
    names = [row["path"] for row in csv.DictReader(few.read_text().splitlines())]
    named = []
    for name in names:
        label = CLASSES.index(name.partition("/")[0])
        pixels = COLOURS[label] - CAST / 2 + rng.normal(0, 9, (SIDE, SIDE, 3))
        data = encode_png(np.clip(np.round(pixels), 0, 255).astype(np.uint8))
        named.append((bytes_source(name, data), label))
    twice = fit_adaptation(fitted.bundle, named, threads=2).bundle
    assert twice.card.count("## Adapted") == 1
    adaptation = twice.provenance["adaptation"]
    assert adaptation["adapted_from"] == adaptation["source"]["digest"] == fitted.bundle.digest
    first = adaptation["source"]["adaptation"]
    assert first == fitted.bundle.provenance["adaptation"]
    assert first["source"]["validation"] == trusting.validation


def test_labels_that_teach_nothing_are_refused(trusting: ModelBundle, laboratory: Path) -> None:
    """Labels drawn at random of cells that the model knows: no gain, nothing to write."""
    files = read_folder(laboratory).files()
    shuffled = np.random.default_rng(0).permutation(np.arange(50) % 5)
    flat = replace(trusting, calibration={"method": "temperature", "temperature": 100.0})
    flat = replace(flat, goldens=_goldens(flat))
    named = [(file_source(file), int(label)) for file, label in zip(files[::2], shuffled)]
    with pytest.raises(AdaptError, match=r"Nothing fitted to these 50 labelled cells is better"):
        fit_adaptation(flat, named, threads=2)


def _goldens(bundle: ModelBundle) -> Any:
    plain = without_trust(bundle)
    answers = Trust.of(bundle).calibrate(OnnxClassifier(plain).ask(list(plain.goldens.pictures))[0])
    return replace(plain.goldens, probabilities=answers.astype(np.float32))


def test_below_fifty_labels_the_temperature_stays(trusting: ModelBundle, laboratory: Path) -> None:
    rows = read_folder(laboratory)
    named = [(file_source(f), int(y)) for f, y in zip(rows.files(), rows.labels)][::3]
    made = fit_adaptation(trusting, named, threads=2)
    assert made.labels.n == 34
    assert made.bundle.calibration == trusting.calibration
    assert accuracy(made.bundle, laboratory) > 0.9


@pytest.fixture(scope="module")
def of_slides(laboratory: Path, few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same labels, of six slides with two cells of each class."""
    table = tmp_path_factory.mktemp("table") / "slides.csv"
    rows = list(csv.DictReader(few.read_text().splitlines()))
    with table.open("w", newline="") as file:
        out = csv.DictWriter(file, ["path", "label", "slide"])
        out.writeheader()
        for number, row in enumerate(rows):
            out.writerow({**row, "slide": f"S{number % 6}"})
    return table


def test_whole_slides_are_held_out_where_they_are_known(
    trusting: ModelBundle, laboratory: Path, of_slides: Path, fitted: Adaptation
) -> None:
    made = adapt(trusting, [str(laboratory)], labels=of_slides, seed=1, threads=2)
    labels = made.labels
    assert (labels.dealt, labels.slides, labels.folds) == ("slides", 6, 5)
    assert labels.unseen == 0
    validation = made.bundle.validation
    assert (validation["n"], validation["n_slides"]) == (60, 6)
    # Ten cells a slide, of which a fifth of the others tell nothing where no mistake was made.
    accuracy = validation["metrics"]["accuracy"]
    assert accuracy["value"] > 0.9
    assert 1 < validation["effect"] <= 2.8
    assert design_effect(validation) == validation["effect"]
    assert accuracy["low"] < accuracy["value"] <= accuracy["high"] <= 1
    assert "5 folds of whole slides, 6 slides known" in made.bundle.card
    assert "5 folds of whole slides" in " ".join(made.sentences())
    # Without slides cells are dealt, which is told, and no slides are said to be known.
    labels, validation = fitted.labels, fitted.bundle.validation
    assert (labels.dealt, labels.slides, labels.folds) == ("cells", 0, 5)
    assert not {"n_slides", "effect"} & {*validation}
    assert "single cells, as fewer than two slides are known" in fitted.bundle.card
    assert validation["metrics"]["accuracy"]["method"] == "Wilson score interval over images"


def test_labels_that_only_tell_slides_are_refused(trusting: ModelBundle, tmp_path: Path) -> None:
    """All cells of a slide have one colour and one label; the next slide's have others."""
    rng = np.random.default_rng(0)
    colours, names = rng.uniform(40, 220, (10, 3)), np.repeat(CLASSES, 2)
    with (tmp_path / "few.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "slide"])
        for number in range(80):
            pixels = colours[number % 10] + rng.normal(0, 5, (SIDE, SIDE, 3))
            data = encode_png(np.clip(np.round(pixels), 0, 255).astype(np.uint8))
            (tmp_path / f"{number}.png").write_bytes(data)
            rows.writerow([f"{number}.png", names[number % 10], f"S{number % 10}"])
    flat = replace(trusting, calibration={"method": "temperature", "temperature": 100.0})
    flat = replace(flat, goldens=_goldens(flat))
    with pytest.raises(AdaptError, match=r"Nothing fitted to these 80 labelled cells is better"):
        adapt(flat, [str(tmp_path)], labels=tmp_path / "few.csv", threads=2)
    sources = [file_source(tmp_path / f"{number}.png") for number in range(80)]
    named = [(one, CLASSES.index(names[row % 10])) for row, one in enumerate(sources)]
    remembered = fit_adaptation(flat, named, threads=2)
    labels = remembered.labels
    assert (labels.dealt, labels.accuracy.after) == ("cells", 1.0)  # of slides
    with pytest.raises(ValueError, match="shorter"):
        fit_adaptation(flat, named, slides=["S0"], threads=2)


def test_a_class_of_one_slide_is_told(
    trusting: ModelBundle, laboratory: Path, of_slides: Path, tmp_path: Path
) -> None:
    table = laboratory / "one.csv"
    rows = list(csv.DictReader(of_slides.read_text().splitlines()))
    with table.open("w", newline="") as file:
        out = csv.DictWriter(file, ["path", "label", "slide"])
        out.writeheader()
        for row in rows:
            out.writerow({**row, "slide": "S0"} if row["label"] == "basophils" else row)
    made = adapt(trusting, [str(laboratory)], labels=table, threads=2)
    table.unlink()
    assert made.labels.unseen == 12
    assert "12 of these cells were answered by fits that had seen none of their class" in (
        made.bundle.card
    )


def test_without_labels_it_says_why(tiny_bundle: ModelBundle, laboratory: Path) -> None:
    with pytest.raises(UsageError, match=r"needs --labels.*nothing tells a better model"):
        leuko.adapt(tiny_bundle, [str(laboratory)])


def test_what_was_fitted_without_labels_still_opens(
    tiny_bundle: ModelBundle, tmp_path: Path
) -> None:
    steps = [{"step": "looks", "kept": True, "told": "kept. Weights 1 plain."}]
    report = {"schema": "leuko.adaptation/1", "changed": True, "steps": steps, "labels": None}
    spec = replace(tiny_bundle.preprocess, weights=(1.0,))
    replace(tiny_bundle, preprocess=spec, provenance={"adaptation": report}).save(tmp_path / "old")
    opened = leuko.load(tmp_path / "old").bundle
    assert opened.preprocess.weights == (1.0,)
    assert opened.provenance["adaptation"] == report


def test_too_little_is_one_sentence(tiny_bundle: ModelBundle, tmp_path: Path) -> None:
    rows = write_dataset(tmp_path / "few", each=5, suffix=".png")
    sources = [file_source(file) for file in read_folder(rows).files()]
    said: list[str] = []
    named = [(one, 0) for one in [*sources[:3], *sources[:3], bytes_source("bad", b"")]]
    with pytest.raises(
        AdaptError, match="needs 10 different usable cells of two classes; received 3 of 1"
    ):
        fit_adaptation(tiny_bundle, named, threads=1, reporter=Reporter(say=said.append))
    assert "Rejected bad (empty-file" in said[0]
    with pytest.raises(AdaptError, match="another label"):
        fit_adaptation(tiny_bundle, [(sources[0], 0), (sources[0], 1)], threads=1)


def test_a_picture_without_a_cell_is_left_out(tiny_bundle: ModelBundle) -> None:
    looking = replace(tiny_bundle, preprocess=replace(tiny_bundle.preprocess, view="cell"))
    blank = encode_png(np.full((SIDE, SIDE, 3), 230, np.uint8))
    said: list[str] = []
    with pytest.raises(AdaptError, match="received 0 of 0"):
        fit_adaptation(
            looking, [(bytes_source("b", blank), 0)], threads=1, reporter=Reporter(say=said.append)
        )
    assert said == ["Left out b (blank: no cell is found in it)"]


def test_labels_that_name_no_file(
    laboratory: Path, tiny_bundle: ModelBundle, tmp_path: Path
) -> None:
    table = tmp_path / "few.csv"
    table.write_text("path,label\nBasophil/0.png,basophil\nno.png,mono\n")
    with pytest.raises(DataError, match=r"1 of 2 labelled images cannot be found, such as no\.png"):
        adapt(tiny_bundle, [str(laboratory)], labels=table)


def test_what_is_shown_is_what_is_predicted(tiny_bundle: ModelBundle, laboratory: Path) -> None:
    files = read_folder(laboratory).files()[:6]
    found = [one for one in survey([file_source(f) for f in files]) if isinstance(one, Picture)]
    shown = show(tiny_bundle, found)
    classifier = OnnxClassifier(tiny_bundle, features=True)
    asked = classifier.ask([decode_image(f.read_bytes()).pixels for f in files])
    assert shown.features is not None
    assert shown.features.shape == (6, 1, 3)
    np.testing.assert_allclose(shown.features[:, 0], asked[1], atol=1e-6)
