"""Documents of the shape that Leuko writes, from made-up probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from five import CLASSES
from leuko.evaluation.comparison import ComparisonReport, Model, Run, set_means
from leuko.evaluation.paired import Answers, compare_predictions
from leuko.evaluation.report import SetResult, evaluate_predictions
from leuko.render.evaluation import evaluation_document
from leuko.render.verdict import comparison_document
from leuko.support.artifacts import RESEARCH_USE

SHARES = {
    "validation": (0.03, 0.09, 0.22, 0.06, 0.60),
    "test": (0.021, 0.074, 0.238, 0.054, 0.613),
    "jtsc": (0.0, 0.07, 0.17, 0.16, 0.60),
}
SKILL = {"validation": 5.6, "test": 5.2, "jtsc": 1.2}
SIZES = {"validation": 420, "test": 500, "jtsc": 100}
EDGE = {"cnn": 0.0, "mobilenetv2": -1.2}


def make_rows(name: str, size: int) -> tuple[np.ndarray, list[str], list[str]]:
    """Labels, slides and paths of a made-up set."""
    rng = np.random.default_rng(abs(hash_of(name)))
    labels = rng.choice(5, size=size, p=np.array(SHARES[name]) / sum(SHARES[name]))
    slides = [f"95-8-{20 + i}-1" for i in rng.integers(0, 12, size)]
    slides = [
        "95-8-27-1" if label == 1 else slide for slide, label in zip(slides, labels, strict=True)
    ]
    if name == "jtsc":
        slides = [""] * size
    paths = [
        f"{CLASSES[k]}/{s or 'jtsc'}_{i}_1.jpg"
        for i, (k, s) in enumerate(zip(labels, slides, strict=True))
    ]
    return labels, slides, paths


def hash_of(text: str) -> int:
    """A small number from a text, the same in every process."""
    return sum((place + 1) * ord(letter) for place, letter in enumerate(text))


def make_probabilities(labels: np.ndarray, skill: float, seed: int) -> np.ndarray:
    """Probabilities that are right the more often the higher the skill is."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 1.6, (len(labels), 5))
    scores[np.arange(len(labels)), labels] += skill
    raw = np.exp(scores - scores.max(axis=1, keepdims=True))
    return raw / raw.sum(axis=1, keepdims=True)


def make_evaluation(
    recipe: str = "cnn", name: str = "test", seed: int = 0, scale: int = 1, resamples: int = 60
) -> tuple[dict[str, Any], np.ndarray]:
    """One evaluation.json and its probabilities."""
    labels, slides, paths = make_rows(name, SIZES[name] * scale)
    table = make_probabilities(labels, SKILL[name] + EDGE[recipe], 1000 * seed + hash_of(recipe))
    report = evaluate_predictions(
        labels,
        table,
        slides,
        paths=paths,
        resamples=resamples,
    ).with_context(
        {
            "command": f"leuko evaluate runs/{recipe} Dataset/Test",
            "data": {"folder": "Dataset/Test", "digest": "ab" * 32},
            "model": {"name": recipe, "digest": "cd" * 32},
            "machine": {"system": "Linux x86_64", "processor": "Some CPU", "cores": 2},
        }
    )
    return evaluation_document(report), table


def make_history(epochs: int, start: float, stop: float) -> list[dict[str, float]]:
    """A learning curve."""
    rng = np.random.default_rng(epochs)
    rows = []
    for epoch in range(1, epochs + 1):
        share = 1 - np.exp(-2.5 * epoch / epochs)
        value = start + (stop - start) * share
        rows.append(
            {
                "epoch": float(epoch),
                "accuracy": float(value + 0.01),
                "val_accuracy": float(value - 0.02 + rng.normal(0, 0.008)),
                "loss": float(1.2 * (1 - value) + 0.1),
                "val_loss": float(1.4 * (1 - value) + 0.16 + rng.normal(0, 0.01)),
            }
        )
    return rows


