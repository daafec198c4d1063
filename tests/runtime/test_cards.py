"""Cards: written whole out of what a bundle holds, whatever was done to the model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from leuko.bundle import ModelBundle
from leuko.history import Change, Compared, ImportReport, LabelsReport, TrustReport, Variant
from leuko.runtime.cards import refit_in_words, trust_section, with_card
from leuko.runtime.trust.calibrate import without_trust
from leuko.runtime.trust.decide import NEVER_CHECKED
from leuko.runtime.zoo import load

TRAINED: dict[str, Any] = {
    "recipe": {
        "title": "A small network",
        "model": {"architecture": "cnn"},
        "train": {"teacher": "default", "imitation": 0.7},
    },
    "start": {"weights": "random", "teacher": "default, which", "seen": 3, "of": 1200},
    "teacher": "ab" * 32,
    "training_images": 1000,
    "seed": 4,
    "epochs": 6,
    "best_epoch": 5,
    "manifest_digest": "cd" * 32,
    "recipe_digest": "ef" * 32,
}
FIGURES: dict[str, Any] = {
    "split": "slide",
    "n": 200,
    "n_slides": 14,
    "metrics": {
        "accuracy": {"value": 0.9123, "low": 0.88, "high": 0.95},
        "macro_f1": {"value": 0.8, "low": None, "high": None},
    },
    "warnings": ["No better than always answering Neutrophil."],
}
LABELS = LabelsReport(
    n=60,
    classes={"Basophil": 0, "Neutrophil": 60},
    dealt="slides",
    slides=6,
    unseen=0,
    folds=5,
    repeats=4,
    kind="ridge",
    strength=0.3,
    log_loss=Change(0.9, 0.4),
    accuracy=Change(0.7, 0.8),
    balanced_accuracy=Change(0.6, 0.75),
    low=0.71,
    high=0.88,
    calibrated=True,
    temperature=1.5,
)


@pytest.fixture(scope="module")
def trained(tiny_bundle: ModelBundle) -> ModelBundle:
    bundle = without_trust(tiny_bundle)
    return with_card(replace(bundle, provenance=TRAINED, validation=FIGURES, card="Never read."))


def headings(bundle: ModelBundle) -> list[str]:
    return [line for line in bundle.card.splitlines() if line.startswith(("# ", "## "))]


@pytest.mark.parametrize("name", ["default", "small", "cnn"])
def test_reports_of_the_bundled_models_are_read_and_written_as_they_are(name: str) -> None:
    bundle = load(name, threads=1).bundle
    trust = bundle.validation["trust"]
    again = TrustReport.from_dict(trust).to_dict()
    assert (again, [*again]) == (trust, [*trust])
    assert "\n".join(trust_section(TrustReport.from_dict(trust), bundle.thresholds)) in bundle.card
    if "variant" in bundle.provenance:
        variant = bundle.provenance["variant"]
        assert Variant.from_dict(variant).to_dict() == variant


def test_every_report_survives_its_own_json() -> None:
    assert LabelsReport.from_dict(LABELS.to_dict()) == LABELS
    check = Compared(40, 0.95, 0.1, 1, "ab", {"Basophil": 40}, Change(0.9, 0.89))
    variant = Variant("onnx", "int8", "a", "b", {"n": 1}, Compared(14, 1.0, 0.01), (9, "c"), check)
    assert Variant.from_dict(variant.to_dict()) == variant
    imported = ImportReport(
        "m.h5", "ab", "h5", ("a", "b"), (1, 0), (0.5,), (0.0,), "bgr", "NHWC", softmax_added=True,
        notes=("one",), keras_version="2.10", limits=("memory",), command="leuko import-model m.h5",
    )  # fmt: skip
    assert ImportReport.from_dict(imported.to_dict()) == imported
    of_onnx = replace(imported, keras_version="", limits=(), command="")
    assert not {"keras_version", "limits", "command"} & {*of_onnx.to_dict()}


def test_a_trained_model(trained: ModelBundle) -> None:
    assert headings(trained) == ["# A small network", "## Validation", "## Limits"]
    for words in (
        "Taught by default, digest `abababababababab`: 70% of what it learned",
        "**A head start: 3 of these 1,200 training and validation images",
        "Trained on 1,000 images, seed 4, 6 epochs (best: 5).",
        "200 images of 14 slides that training did not see.",
        "**No better than always answering Neutrophil.**",
        "| accuracy | 0.9123 | 0.8800 to 0.9500 |",
        "| macro f1 | 0.8000 | too few slides |",
        "It always names one of its classes",
        f"Probabilities are not calibrated. {NEVER_CHECKED}",
    ):
        assert words in trained.card
    assert "provenance" not in trained.card
    assert with_card(trained) == trained


def test_each_step_adds_its_section_and_takes_back_what_is_no_longer_true(
    trained: ModelBundle,
) -> None:
    trust = load("default", threads=1).bundle.validation["trust"]
    calibrated = with_card(
        replace(trained, validation={**FIGURES, "trust": trust}, thresholds={"confidence": 0.9})
    )
    assert headings(calibrated)[1:] == ["## Validation", "## Limits", "## Trust"]
    assert "always names" not in calibrated.card
    assert "not calibrated" not in calibrated.card
    adaptation = {
        "images_digest": "12" * 32,
        "adapted_from": "34" * 32,
        "labels": LABELS.to_dict(),
        "source": {"name": "a", "digest": "34" * 32, "validation": calibrated.validation},
    }
    adapted = with_card(
        replace(
            calibrated,
            provenance={**TRAINED, "adaptation": adaptation},
            validation={"split": "cross-validated", "n": 60, "trust": trust},
        )
    )
    assert headings(adapted)[1:] == ["## Adapted", "## Validation", "## Limits", "## Trust"]
    assert refit_in_words(LABELS) in adapted.card
    assert "(60 Neutrophil), 5 folds of whole slides, 6 slides known, 4 times" in adapted.card
    assert "0.9123" in adapted.card  # of the training, and said to be
    assert "fitted on another laboratory" in adapted.card
    again = with_card(replace(adapted, validation={"trust": {**trust, "n": 77}}))
    assert "Fitted on 77 images" in again.card
    assert "fitted on another laboratory" not in again.card
    source = {"validation": adapted.validation, "adaptation": adaptation}
    provenance = {**TRAINED, "adaptation": {**adaptation, "source": source}}
    twice = with_card(replace(adapted, provenance=provenance))
    assert headings(twice) == headings(adapted)
    assert "0.9123" in twice.card  # of the training still, two steps back
    variant = Variant("onnx", "int8", "a", "b" * 64, adapted.validation, Compared(14, 1.0, 0.01))
    provenance = {**adapted.provenance, "variant": variant.to_dict()}
    exported = with_card(replace(adapted, provenance=provenance, validation={}))
    assert headings(exported)[:2] == ["# A small network, int8 onnx", "## Exported"]
    assert "Its accuracy was not measured" in exported.card
    assert "the original's, and so are calibration and thresholds." in exported.card
    assert "## Trust" in exported.card


def test_an_author_whose_words_are_all_there_is(tiny_bundle: ModelBundle) -> None:
    once = with_card(tiny_bundle)
    assert once.provenance["card"] == tiny_bundle.card
    assert once.card.endswith("### Tiny\n\nTakes the nearest colour.\n")
    assert with_card(once) == once
    assert "In its author's words" not in with_card(replace(tiny_bundle, card="")).card


@pytest.mark.parametrize(
    "provenance",
    [
        {"adaptation": 3, "variant": [], "imported": {"source_name": "x"}},
        {"adaptation": {"labels": {"n": "x"}, "source": {"validation": []}}, "start": 1},
        {"recipe": "none", "start": {}, "variant": {"source": None}},
    ],
)
def test_a_stranger_may_have_written_anything(
    provenance: dict[str, Any], tiny_bundle: ModelBundle
) -> None:
    made = with_card(replace(tiny_bundle, provenance=provenance, validation={"trust": {"n": []}}))
    assert headings(made)[0] == f"# {tiny_bundle.name}"
    assert "Takes the nearest colour." in made.card


def test_trust_is_told_once_when_a_card_is_quoted() -> None:
    bundle = load("small").bundle
    card = with_card(bundle).card
    assert bundle.card.count("## Trust") == card.count("## Trust") == 1
    assert "## In its author's words" in card
