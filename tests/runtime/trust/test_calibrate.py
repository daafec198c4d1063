"""A bundle that doubts: fitted, saved, opened, and asked what it has never seen."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from five import CLASSES
from leuko.bundle import FeatureSpace, Goldens, ModelBundle
from leuko.data.reading import read_folder
from leuko.errors import BundleError, DataError, UsageError
from leuko.evaluation.report import evaluate_predictions
from leuko.history import TrustTargets
from leuko.imaging.decode import encode_png
from leuko.manifest import Manifest
from leuko.prediction import DECISIONS, PredictionTable
from leuko.prediction_files import read_predictions, write_csv
from leuko.runtime.classifier import OnnxClassifier
from leuko.runtime.trust import calibrate as trust_bundle
from leuko.runtime.trust.calibrate import TrustSettings, fit_trust, without_trust
from leuko.runtime.trust.decide import LIMITS, calibrate, class_limit
from leuko.runtime.trust.fit import limit_at
from leuko.runtime.zoo import load
from leuko.source import bytes_source
from leuko.support.reporter import Reporter
from tiny import COLOURS, SIDE, paint, write_dataset, write_picture

GREEN = np.full((SIDE, SIDE, 3), (10, 230, 20), np.uint8)
WIDE = TrustTargets(accuracy=0.9, coverage=0.9, alarms=0.02)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Two hundred pictures of ten slides; a class's colour differs a little from slide to slide."""
    root = tmp_path_factory.mktemp("validation")
    rng = np.random.default_rng(3)
    for label, name in enumerate(CLASSES):
        for number in range(40):
            shift = np.random.default_rng(number % 10).normal(0, 6, 3)
            colour = COLOURS[label] + shift + rng.normal(0, 3, 3)
            pixels = colour + rng.normal(0, 10, (SIDE, SIDE, 3))
            path = root / name / f"95-8-{number % 10 + 1}-1_{number}_1.png"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(encode_png(np.clip(np.round(pixels), 0, 255).astype(np.uint8)))
    return read_folder(root)


@pytest.fixture(scope="module")
def fitted(tiny_bundle: ModelBundle, rows: Manifest) -> ModelBundle:
    """The tiny model with trust."""
    return fit_trust(tiny_bundle, rows, TrustSettings(seed=1, targets=WIDE), threads=2)


@pytest.fixture(scope="module")
def doubting(fitted: ModelBundle) -> OnnxClassifier:
    """The same, opened."""
    return OnnxClassifier(fitted, threads=2)


# What it answers


def test_probabilities_are_calibrated_before_anything_is_decided(
    doubting: OnnxClassifier, tiny_classifier: OnnxClassifier, rows: Manifest
) -> None:
    pixels = np.stack([paint(name, shape=(SIDE, SIDE)) for name in CLASSES])
    raw = tiny_classifier.predict_views(pixels)
    temperature = doubting.bundle.calibration["temperature"]
    assert temperature != 1
    np.testing.assert_allclose(
        doubting.predict_views(pixels), calibrate(raw, temperature), atol=2e-4
    )
    table = doubting.predict(rows.files()[:20])
    np.testing.assert_array_equal(table.probabilities, np.round(table.probabilities, 6))
    for row in table.rows:
        assert row.confidence == max(row.probabilities)
        assert row.decision == "class" or row.confidence > 0


def test_ordinary_pictures_stand(doubting: OnnxClassifier, rows: Manifest) -> None:
    table = doubting.predict(rows.files())
    taken = table.decisions
    assert sum(taken.values()) == len(rows)
    assert taken["class"] > 0.9 * len(rows)
    assert taken["unlike-training"] <= 0.03 * len(rows)
    for row in table.rows:
        assert len(row.preprocessing) == 12
        assert row.distance is not None
        assert dict(row.quality)["resolution"] == 1.0
        assert row.likeliest in row.prediction_set
        assert (row.reason == "") == (row.decision == "class")


