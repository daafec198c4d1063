"""A classifier on a labelled folder: what is scored is the bundle that ships."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from leuko import __version__
from leuko.artifacts import atomic_write_json, atomic_write_text, prepare_folder
from leuko.data.dataset import Pictures
from leuko.data.reading import read_labelled
from leuko.data.seen import LEARNED, has_learned, seen_in
from leuko.errors import DataError, MissingExtraError
from leuko.evaluation.report import EvaluationReport, evaluate_predictions
from leuko.host import machine
from leuko.manifest import Manifest
from leuko.prediction import Prediction, PredictionTable
from leuko.prediction_files import write_csv
from leuko.render.evaluation import evaluation_document, evaluation_summary
from leuko.reporter import SILENT, Reporter
from leuko.runtime.classifier import OnnxClassifier, load
from leuko.runtime.repeats import DUPLICATE, mark_repeats
from leuko.runtime.trust import NEVER_CHECKED
from leuko.scheme import ClassScheme, common_scheme

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
    answered : (n,) int64
        Positions of the rows that have an answer.
    report : EvaluationReport
        Over those rows.
    images_per_second : float
        From files to answers, start-up excluded.
    """

    manifest: Manifest
    table: PredictionTable
    answered: npt.NDArray[np.int64]
    report: EvaluationReport
    images_per_second: float

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
    model: str | os.PathLike[str] | OnnxClassifier,
    source: str | os.PathLike[str] | Manifest,
    *,
    ignore: tuple[str, ...] = (),
    merge: Mapping[str, str] | None = None,
    label_column: str = "label",
    seed: int = 0,
    resamples: int = 1000,
    command: str = "",
    threads: int | None = None,
    reporter: Reporter = SILENT,
) -> Evaluation:
    """Classify a labelled set through ONNX Runtime and score the answers.

    Parameters
    ----------
    model : str, path-like or OnnxClassifier
        See `leuko.load`.
    source : path-like or Manifest
        A folder of class folders, a CSV, or rows.
    ignore : tuple of str
        Extra folders to pass over.
    merge : mapping of str to str, optional
        Which class of the set is which of the model; see `leuko.scheme.common_scheme`.
    label_column : str
        Of a CSV.
    seed : int
        Of the bootstrap.
    resamples : int
        Of the bootstrap.
    command : str
        The command to print beside the figures.
    threads : int, optional
        See `leuko.load`.
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
    classifier = model if isinstance(model, OnnxClassifier) else load(model, threads=threads)
    manifest = (
        source
        if isinstance(source, Manifest)
        else read_labelled(source, ignore=ignore, label_column=label_column)
    )
    scheme, labels, answers = common_scheme(manifest.scheme, classifier.bundle.scheme, merge)
    if scheme != manifest.scheme:
        manifest = manifest.relabelled(
            scheme, labels, merged=_merged(manifest.scheme, scheme, labels)
        )
    for note in manifest.notes:
        reporter.say(note)
    total = len(manifest)
    started = time.perf_counter()
    rows = classifier.predict(
        manifest.files(),
        progress=lambda done: reporter.progress("predicting", done, total),
    ).rows
    seconds = time.perf_counter() - started
    table = PredictionTable(tuple(_named(row, s.path) for row, s in zip(rows, manifest.samples,
                                                                        strict=True)),
                            classifier.bundle.scheme)  # fmt: skip
    for row in table.rejected:
        reporter.say(f"Rejected {row.path} ({row.reason}: {row.detail})")
    answered = np.flatnonzero([row.status == "ok" for row in table.rows]).astype(np.int64)
    if len(answered) == 0:
        raise DataError(f"Not one of the {total} images in {manifest.root} could be read.")
    kept = manifest.subset(answered)
    warnings = list(manifest.notes)
    if table.rejected:
        warnings.append(f"{len(table.rejected)} of {total} images were rejected.")
    repeats = sum(row.decision == DUPLICATE for row in mark_repeats(rows))
    if repeats:
        warnings.append(
            f"{repeats} of {total} images show the same cell as an earlier one; each is scored."
        )
        reporter.say(warnings[-1])
    if has_learned(classifier.bundle.provenance):
        known = seen_in(kept, Pictures(threads), reporter=reporter)
        if known:
            warnings.append(
                f"{known:,} of these {len(kept):,} images are among those that {classifier.name} "
                f"has learned from ({LEARNED}): its answers to them are memory."
            )
    if not classifier.trust.accepts:
        warnings.append(NEVER_CHECKED)
    report = evaluate_predictions(
        kept.labels,
        _summed(table.probabilities, answers, len(scheme)),
        kept.slides,
        scheme=scheme,
        paths=[sample.path for sample in kept.samples],
        decisions=[table.rows[row].decision for row in answered],
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
    return Evaluation(manifest, table, answered, report, total / max(seconds, 1e-9))


def _merged(data: ClassScheme, scheme: ClassScheme, labels: Sequence[int | None]) -> str:
    """Say which classes of a set were taken for others; nothing where none was renamed."""
    moved = [
        f"{name} as {scheme.names[place]}"
        for name, place in zip(data.names, labels, strict=True)
        if place is not None and data.names[data.names.index(name)] != scheme.names[place]
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


def _named(row: Prediction, path: str) -> Prediction:
    """Call a row by its path inside the data set, which is the same on every machine."""
    return replace(row, path=path)
