"""Refit a bundle's last layer to labelled cells of one laboratory, or refuse to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leuko.bundle import MeasuredLayer, ModelBundle
from leuko.errors import AdaptError, DataError
from leuko.history import Change, LabelsReport
from leuko.manifest import Manifest
from leuko.runtime.adapt.last_layer import REPEATS, Cells, Head, HeadFit, fit_head, slide_groups
from leuko.runtime.adapt.pictures import Picture, show
from leuko.runtime.network.average import softmax
from leuko.runtime.network.wire import expose
from leuko.runtime.trust.decide import Trust
from leuko.runtime.trust.fit import fit_temperature
from leuko.statistics import (
    WILSON,
    WILSON_BY_SLIDE,
    cell_losses,
    log_loss,
    slide_effect,
    wilson_interval,
)
from leuko.support.reporter import SILENT, Reporter

__all__ = [
    "MIN_CALIBRATED",
    "MIN_LABELS",
    "Labelled",
    "Refit",
    "labelled_files",
    "refit",
]

Doubles = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

MIN_LABELS: Final = 10
"""Fewer labelled cells do not show what is wrong."""

MIN_CALIBRATED: Final = 50
"""From so many labelled cells on the temperature is fitted again."""


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """Labelled cells.

    Attributes
    ----------
    pictures : list of Picture
        All different.
    labels : (n,) int64
        Positions in the bundle's scheme.
    slides : list of str
        Slide of each, empty where it is not known.
    """

    pictures: list[Picture]
    labels: Labels
    slides: list[str]


@dataclass(frozen=True, slots=True, eq=False)
class Refit:
    """What labels changed.

    Attributes
    ----------
    head : Head
        The new last layer.
    layer : MeasuredLayer or None
        What numbers measured on the cell add to it.
    report : LabelsReport
        Figures of the cross-validation.
    confusion : (K, K) int64
        Rows true, columns predicted, of cells that were held out.
    effect : float or None
        How much wider the interval of the accuracy is for cells of whole slides; None where cells
        were dealt one by one.
    """

    head: Head
    layer: MeasuredLayer | None
    report: LabelsReport
    confusion: Labels
    effect: float | None

    def calibration(self, before: dict[str, Any]) -> dict[str, Any]:
        """What the new bundle says of its calibration, as plain JSON values."""
        if not self.report.calibrated:
            return before
        return {"method": "temperature", "temperature": self.report.temperature}

    def validation(self) -> dict[str, Any]:
        """What the new bundle says of its validation, as plain JSON values."""
        facts = self.report
        accuracy = {
            "value": facts.accuracy.after,
            "low": facts.low,
            "high": facts.high,
            "method": WILSON if self.effect is None else WILSON_BY_SLIDE,
        }
        document = {
            "split": "cross-validated",
            "n": facts.n,
            "metrics": {
                "accuracy": accuracy,
                "balanced_accuracy": {"value": facts.balanced_accuracy.after},
            },
            "confusion": self.confusion.tolist(),
        }
        if self.effect is not None:
            document |= {"n_slides": facts.slides, "effect": self.effect}
        return document


def labelled_files(manifest: Manifest, folders: Sequence[Path]) -> list[Path]:
    """Find labelled files beside their table, or else in the folders of the images.

    Parameters
    ----------
    manifest : Manifest
        From `leuko.data.reading.read_csv`.
    folders : sequence of Path
        Looked into in turn for what does not stand beside the table.

    Returns
    -------
    list of Path
        One for each sample.

    Raises
    ------
    DataError
        When a file is in none of these places.
    """
    found, missing = [], []
    for sample in manifest.samples:
        tried = [root / sample.path for root in (manifest.root, *folders)]
        place = next((one for one in tried if one.is_file()), None)
        if place is None:
            missing.append(sample.path)
        else:
            found.append(place)
    if missing:
        raise DataError(
            f"{len(missing)} of {len(manifest)} labelled images cannot be found, such as "
            f"{missing[0]}. Paths are relative to the table's own folder ({manifest.root}), or to "
            "the folder of the images."
        )
    return found


def refit(
    bundle: ModelBundle,
    cells: Labelled,
    *,
    measure: bool = True,
    seed: int = 0,
    threads: int | None = None,
    reporter: Reporter = SILENT,
) -> Refit:
    """Refit the last layer.

    Parameters
    ----------
    bundle : ModelBundle
        As shipped.
    cells : Labelled
        Two classes at least.
    measure : bool
        Whether numbers measured on the cell may come beside the network.
    seed, threads, reporter
        See `leuko.runtime.adapt.adapt.fit_adaptation`.

    Returns
    -------
    Refit
        Better, by cross-validation, than the bundle as shipped.

    Raises
    ------
    AdaptError
        When the network shows no linear last layer, or nothing is better than the bundle as
        shipped.
    """
    exposed = expose(bundle.onnx, maps=False)
    if exposed.weights is None or exposed.bias is None:
        raise AdaptError(
            f"{bundle.name} cannot be fitted to labels: its answer is not a softmax of one linear "
            "layer. Take another model."
        )
    temperature, groups = Trust.of(bundle).temperature, slide_groups(cells.slides)
    shown = show(bundle, cells.pictures, measure=measure, threads=threads, reporter=reporter)
    if shown.features is None:
        raise AdaptError(f"{bundle.name} does not show what enters its last layer.")
    features = np.average(shown.features, axis=1, weights=bundle.preprocess.weights or None)
    head = Head(exposed.weights.astype(np.float64), exposed.bias.astype(np.float64))
    before = Trust(temperature).calibrate(softmax(head.logits(features)))
    given = Cells(features, cells.labels, shown.measures, groups)
    fit = fit_head(given, head, temperature=temperature, space=bundle.space, seed=seed)
    gains = cell_losses(cells.labels, before) - np.mean(
        [cell_losses(cells.labels, one) for one in fit.probabilities], axis=0
    )
    gain, error = float(gains.mean()), _error(gains, groups)
    if not gain > error:
        loss = log_loss(cells.labels, before)
        alone = int(fit.unseen.sum())
        told = (
            f" {alone} of them were held out with all cells of their class, as one slide alone "
            "shows it; cells of it from another slide would say more."
            if alone and groups is not None
            else ""
        )
        raise AdaptError(
            f"Nothing fitted to these {len(cells.labels)} labelled cells is better than the model "
            f"as it is: log-loss {fit.loss:.4f} when cross-validated, {loss:.4f} before, and a "
            f"gain must be larger than its standard error, {error:.4f}. Nothing is written. Check "
            f"the labels, or label more cells.{told}"
        )
    return _finished(fit, before, cells, groups, temperature, bundle.scheme.names)


def _error(gains: Doubles, groups: list[str] | None) -> float:
    """Standard error of a mean: over cells, or over groups of them where that is more."""
    alone = float(gains.std() / np.sqrt(len(gains)))
    if groups is None:
        return alone
    _, which = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)
    sums = np.bincount(which.ravel(), weights=gains - gains.mean())
    together = np.sqrt(len(sums) / (len(sums) - 1) * np.square(sums).sum()) / len(gains)
    return max(alone, float(together))


def _finished(
    fit: HeadFit,
    before: Doubles,
    cells: Labelled,
    groups: list[str] | None,
    temperature: float,
    names: tuple[str, ...],
) -> Refit:
    """Put the temperature right and sum up."""
    labels = cells.labels
    n, classes = len(labels), len(names)
    held = fit.probabilities.mean(axis=0)
    head, layer = fit.head, fit.layer
    calibrated = n >= MIN_CALIBRATED
    if calibrated:
        every = fit.probabilities.reshape(-1, classes)
        temperature = fit_temperature(every, np.tile(labels, len(fit.probabilities)))
    else:
        head = Head(fit.head.weights * temperature, fit.head.bias * temperature)
        if layer is not None:
            layer = replace(layer, weights=layer.weights * temperature)
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (labels, held.argmax(axis=1)), 1)
    right = held.argmax(axis=1) == labels
    effect = 1.0 if groups is None else slide_effect(right, groups)
    low, high = wilson_interval(float(right.sum()) / effect, n / effect)
    accuracy, balanced = map(Change, _figures(before, labels), _figures(held, labels))
    report = LabelsReport(
        n=n,
        classes=dict(zip(names, np.bincount(labels, minlength=classes).tolist(), strict=True)),
        dealt="cells" if groups is None else "slides",
        slides=len({slide for slide in cells.slides if slide}),
        unseen=int(fit.unseen.sum()),
        folds=fit.folds,
        repeats=REPEATS,
        kind=fit.kind,
        strength=fit.strength,
        log_loss=Change(log_loss(labels, before), fit.loss),
        accuracy=accuracy,
        balanced_accuracy=balanced,
        low=low,
        high=high,
        calibrated=calibrated,
        temperature=temperature,
    )
    return Refit(head, layer, report, confusion, None if groups is None else effect)


def _figures(probabilities: Doubles, labels: Labels) -> tuple[float, float]:
    """Accuracy, and its mean over the classes that there are."""
    right = probabilities.argmax(axis=1) == labels
    by_class = [float(right[labels == label].mean()) for label in np.unique(labels)]
    return float(right.mean()), float(np.mean(by_class))