@pytest.mark.slow
@pytest.mark.parametrize(("axes", "searched"), [(2, 0.5), (1, 0.0), (3, 1.0)])
def test_axes_and_the_share_searched_can_be_chosen_and_are_remembered(
    tiny_bundle: ModelBundle, rows: Manifest, axes: int, searched: float
) -> None:
    bundle = fit_trust(
        tiny_bundle, rows, TrustSettings(seed=1, axes=axes, searched=searched), threads=2
    )
    space = bundle.space
    assert space is not None
    assert space.axes.shape[1] == axes
    report = bundle.validation["trust"]
    assert (report["axes"], report["searched"]) == (axes, searched)
    distances = [row.distance for row in OnnxClassifier(bundle).predict(rows.files()).rows]
    beyond = np.mean([d is not None and d > bundle.thresholds["look"] for d in distances])
    assert beyond == pytest.approx(searched, abs=0.15)  # distances without a slide are larger
    again = fit_trust(bundle, rows, TrustSettings(seed=1), threads=2)
    assert again.validation["trust"]["searched"] == searched


@pytest.mark.parametrize("searched", [-0.2, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(
    tiny_bundle: ModelBundle, rows: Manifest, searched: float
) -> None:
    with pytest.raises(UsageError, match="share to be searched"):
        fit_trust(tiny_bundle, rows, TrustSettings(searched=searched))


def test_a_far_away_picture_is_unlike_training(doubting: OnnxClassifier) -> None:
    for pixels in (GREEN, np.array([[[255, 0, 0]]], np.uint8).repeat(SIDE, 0).repeat(SIDE, 1)):
        noisy = np.clip(pixels.astype(int) + np.indices(pixels.shape).sum(0) % 30, 0, 255)
        row = doubting.predict_one(noisy.astype(np.uint8))
        assert (row.decision, row.reason) == ("unlike-training", "far-from-training")
        assert row.label == ""
        assert row.likeliest in CLASSES  # still said, for whoever wants to know
        assert row.limit == doubting.bundle.thresholds["distance"]
        assert row.distance is not None
        assert row.distance > doubting.bundle.thresholds["distance"]
    assert doubting.predict_one(GREEN).reason == "blank"


def test_neighbours_and_threads_do_not_matter(
    fitted: ModelBundle, doubting: OnnxClassifier, rows: Manifest
) -> None:
    files = rows.files()[::7]
    together = doubting.predict(files).rows
    assert tuple(doubting.predict_one(file) for file in files) == together
    assert OnnxClassifier(fitted, threads=1).predict(files).rows == together
    pixels = [doubting.predict_one(paint(n, shape=(SIDE, SIDE))).distance for n in CLASSES]
    assert all(value is not None for value in pixels)


def test_a_rejected_file_has_no_decision(doubting: OnnxClassifier) -> None:
    row = next(doubting.stream([bytes_source("x", b"GIF89a")]))
    assert (row.status, row.decision, row.prediction_set, row.distance) == (
        "rejected",
        "",
        (),
        None,
    )


def test_the_table_says_so(doubting: OnnxClassifier, rows: Manifest, tmp_path: Path) -> None:
    sources = [bytes_source("green", encode_png(GREEN)), bytes_source("bad", b"")]
    table = PredictionTable((*doubting.predict(rows.files()[:2]).rows, *doubting.stream(sources)))
    document = table.to_dict()
    assert document["decisions"] == {**dict.fromkeys(DECISIONS, 0), "class": 2, "not-a-cell": 1}
    green = document["predictions"][2]
    assert (green["decision"], green["reason"]) == ("not-a-cell", "blank")
    assert green["quality"]["contrast"] == 0
    assert green["prediction_set"]
    assert green["preprocessing"] == document["predictions"][3]["preprocessing"] != ""
    assert document["predictions"][3]["quality"] is None
    write_csv(table, tmp_path / "p.csv")
    again = read_predictions(tmp_path / "p.csv")
    assert [(row.decision, row.reason) for row in again.rows] == [
        (row.decision, row.reason) for row in table.rows
    ]


# What is written


def test_round_trip(fitted: ModelBundle, tiny_bundle: ModelBundle, tmp_path: Path) -> None:
    assert fitted.digest != tiny_bundle.digest
    for name in ("b", "b.zip"):
        fitted.save(tmp_path / name)
        again = ModelBundle.load(tmp_path / name)
        assert again.members() == fitted.members()
        assert again.space is not None
        assert again.digest == fitted.digest
        OnnxClassifier(again, threads=1)
    tiny_bundle.save(tmp_path / "b")  # a plain one takes its place, whole
    assert not (tmp_path / "b" / "trust.npz").exists()
    assert ModelBundle.load(tmp_path / "b").digest == tiny_bundle.digest


def test_the_same_seed_gives_the_same_bytes(
    fitted: ModelBundle, tiny_bundle: ModelBundle, rows: Manifest
) -> None:
    again = fit_trust(tiny_bundle, rows, TrustSettings(seed=1, targets=WIDE), threads=1)
    assert again.members() == fitted.members()
    # What was there before is put aside, not added to.
    assert (
        fit_trust(fitted, rows, TrustSettings(seed=1, targets=WIDE), threads=2).members()
        == fitted.members()
    )


def test_trust_can_be_taken_out_again(fitted: ModelBundle, tiny_bundle: ModelBundle) -> None:
    bare = without_trust(fitted)
    assert bare.digest == replace(tiny_bundle, thresholds={}).digest
    assert without_trust(bare) is bare
    answers = without_trust(fitted).goldens.probabilities
    np.testing.assert_array_equal(answers, tiny_bundle.goldens.probabilities)


def test_the_figures_are_told(fitted: ModelBundle) -> None:
    report = fitted.validation["trust"]
    assert (report["n"], report["n_slides"]) == (200, 10)
    assert report["log_loss"][1] <= report["log_loss"][0]
    assert report["targets"] == {"accuracy": 0.9, "level": 0.95, "coverage": 0.9, "alarms": 0.02}
    assert report["selection"]["accuracy_low"] >= 0.9
    assert sum(report["decisions"]["shares"].values()) == pytest.approx(1)
    assert report["decisions"]["shares"].get("far-from-training", 0) <= 0.02
    assert report["notes"] == []
    assert set(fitted.thresholds) == {*LIMITS, *map(class_limit, CLASSES)} - {
        "again"
    }  # the tiny model looks once
    assert fitted.validation["metrics"] == {"accuracy": {"value": 0.5}}  # those are of labels
    assert fitted.card.count("## Trust") == 1
    assert f"Temperature {fitted.calibration['temperature']:.4g}" in fitted.card


def test_the_figures_are_those_of_an_evaluation(
    tiny_bundle: ModelBundle, fitted: ModelBundle, rows: Manifest
) -> None:
    """One definition of log-loss and calibration error, whoever asks."""
    answers = OnnxClassifier(without_trust(tiny_bundle), threads=2).predict(rows.files())
    raw = answers.probabilities
    temperature = fitted.calibration["temperature"]
    told = fitted.validation["trust"]
    for number, table in enumerate((raw, calibrate(raw, temperature))):
        report = evaluate_predictions(rows.labels, table, rows.slides, resamples=5)
        assert told["ece"][number] == pytest.approx(report.ece, abs=2e-4)
        assert told["log_loss"][number] == pytest.approx(report.log_loss, abs=2e-4)


def test_too_few_pictures_are_no_reason_to_pretend(
    tiny_bundle: ModelBundle, tmp_path: Path
) -> None:
    said: list[str] = []
    few = read_folder(write_dataset(tmp_path / "few", each=4))
    never = without_trust(tiny_bundle)
    bundle = fit_trust(never, few, threads=1, reporter=Reporter(say=said.append))
    assert bundle.thresholds == {}
    assert bundle.space is None
    assert bundle.calibration["method"] == "temperature"
    assert len(said) == 4
    assert "so none of its answers is accepted" in said[0]
    assert said[0] in bundle.card
    assert bundle.validation["trust"]["notes"] == said
    assert "kept" not in bundle.validation["trust"]
    row = OnnxClassifier(bundle, threads=1).predict_one(GREEN)
    assert (row.decision, row.reason, row.prediction_set, row.quality) == (
        "unsure", "unproven", (), (),
    )  # fmt: skip
    for name in CLASSES:
        for number in range(25):
            write_picture(tmp_path / "loose" / name / f"IMG_{number}.png", name, seed=number)
    fit_trust(never, read_folder(tmp_path / "loose"), threads=1, reporter=Reporter(say=said.append))
    assert "Most pictures tell no slide" in said[4]


@pytest.mark.slow
def test_what_always_says_one_thing_is_never_accepted(
    tiny_bundle: ModelBundle, tmp_path: Path
) -> None:
    """All but one of 700 cells are neutrophils: always saying so is right 99.9% of the time."""
    for number in range(700):
        write_picture(tmp_path / "Neutrophil" / f"95-8-{number % 20}-1_{number}.png", "Neutrophil",
                      seed=number)  # fmt: skip
    write_picture(tmp_path / "Basophil" / "95-8-1-1_900.png", "Neutrophil", seed=900)
    said: list[str] = []
    rows = read_folder(tmp_path, ignore=())
    bundle = fit_trust(
        without_trust(tiny_bundle), rows, threads=2, reporter=Reporter(say=said.append)
    )
    assert "confidence" not in bundle.thresholds
    assert bundle.validation["trust"]["selection"] is None
    assert any("better than always answering Neutrophil" in one for one in said)
    assert set(bundle.validation["trust"]["decisions"]["shares"]) <= {
        "unproven", "far-from-training", "blank", "no-nucleus",
    }  # fmt: skip


def test_what_few_pictures_cannot_tell_is_kept(fitted: ModelBundle, tmp_path: Path) -> None:
    """Twenty pictures once took every safeguard out of a bundle, and it named a blank picture."""
    said: list[str] = []
    few = read_folder(write_dataset(tmp_path / "few", each=4))
    bundle = fit_trust(
        fitted, few, TrustSettings(strict=True), threads=1, reporter=Reporter(say=said.append)
    )
    assert set(bundle.thresholds) == set(fitted.thresholds)
    for name in ("sharpness", "overexposed", "underexposed", "resolution", "nucleus", "distance",
                 "look"):  # fmt: skip
        assert bundle.thresholds[name] == fitted.thresholds[name]
    assert bundle.space is not None
    assert fitted.space is not None
    np.testing.assert_array_equal(bundle.space.axes, fitted.space.axes)
    ratio = fitted.calibration["temperature"] / bundle.calibration["temperature"]
    assert ratio != 1
    report = bundle.validation["trust"]
    for name, value in fitted.thresholds.items():
        if name.startswith("set_"):
            assert bundle.thresholds[name] == limit_at(value, ratio, 5, stricter=False)
    least = limit_at(fitted.thresholds["confidence"], ratio, 5, stricter=True)
    assert bundle.thresholds["confidence"] >= least
    assert set(report["kept"]) == set(fitted.thresholds)
    assert report["searched"] == fitted.validation["trust"]["searched"]
    assert report["selection"] is report["sets"] is None
    assert report["notes"] == said
    text = " ".join(said)
    for words in (
        "An accuracy of 99.0% cannot be promised from these 20 pictures. Labels are unsure below",
        "The bundle's own are kept: sharpness, overexposed, underexposed, resolution and nucleus.",
        "The bundle's own limits are kept, with their space: distance and look.",
        "The bundle's own limits are kept, so that no set gets smaller",
    ):
        assert words in text
        assert words in bundle.card
    assert "when their slide is left out" not in bundle.card
    bundle.save(tmp_path / "b.zip")
    opened = OnnxClassifier(ModelBundle.load(tmp_path / "b.zip"), threads=1)
    assert opened.predict_one(GREEN).decision == "not-a-cell"


@pytest.mark.slow
def test_an_accuracy_out_of_reach_lets_nothing_stand_that_did_not(
    fitted: ModelBundle, rows: Manifest
) -> None:
    said: list[str] = []
    wanted = replace(WIDE, accuracy=0.9999)
    bundle = fit_trust(
        fitted,
        rows,
        TrustSettings(seed=1, targets=wanted),
        threads=2,
        reporter=Reporter(say=said.append),
    )
    report = bundle.validation["trust"]
    assert report["kept"] == ["confidence"]
    ratio = fitted.calibration["temperature"] / bundle.calibration["temperature"]
    assert bundle.thresholds["confidence"] >= limit_at(
        fitted.thresholds["confidence"], ratio, 5, stricter=True
    )
    assert report["reached"]["confidence"] == pytest.approx(bundle.thresholds["confidence"])
    assert report["reached"]["accuracy_low"] < 0.9999
    shares = [f"{report['reached'][key]:.1%}" for key in ("coverage", "accuracy", "accuracy_low")]
    assert all(share in said[0] for share in shares)
    files = rows.files()
    before, after = (OnnxClassifier(one, threads=2).predict(files) for one in (fitted, bundle))
    for old, new in zip(before.rows, after.rows, strict=True):
        assert old.reason != "low-confidence" or new.decision != "class"


def test_a_nucleus_that_is_not_found_is_no_limit(
    fitted: ModelBundle, rows: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit of 0 refuses nothing."""
    observe = trust_bundle._observe

    def one_without(*arguments: Any) -> Any:
        seen = observe(*arguments)
        first = replace(seen.observations[0], nucleus=0.0)
        return replace(seen, observations=[first, *seen.observations[1:]])

    own = {**fitted.thresholds, "nucleus": 0.25}
    monkeypatch.setattr(trust_bundle, "_observe", one_without)
    before = replace(fitted, thresholds=own)
    bundle = fit_trust(before, rows, TrustSettings(seed=1, targets=WIDE), threads=2)
    assert bundle.thresholds["nucleus"] == 0.25
    assert bundle.validation["trust"]["kept"] == ["nucleus"]
    assert "of 200 no nucleus is found" in bundle.validation["trust"]["notes"][0]


@pytest.mark.slow
def test_a_bundle_that_looks_again_keeps_when_it_does(tmp_path: Path) -> None:
    """Its space is of first looks, so distance and the second look go together."""
    shipped = load("default", threads=1).bundle
    few = read_folder(write_dataset(tmp_path / "few", each=4))
    bundle = fit_trust(shipped, few, threads=1)
    assert set(bundle.thresholds) == set(shipped.thresholds)
    for name in ("again", "distance", "look"):
        assert bundle.thresholds[name] == shipped.thresholds[name]
    assert 0 <= bundle.validation["trust"]["again"] <= 1
    bundle.save(tmp_path / "b.zip")
    opened = OnnxClassifier(ModelBundle.load(tmp_path / "b.zip"), threads=1)
    answers = opened.predict(few.files())
    told = OnnxClassifier(shipped, threads=1).predict(few.files())
    assert [row.distance for row in answers.rows] == [row.distance for row in told.rows]
    assert answers.likeliest == told.likeliest


def test_few_false_alarms_take_many_pictures(
    tiny_bundle: ModelBundle, rows: Manifest, tmp_path: Path
) -> None:
    said: list[str] = []
    targets = TrustTargets(accuracy=0.9, coverage=0.9, alarms=0.5 / len(rows))
    bundle = fit_trust(
        tiny_bundle,
        rows,
        TrustSettings(targets=targets),
        threads=1,
        reporter=Reporter(say=said.append),
    )
    assert "distance" not in bundle.thresholds
    told = f"takes {2 * len(rows) - 1} pictures of two slides"
    assert any(told in line for line in said)
    bundle.save(tmp_path / "b.zip")
    ModelBundle.load(tmp_path / "b.zip")


@pytest.mark.slow
def test_without_a_space_nothing_is_looked_at_again(rows: Manifest, tmp_path: Path) -> None:
    """A limit for looking again and no space for it once made a bundle that could not be opened."""
    bundle = without_trust(load("default", threads=1).bundle)
    some = rows.subset(range(0, len(rows), 2))
    targets = TrustTargets(accuracy=0.9, coverage=0.9, alarms=0.5 / len(some))
    fitted = fit_trust(bundle, some, TrustSettings(targets=targets), threads=1)
    assert "again" not in fitted.thresholds
    fitted.save(tmp_path / "b.zip")
    assert OnnxClassifier(ModelBundle.load(tmp_path / "b.zip"), threads=1).predict(rows.files()[:2])


def test_what_cannot_be_fitted_at_all_is_refused(tiny_bundle: ModelBundle, tmp_path: Path) -> None:
    few = read_folder(write_dataset(tmp_path / "few", each=3))
    with pytest.raises(DataError, match=r"20 labelled pictures of two classes.*received 15 of 5"):
        fit_trust(tiny_bundle, few, TrustSettings(strict=True), threads=1)
    more = read_folder(write_dataset(tmp_path / "more", each=25))
    one_class = more.subset(np.flatnonzero(np.asarray(more.labels) == 2).tolist())
    with pytest.raises(DataError, match="received 25 of 1"):
        fit_trust(tiny_bundle, one_class, TrustSettings(strict=True), threads=1)
    for name, other in zip(CLASSES, (*CLASSES[1:], CLASSES[0]), strict=True):
        for number in range(8):
            write_picture(tmp_path / "wrong" / name / f"{number}.png", other, seed=number)
    wrong, said = read_folder(tmp_path / "wrong"), list[str]()
    with pytest.raises(DataError, match="do not belong together"):
        fit_trust(tiny_bundle, wrong, TrustSettings(strict=True), threads=1)
    fit_trust(
        tiny_bundle, wrong, threads=1, reporter=Reporter(say=said.append)
    )  # as a training run does
    assert "lies at an end of its range (20)" in " ".join(said)


def test_pictures_that_cannot_be_read(tiny_bundle: ModelBundle, tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "v", each=4)
    rows = read_folder(root)
    broken = rows.files()[3]
    broken.write_bytes(b"")
    said: list[str] = []
    bundle = fit_trust(tiny_bundle, rows, threads=1, reporter=Reporter(say=said.append))
    assert bundle.validation["trust"]["n"] == 19
    assert broken.name in said[0]
    assert "empty-file" in said[0]
    for file in rows.files():
        file.write_bytes(b"")
    with pytest.raises(DataError, match="Not one of the 20 images"):
        fit_trust(tiny_bundle, rows, threads=1)
    for name in ("accuracy", "level", "coverage", "alarms"):
        with pytest.raises(UsageError, match=f"{name} must lie between 0 and 1"):
            TrustTargets(**{name: 1.0})


# Hostile files


def spoiled(bundle: ModelBundle, **arrays: Any) -> ModelBundle:
    assert bundle.space is not None
    return replace(bundle, space=replace(bundle.space, **arrays))


HOSTILE: list[Callable[[FeatureSpace], dict[str, Any]]] = [
    lambda s: {"mean": s.mean.astype(np.float32)},
    lambda s: {"mean": s.mean[:-1]},
    lambda s: {"axes": s.axes[:, :0]},
    lambda s: {"axes": s.axes.ravel()},
    lambda s: {"axes": np.full_like(s.axes, np.nan)},
    lambda s: {"axes": np.repeat(s.axes, 70, axis=1)},
    lambda s: {"axes": np.asfortranarray(s.axes).astype(">f2")},
    lambda s: {"whitening": s.whitening[:, :1]},
    lambda s: {"whitening": np.full_like(s.whitening, np.inf)},
    lambda s: {"centres": s.centres[:0]},
    lambda s: {"centres": np.repeat(s.centres, 2, axis=0)},
    lambda s: {"centres": s.centres[0]},
    lambda s: {"spread": np.zeros(1, np.float32)},
    lambda s: {"spread": np.full(1, np.nan, np.float32)},
    lambda s: {"spread": np.ones(2, np.float32)},
    lambda s: {"spread": np.float32(1)},
    lambda s: {"goldens": s.goldens[:-1]},
    lambda s: {"goldens": s.goldens.astype(np.float64)},
]


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_arrays_that_do_not_fit(number: int, fitted: ModelBundle, tmp_path: Path) -> None:
    """Every digest is right: whoever forged this had the library at hand."""
    assert fitted.space is not None
    spoiled(fitted, **HOSTILE[number](fitted.space)).save(tmp_path / "b.zip")
    with pytest.raises(BundleError, match="trust statistics do not fit each other"):
        ModelBundle.load(tmp_path / "b.zip")


def with_trust_file(bundle: ModelBundle, data: bytes, folder: Path) -> Path:
    """A bundle folder with other trust statistics, and every digest but its own put right."""
    import json

    from leuko.support.artifacts import digest_bytes, digest_json

    files = {**bundle.members(), "trust.npz": data}
    document = json.loads(files["bundle.json"])
    document["files"]["trust.npz"] = digest_bytes(data)
    document.pop("seal")
    document["seal"] = digest_json(document)
    folder.mkdir()
    for name, content in {**files, "bundle.json": json.dumps(document).encode()}.items():
        (folder / name).write_bytes(content)
    return folder


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


@pytest.mark.parametrize("data", [b"", b"PK", npz(), npz(mean=np.zeros(3)), npz(x=np.zeros(3))])
def test_files_that_hold_other_things(data: bytes, fitted: ModelBundle, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="damaged"):
        ModelBundle.load(with_trust_file(fitted, data, tmp_path / "b"))


def test_objects_and_bombs_are_refused(fitted: ModelBundle, tmp_path: Path) -> None:
    arrays = vars(fitted.space)
    objects = npz(**{**arrays, "mean": np.array([{}], dtype=object)})
    with pytest.raises(BundleError, match="damaged"):
        ModelBundle.load(with_trust_file(fitted, objects, tmp_path / "objects"))
    bomb = npz(**{**arrays, "mean": np.zeros(20_000_000, np.float16)})
    assert len(bomb) < 200_000
    with pytest.raises(BundleError, match="trust statistics are too large"):
        ModelBundle.load(with_trust_file(fitted, bomb, tmp_path / "bomb"))
    more = npz(**arrays, extra=np.zeros(3))
    with pytest.raises(BundleError, match="other arrays than"):
        ModelBundle.load(with_trust_file(fitted, more, tmp_path / "more"))


def test_another_space_under_an_old_digest(fitted: ModelBundle, tmp_path: Path) -> None:
    assert fitted.space is not None
    wider = npz(**{**vars(fitted.space), "spread": 9 * fitted.space.spread})
    with pytest.raises(BundleError, match="settings do not match its digest"):
        ModelBundle.load(with_trust_file(fitted, wider, tmp_path / "b"))


def test_statistics_that_are_missing_or_not_listed(
    fitted: ModelBundle, tiny_bundle: ModelBundle, tmp_path: Path
) -> None:
    fitted.save(tmp_path / "b")
    data = (tmp_path / "b" / "trust.npz").read_bytes()
    (tmp_path / "b" / "trust.npz").unlink()
    with pytest.raises(BundleError, match=r"damaged: trust\.npz is not the file"):
        ModelBundle.load(tmp_path / "b")
    tiny_bundle.save(tmp_path / "plain")
    (tmp_path / "plain" / "trust.npz").write_bytes(data)
    with pytest.raises(BundleError, match=r"damaged: trust\.npz is not the file"):
        ModelBundle.load(tmp_path / "plain")


def test_a_space_of_another_network(fitted: ModelBundle, tmp_path: Path) -> None:
    assert fitted.space is not None
    other = replace(
        fitted.space,
        mean=np.zeros(7, np.float16),
        axes=np.ones((7, fitted.space.axes.shape[1]), np.float16),
    )
    with pytest.raises(BundleError, match="7 features, and its network gives others or none"):
        OnnxClassifier(replace(fitted, space=other))


def test_goldens_are_compared_after_calibration_and_by_distance(
    fitted: ModelBundle, tiny_bundle: ModelBundle
) -> None:
    raw = Goldens(fitted.goldens.pictures, tiny_bundle.goldens.probabilities)
    with pytest.raises(BundleError, match="does not answer as it did"):
        OnnxClassifier(replace(fitted, goldens=raw))
    assert fitted.space is not None
    moved = spoiled(fitted, goldens=1.05 * fitted.space.goldens)
    with pytest.raises(BundleError, match="does not measure as it did"):
        OnnxClassifier(moved)