def make_audit() -> dict[str, Any]:
    """An audit.json with every kind of trouble."""
    rng = np.random.default_rng(7)
    base = {"Train": 1017, "Test": 434}
    classes, slides = {}, {}
    for split, total in base.items():
        share = SHARES["test"]
        counts = [round(total * one) for one in share]
        classes[split] = dict(zip(CLASSES, counts, strict=True))
        names = [f"95-{month}-{day}-{n}" for month in (7, 8) for day in (22, 25) for n in (1, 2, 3)]
        if split == "Train":
            names += ["95-9-9-1", "95-9-9-2"]
        table: dict[str, dict[str, int]] = {name: {} for name in names}
        for label, count in enumerate(counts):
            if label == 0:
                weights = {"20190526": 0.5, "20190527": 0.3, "20190529": 0.2}
            elif label == 1:
                weights = {"95-8-27-1": 0.99, "95-7-22-1": 0.01}
            else:
                weights = dict(zip(names, rng.dirichlet([0.8] * len(names)), strict=True))
            for slide, weight in weights.items():
                if round(count * weight):
                    table.setdefault(slide, {})[CLASSES[label]] = round(count * weight)
        slides[split] = table
    shared = sorted(set(slides["Train"]) & set(slides["Test"]))
    sentence = (
        "A classifier that sees only the outer eighth of each image recalls 96% of the basophils "
        "and 80% of the eosinophils: the background gives these classes away."
    )
    return {
        "schema": "leuko.audit/1",
        "research_use": RESEARCH_USE,
        "dataset": "Dataset",
        "splits": {
            "train": {"folder": "Train", "n": 1017, "digest": "12" * 32},
            "test": {"folder": "Test", "n": 434, "digest": "34" * 32},
        },
        "classes": {"train": classes["Train"], "test": classes["Test"]},
        "sizes": {"train": {"575x575": 1017}, "test": {"575x575": 430, "288x288": 4}},
        "modes": {"train": {"RGB": 1017}, "test": {"RGB": 433, "L": 1}},
        "formats": {"train": {"JPEG": 1017}, "test": {"JPEG": 434}},
        "rejected": [{"path": "Train/Monocyte/a.jpg", "reason": "truncated", "detail": "It ends."}],
        "duplicates": [["Train/Monocyte/b.jpg", "Train/Monocyte/c.jpg"]],
        "near_duplicates": [["Train/Neutrophil/d.jpg", "Test/Neutrophil/e.jpg", 2]],
        "near_duplicate_count": 1,
        "shared_slides": {"count": len(shared), "names": shared},
        "slides": {"train": slides["Train"], "test": slides["Test"]},
        "confounding": [
            {
                "class": "Eosinophil",
                "slide": "95-8-27-1",
                "split": "test",
                "share": 0.99,
                "sentence": "99% of the eosinophils of test come from the one slide 95-8-27-1.",
            }
        ],
        "imbalance": {"train": 29.4, "test": 29.6},
        "background_test": {
            "accuracy": 0.743,
            "balanced_accuracy": 0.60,
            "majority": 0.613,
            "per_class_recall": dict(zip(CLASSES, (0.96, 0.80, 0.37, 0.05, 0.88), strict=True)),
            "ring": 0.125,
            "trained_on": "train",
            "tested_on": "test",
            "features": "colour histograms of the ring",
            "sentence": sentence,
        },
        "findings": [
            {
                "level": "warning",
                "title": f"{len(shared)} slides are in both splits",
                "sentence": "What is measured on test is partly memory of slides.",
            },
            {
                "level": "warning",
                "title": "The background gives classes away",
                "sentence": sentence,
            },
            {"level": "note", "title": "One file is damaged", "sentence": "It is left out."},
        ],
    }


def make_comparison(seeds: tuple[int, ...] = (0, 1), scale: int = 1) -> dict[str, Any]:
    """A comparison.json of two recipes, two seeds each, and one unseen folder."""
    models, tables = [], {}
    titles = {"cnn": "Custom CNN, corrected", "mobilenetv2": "MobileNetV2, frozen"}
    for recipe in ("cnn", "mobilenetv2"):
        runs = []
        for seed in seeds:
            evaluations = {}
            for name in SHARES:
                evaluations[name], tables[recipe, name, seed] = make_evaluation(
                    recipe, name, seed, scale
                )
            fit = 312.4 if recipe == "cnn" else 41.8
            features = 0.0 if recipe == "cnn" else 63.0
            runs.append(
                Run(
                    seed=seed,
                    run=f"runs/{recipe}-{seed}",
                    seconds={"features": features, "fit": fit, "total": fit + features + 4.0},
                    epochs=8,
                    predict_images_per_second=512.3 if recipe == "cnn" else 171.9,
                    bundle_bytes=371234 if recipe == "cnn" else 9123456,
                    parameters=87245 if recipe == "cnn" else 2278645,
                    images={"training": 12457, "validation": 3121},
                    evaluations={
                        name: SetResult.from_dict(one) for name, one in evaluations.items()
                    },
                )
            )
        models.append(
            Model(
                recipe=recipe,
                title=titles[recipe],
                transfer=recipe != "cnn",
                split="slide",
                size=(350, 350) if recipe == "cnn" else (224, 224),
                runs=tuple(runs),
                mean=set_means(runs),
                published=(
                    {"accuracy": 0.9318, "macro_f1": 0.865}
                    if recipe == "cnn"
                    else {"accuracy": 0.8908, "macro_f1": 0.85}
                ),
                history=make_history(8, 0.5, 0.97 if recipe == "cnn" else 0.92),
                start={},
            )
        )
    paired = []
    for name in ("test", "jtsc"):
        labels, slides, _ = make_rows(name, SIZES[name] * scale)
        for seed in seeds:
            pair = (Answers(one, seed, tables[one, name, seed]) for one in titles)
            paired.append(compare_predictions(labels, slides, *pair, set_name=name, resamples=60))
    report = ComparisonReport(
        dataset="Dataset",
        data_digest={"train": "9f" * 32},
        models=tuple(models),
        paired=tuple(paired),
        notes=(),
        audit=make_audit(),
        command="leuko compare Dataset --recipes cnn mobilenetv2 --seeds 2 --unseen jtsc",
        version="0.1.0",
        machine={
            "system": "Linux x86_64",
            "processor": "Some CPU",
            "cores": 2,
            "python": "3.11.9",
            "versions": {"leuko": "0.1.0", "keras": "3.15.1"},
        },
        versions={},
        total_seconds=1234.5,
    )
    return comparison_document(report) | {
        "balance": {"seconds": 61.2, "images": 31155},
        "data_digest": "9f" * 32,
        "warnings": ["One image of Train could not be read and was left out."],
    }


@pytest.fixture(scope="session")
def evaluation() -> dict[str, Any]:
    return make_evaluation()[0]


@pytest.fixture(scope="session")
def audit() -> dict[str, Any]:
    return make_audit()


@pytest.fixture(scope="session")
def comparison() -> dict[str, Any]:
    return make_comparison()
