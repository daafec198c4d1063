"""A run over fields with a picture of every kind and a cell of every kind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from five import FIVE
from leuko.cells.detector import Box
from leuko.evaluation.counting.differential import differential
from leuko.evaluation.counting.tally import Tally
from leuko.evaluation.detection import BoxClassification, DetectionReport, Miss
from leuko.field.report import Field, FieldCell, FieldReport
from leuko.prediction import Judgement, Prediction

VALIDATION = {
    "split": "slide", "n": 2225, "n_slides": 14,
    "confusion": [[48, 0, 1, 0, 0], [0, 148, 0, 1, 0], [0, 1, 562, 12, 0], [0, 0, 6, 162, 0],
                  [0, 25, 3, 2, 1254]],
    "trust": {"decisions": {"shares": {"class": 0.87, "low-confidence": 0.13}, "accuracy": 0.997}},
}  # fmt: skip


def cell(
    box: Box, label: str = "Neutrophil", share: float = 0.96, *, decision: str = "class",
    reason: str = "", name: str = "",
) -> FieldCell:  # fmt: skip
    """A cell whose other classes share what is left."""
    rest = (1 - share) / (len(FIVE) - 1)
    table = np.array([share if one == label else rest for one in FIVE.names]).round(6)
    limit = 0.93 if reason == "low-confidence" else None
    judged = Judgement(decision, reason, limit=limit)
    answer = Prediction.answered(name or f"cells/{box}.png", table, "", "cd" * 6, judged, FIVE)
    return FieldCell(box, 0.9, answer)


def unasked(box: Box, reason: str) -> FieldCell:
    """A cell that was set aside, and nobody asked what it is."""
    answer = Prediction(f"cells/{box}.png", "ok", reason, decision="set-aside", scheme=FIVE)
    return FieldCell(box, 0.5, answer)


def fields() -> tuple[Field, ...]:
    """Two fields with cells, and a picture of every other kind."""
    seen = {"size": (300, 400), "sharpness": 0.4321, "ground": (228.0, 220.4, 226.0)}
    first = (
        cell((10, 20, 60, 80)),
        cell((100, 100, 150, 150), "Monocyte", 0.62, decision="unsure", reason="low-confidence"),
        unasked((250, 300, 300, 350), "border"),
    )
    again = "the same cell as slide/a.jpg"
    second = (
        cell((10, 20, 60, 80), decision="duplicate", reason=again),
        cell((90, 10, 140, 60), "Lymphocyte", 0.99),
        cell((150, 200, 190, 240), "Lymphocyte", 0.97),
    )
    scaled = {"pixels_per_micrometre": 10.0, "scale_source": "red cells", "red_cells": 57}
    return (
        Field("slide/a.jpg", "ok", sha256="ab" * 32, cells=first, **scaled, **seen),
        Field("slide/b.jpg", "ok", cells=second, pixels_per_micrometre=10.0, scale_source="run",
              faults=("tile 3, 4 is damaged",), **seen),
        Field("slide/c.jpg", "no-cell", **seen),
        Field("slide/d.jpg", "unusable", "blurred", **seen),
        Field("slide/e.jpg", "single-cell", **seen),
        Field("slide/f.tif", "repeated", "slide/a.jpg", **seen),
        Field("slide/g.jpg", "rejected", "truncated", "The JPEG file ends too early."),
    )  # fmt: skip


def truth() -> DetectionReport:
    """Five boxes given, of which one was missed, and a find too many."""
    told = {
        "fields": 3, "found": 4, "missed": 1, "false": 1, "doubles": 0, "ap50": 0.8,
        "ap50_95": 0.55, "counting_error_per_field": 2 / 3,
        "classification": BoxClassification(4, 0.75, 0.5, 0.75, 1.0),
    }  # fmt: skip
    return DetectionReport(
        **told,
        by_slide={"slide": DetectionReport(**told)},
        misses=(Miss("slide/c.jpg", (30, 40, 90, 120), float("nan")),),
        false_finds=(Miss("slide/b.jpg", (150, 200, 190, 240), 0.9),),
    )


def report(**changes: object) -> FieldReport:
    """The run."""
    every = fields()
    tally = Tally.of([one.answer for field in every for one in field.cells])
    made = FieldReport(
        every,
        FIVE,
        {"name": "default", "digest": "ef" * 32},
        {"name": "learned", "digest": "12" * 32},
        differential(tally, validation=VALIDATION),
        asked=3,
        left=2,
    )
    return replace(made, **changes)
