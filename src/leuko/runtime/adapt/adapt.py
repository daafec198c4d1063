"""Fit a bundle to one's own microscope with labels of some of its cells: `adapt`.

The last layer is fitted again, and only kept where cross-validation on the labelled cells says that
it is better than the bundle as it was. Without labels nobody can say that; see
docs/decisions/0019-fit-to-a-microscope.md.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from leuko.bundle import ModelBundle
from leuko.cells.texture import first_view
from leuko.data.reading import read_csv
from leuko.errors import AdaptError, DataError, ImageError, UsageError
from leuko.history import LabelsReport
from leuko.runtime.adapt.labels import MIN_LABELS, Labelled, Refit, labelled_files, refit
from leuko.runtime.adapt.pictures import Picture, survey
from leuko.runtime.cards import refit_in_words, with_card
from leuko.runtime.classifier import OnnxClassifier
from leuko.runtime.network.average import softmax
from leuko.runtime.network.edit import replace_head
from leuko.runtime.trust.calibrate import bare_network, with_trust
from leuko.runtime.trust.decide import Trust
from leuko.runtime.zoo import load
from leuko.source import Source, file_source
from leuko.support.artifacts import digest_json, schema
from leuko.support.reporter import SILENT, Reporter
from leuko.support.text import rejection

__all__ = ["Adaptation", "adapt", "fit_adaptation"]

_TRUE_HEAD: Final = 1e-3
"""How far a fitted last layer may be from what the new network answers, as a probability."""

_ALWAYS: Final = -1.0
"""No distance is that small, so every picture of this microscope is shown in every style."""


@dataclass(frozen=True)
class Adaptation:
    """A bundle that was fitted to a laboratory.

    Attributes
    ----------
    bundle : ModelBundle
        The new one.
    labels : LabelsReport
        What the refit gave.
    """

    bundle: ModelBundle
    labels: LabelsReport

    def to_dict(self) -> dict[str, Any]:
        """Give what was done as plain JSON values.

        Returns
        -------
        dict
            Schema ``leuko.adaptation/2``.
        """
        kept = self.bundle.provenance["adaptation"]
        told = {name: value for name, value in kept.items() if name != "source"}
        return {**told, "digest": self.bundle.digest}

    def sentences(self) -> list[str]:
        """What was done, for a person.

        Returns
        -------
        list of str
            One line each.
        """
        told = [refit_in_words(self.labels)]
        if Trust.of(self.bundle).active:
            told.append(
                "What is unsure or unlike training still follows thresholds of another laboratory: "
                "leuko models calibrate fits them to labelled cells of this one."
            )
        return told


def adapt(
    model: str | os.PathLike[str] | ModelBundle,
    folders: Sequence[str | os.PathLike[str]] = (),
    *,
    labels: str | os.PathLike[str] | None = None,
    measure: bool = True,
    seed: int = 0,
    threads: int | None = None,
    reporter: Reporter = SILENT,
) -> Adaptation:
    """Fit a bundle to labelled cells of one microscope.

    Parameters
    ----------
    model : str, path-like or ModelBundle
        A name of the zoo, a path, or an open bundle.
    folders : sequence of path-like
        Where labelled images are looked for that do not stand beside the table.
    labels : path-like
        CSV with the columns ``path`` and ``label``, and ``slide`` where names do not tell it; paths
        are relative to its own folder, or else to one of `folders`.
    measure : bool
        Whether the fit may use numbers measured on the cell (`leuko.cells.morphometry`). Such a
        bundle runs in Leuko alone: no other runtime measures.
    seed : int
        Decides how slides, or cells where fewer than two slides are known, are dealt to folds.
    threads, reporter
        See `fit_adaptation`.

    Returns
    -------
    Adaptation
        With the new bundle, to be saved.

    Raises
    ------
    AdaptError
        When there are too few labels, or cross-validation says that the refit is no better than
        the bundle as it was.
    DataError
        When images or labels cannot be found.
    UsageError
        When no labels are given.
    """
    if labels is None:
        raise UsageError(
            f"Fitting to a microscope needs --labels: a table path,label of {MIN_LABELS} or more "
            "of its cells. Without labels nothing tells a better model from a worse one."
        )
    bundle = model if isinstance(model, ModelBundle) else load(model, threads=threads).bundle
    places = [Path(os.path.expanduser(folder)) for folder in folders]
    for place in places:
        if not place.is_dir():
            raise DataError(f"{place} is no folder; expected folders of labelled images.")
    manifest = read_csv(labels, scheme=bundle.scheme)
    files = labelled_files(manifest, places)
    named = [
        (file_source(file), sample.label)
        for file, sample in zip(files, manifest.samples, strict=True)
    ]
    return fit_adaptation(bundle, named, slides=manifest.slides, measure=measure, seed=seed,
                          threads=threads, reporter=reporter)  # fmt: skip


def fit_adaptation(
    bundle: ModelBundle,
    labels: Sequence[tuple[Source, int]],
    *,
    slides: Sequence[str] = (),
    measure: bool = True,
    seed: int = 0,
    threads: int | None = None,
    reporter: Reporter = SILENT,
) -> Adaptation:
    """Fit a bundle to labelled pictures, see `adapt`.

    Parameters
    ----------
    bundle : ModelBundle
        As it is.
    labels : sequence of (Source, int)
        Labelled pictures of one laboratory, with positions in the bundle's
        scheme.
    slides : sequence of str, optional
        Slide of each picture, empty where it is not known; none is known when left out.
    measure, seed
        See `adapt`.
    threads : int, optional
        As many as there are cores when None; they change no result.
    reporter : Reporter, optional
        Told how far it is, and what a person should know.

    Returns
    -------
    Adaptation
        See there.

    Raises
    ------
    AdaptError
        See `adapt`.
    """
    if bundle.measured is not None:
        raise AdaptError(
            f"{bundle.name} was fitted to labelled cells before, with numbers measured on them. "
            "Fit the model that it was made from, with all labels together."
        )
    rows = [(*row, slide) for row, slide in zip(labels, slides or [""] * len(labels), strict=True)]
    cells = _usable(bundle, rows, threads, reporter)
    fitted = refit(bundle, cells, measure=measure, seed=seed, threads=threads, reporter=reporter)
    source = {"name": bundle.name, "digest": bundle.digest, "validation": bundle.validation}
    if "adaptation" in bundle.provenance:
        source["adaptation"] = bundle.provenance["adaptation"]
    steps = {
        "schema": schema("adaptation"),
        "adapted_from": bundle.digest,
        "images_digest": digest_json(sorted(one.sha256 for one in cells.pictures)),
        "seed": seed,
        "labels": fitted.report.to_dict(),
        "told": refit_in_words(fitted.report),
        "source": source,
    }
    provenance = {**bundle.provenance, "adapted_from": bundle.digest, "adaptation": steps}
    made = with_card(replace(_made(bundle, fitted), provenance=provenance))
    return Adaptation(made, fitted.report)


def _usable(
    bundle: ModelBundle,
    labels: Sequence[tuple[Source, int, str]],
    threads: int | None,
    reporter: Reporter,
) -> Labelled:
    """Read what was given: different pictures that hold a cell."""
    sources = [source for source, _, _ in labels]
    pictures: dict[str, Picture] = {}
    named: dict[str, int] = {}
    slides: dict[str, str] = {}
    for (source, label, slide), found in zip(
        labels, survey(sources, threads=threads, reporter=reporter), strict=True
    ):
        if isinstance(found, ImageError):
            reporter.say(rejection(source.name, found.reason, found.detail))
            continue
        if bundle.preprocess.view != "centre" and found.missing:
            reporter.say(f"Left out {source.name} ({found.missing}: no cell is found in it)")
            continue
        slides[found.sha256] = slides.get(found.sha256) or slide
        pictures.setdefault(found.sha256, found)
        if named.setdefault(found.sha256, label) != label:
            raise AdaptError(
                f"{source.name} has the same bytes as another labelled image and another label."
            )
    classes = np.array([*named.values()], np.int64)
    if len(classes) < MIN_LABELS or len({*classes.tolist()}) < 2:
        raise AdaptError(
            f"Fitting to labels needs {MIN_LABELS} different usable cells of two classes; received "
            f"{len(classes)} of {len({*classes.tolist()})}. Label more."
        )
    return Labelled([*pictures.values()], classes, [*slides.values()])


def _made(bundle: ModelBundle, fitted: Refit) -> ModelBundle:
    """The bundle with another last layer, goldens asked again; without its history."""
    spec, head, layer = bundle.preprocess, fitted.head, fitted.layer
    onnx = replace_head(bundle.onnx, head.weights, head.bias)
    plain = bare_network(replace(bundle, onnx=onnx, measured=layer))
    pictures = plain.goldens.pictures
    classifier = OnnxClassifier(plain, threads=1, features=True)
    outputs = classifier.ask(list(pictures))
    logits = head.logits(outputs[1])
    if layer is not None:
        logits += layer.logits([first_view(picture, spec).measures() for picture in pictures])
    off = float(np.abs(softmax(logits) - outputs[0]).max())
    if not off <= _TRUE_HEAD:
        raise AdaptError(
            f"{bundle.name} cannot be fitted: its last layer is not the linear one that it "
            f"seems to be (a probability of its golden pictures is off by {off:.2g})."
        )
    thresholds = dict(bundle.thresholds)
    if "again" in thresholds:
        thresholds["again"] = _ALWAYS
    calibration = fitted.calibration(bundle.calibration)
    made = with_trust(classifier, calibration, thresholds, bundle.space)
    validation = fitted.validation()
    if "trust" in bundle.validation:
        validation = {**validation, "trust": bundle.validation["trust"]}
    return replace(made, validation=validation)
