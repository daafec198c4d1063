"""A classifier on a labelled folder: what is scored is the bundle that ships."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from leuko import __version__
from leuko.classifier import Classifier
from leuko.data.dataset import Pictures
from leuko.data.reading import read_labelled
from leuko.data.seen import LEARNED, has_learned, seen_in
from leuko.errors import DataError, MissingExtraError
from leuko.evaluation.report import EvaluationReport, evaluate_predictions
from leuko.manifest import Manifest
from leuko.prediction import Prediction, PredictionTable
from leuko.prediction_files import write_csv
from leuko.render.answers import remark_on
from leuko.render.evaluation import evaluation_document, evaluation_summary
from leuko.runtime.repeats import DUPLICATE, mark_repeats
from leuko.runtime.trust.decide import NEVER_CHECKED
from leuko.runtime.zoo import load
from leuko.scheme import ClassScheme, common_scheme
from leuko.source import file_source
from leuko.support.artifacts import atomic_write_json, atomic_write_text, prepare_folder
from leuko.support.host import machine
from leuko.support.reporter import SILENT, Reporter

__all__ = ["Evaluation", "evaluate"]


@dataclass(frozen=True)
class Evaluation:
    """Everything that came out of one evaluation.

    Attributes
    ----------
    manifest : Manifest
        The labelled rows.
    table : PredictionTable
        One row for each of them, rejected ones included.
    report : EvaluationReport
        Over the rows that have an answer.
    images_per_second : float
        From files to answers, start-up excluded.
    """

    manifest: Manifest
    table: PredictionTable
    report: EvaluationReport
    images_per_second: float

    @property
    def answered(self) -> npt.NDArray[np.int64]:
        """(n,) positions of the rows that have an answer."""
        return self.table.answered

    def to_dict(self) -> dict[str, Any]:
        """The report, as ``evaluation.json`` holds it."""
        return evaluation_document(self.report)

    def summary(self) -> str:
        """The report as text for a terminal."""
        return evaluation_summary(self.report)

    def write(self, out: str | os.PathLike[str]) -> Path:
        """Write ``evaluation.json``, ``predictions.csv`` and, with plots installed, a page.

        Parameters
        ----------
        out : path-like
            A folder; it is created.

        Returns
        -------
        Path
            ``report.html``, or ``evaluation.json`` when this install draws no plots.

        Raises
        ------
        OutputError
            When something cannot be written.
        """
        folder = prepare_folder(Path(out))
        document = self.to_dict()
        atomic_write_json(folder / "evaluation.json", document)
        write_csv(self.table, folder / "predictions.csv")
        try:
            from leuko.render.report import evaluation_html, worst_mistakes

            page = evaluation_html(document, mistakes=worst_mistakes(document, self.manifest.root))
        except MissingExtraError:
            return folder / "evaluation.json"
        atomic_write_text(folder / "report.html", page)
        return folder / "report.html"


def evaluate(
    model: str | os.PathLike[str] | Classifier,
    source: str | os.PathLike[str] | Manifest,
    *,
    merge: Mapping[str, str] | None = None,
    seed: int = 0,
    resamples: int = 1000,
    command: str = "",
    reporter: Reporter = SILENT,
) -> Evaluation:
    """Classify a labelled set and score the answers.

    Parameters
    ----------
    model : str, path-like or Classifier
        Open, or as `leuko.load` takes it.
    source : path-like or Manifest
        A folder of class folders, a CSV, or rows, as `leuko.data.reading.read_labelled` reads them.
    merge : mapping of str to str, optional
        Which class of the set is which of the model; see `leuko.scheme.common_scheme`.
    seed, resamples : int
        Of the bootstrap.
    command : str
        The command to print beside the figures.
    reporter : Reporter, optional
        Told how far it is, and what a person should know.

    Returns
    -------
    Evaluation
        Table, report and speed.

    Raises
    ------
    DataError
        When no image could be read.
    """
    classifier = load(model) if isinstance(model, str | os.PathLike) else model
    manifest = source if isinstance(source, Manifest) else read_labelled(source)
    scheme, labels, places = common_scheme(manifest.scheme, classifier.scheme, merge)
    if scheme != manifest.scheme:
        manifest = manifest.relabelled(
            scheme, labels, merged=_merged(manifest.scheme, scheme, labels)
        )
    for note in manifest.notes:
        reporter.say(note)
    rows, seconds = _answers(classifier, manifest, reporter)
    table = PredictionTable(_named(rows, manifest), classifier.scheme)
    for row in table.rejected:
        reporter.say(remark_on(row))
    total = len(manifest)
    if not table.predicted:
        raise DataError(f"Not one of the {total} images in {manifest.root} could be read.")
    kept = manifest.subset(table.answered)
    warnings = [*manifest.notes, *_on_rows(rows, reporter), *_on_model(classifier, kept, reporter)]
    report = evaluate_predictions(
        kept.labels,
        _summed(table.probabilities, places, len(scheme)),
        kept.slides,
        scheme=scheme,
        paths=[sample.path for sample in kept.samples],
        decisions=[row.decision for row in table.predicted],
        seed=seed,
        resamples=resamples,
    ).with_context(
        {
            "command": command,
            "data": {"folder": manifest.root.name, "digest": manifest.digest, "found": total,
                     "rejected": len(table.rejected)},
            "model": {"name": classifier.name, "digest": classifier.digest},
            "machine": machine(),
            "version": __version__,
        },
        remarks=warnings,
    )  # fmt: skip
    return Evaluation(manifest, table, report, total / max(seconds, 1e-9))


def _answers(
    classifier: Classifier, manifest: Manifest, reporter: Reporter
) -> tuple[list[Prediction], float]:
    """Answers to all images of a set, and the seconds they took."""
    started = time.perf_counter()
    rows = []
    for row in classifier.stream(map(file_source, manifest.files())):
        rows.append(row)
        reporter.progress("predicting", len(rows), len(manifest))
    return rows, time.perf_counter() - started


def _named(rows: Sequence[Prediction], manifest: Manifest) -> tuple[Prediction, ...]:
    """Call rows by their paths inside the data set, which are the same on every machine."""
    pairs = zip(rows, manifest.samples, strict=True)
    return tuple(replace(row, path=sample.path) for row, sample in pairs)


def _on_rows(rows: Sequence[Prediction], reporter: Reporter) -> Iterator[str]:
    """Warn of images that were rejected, and of cells that come again."""
    rejected = sum(row.status != "ok" for row in rows)
    if rejected:
        yield f"{rejected} of {len(rows)} images were rejected."
    repeats = sum(row.decision == DUPLICATE for row in mark_repeats(rows))
    if repeats:
        told = (
            f"{repeats} of {len(rows)} images show the same cell as an earlier one; each is scored."
        )
        reporter.say(told)
        yield told


def _on_model(classifier: Classifier, kept: Manifest, reporter: Reporter) -> Iterator[str]:
    """Warn of images that the model has learned from, and of one that was never calibrated."""
    if has_learned(classifier.provenance):
        known = seen_in(kept, Pictures(classifier.threads), reporter=reporter)
        if known:
            yield (
                f"{known:,} of these {len(kept):,} images are among those that {classifier.name} "
                f"has learned from ({LEARNED}): its answers to them are memory."
            )
    if not classifier.accepts:
        yield NEVER_CHECKED


def _merged(data: ClassScheme, scheme: ClassScheme, labels: Sequence[int | None]) -> str:
    """Say which classes of a set were taken for others; nothing where none was renamed."""
    moved = [
        f"{name} as {scheme.names[place]}"
        for name, place in zip(data.names, labels, strict=True)
        if place is not None and name != scheme.names[place]
    ]
    return f"Classes are merged: {', '.join(moved)}." if moved else ""


def _summed(
    probabilities: npt.NDArray[np.float64], places: Sequence[int], classes: int
) -> npt.NDArray[np.float64]:
    """Probabilities of merged classes: (N, K) to (N, classes)."""
    summed = np.zeros((len(probabilities), classes))
    for column, place in enumerate(places):
        summed[:, place] += probabilities[:, column]
    return summed
