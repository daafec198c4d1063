"""Fit a bundle to one's own microscope: `adapt`.

What is tried without labels, in this order, is one scale for all pictures, more weight for looks
without texture, and the laboratory's own mean features. A candidate is kept only where answers get
steadier (`leuko.runtime.adapt_check`). With labels of some cells the last layer is fitted again,
and only kept where cross-validation on them says that it is better than the bundle as it was.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leuko.artifacts import digest_json, schema
from leuko.bundle import Goldens, MeasuredLayer, ModelBundle
from leuko.cells import shared_micrometre
from leuko.cells.style import first_look
from leuko.errors import AdaptError, ImageError
from leuko.imaging import PreprocessSpec
from leuko.manifest import read_csv
from leuko.parallel import Progress
from leuko.runtime.adapt_card import adapted_card
from leuko.runtime.adapt_check import Check, Verdict, check, judge
from leuko.runtime.adapt_fit import Head, mean_shift
from leuko.runtime.adapt_labels import MIN_LABELS, Labelled, Refit, labelled_files, refit
from leuko.runtime.adapt_views import Picture, Shown, show, survey
from leuko.runtime.classifier import OnnxClassifier, load, make_goldens
from leuko.runtime.graph import expose
from leuko.runtime.graph_edit import replace_head
from leuko.runtime.looks import softmax
from leuko.runtime.sources import Source, expand, file_source
from leuko.runtime.trust import Trust, feature_distances
from leuko.statistics import rounded
from leuko.taxonomy import CLASSES

__all__ = [
    "MIN_PICTURES",
    "MOST_PICTURES",
    "Adaptation",
    "adapt",
    "features_in_space",
    "fit_adaptation",
]

MIN_PICTURES: Final = 20
"""Fewer pictures do not show what a laboratory's are like."""

MOST_PICTURES: Final = 400
"""More than these are not looked at; they are drawn from the seed."""

PLAIN_WEIGHT: Final = 0.5
"""Weight of the plain look, against the others', that is tried."""

_KEPT: Final = "kept."

_TRUE_HEAD: Final = 1e-3
"""How far a fitted last layer may be from what the new network answers, as a probability."""

_ALWAYS: Final = -1.0
"""No distance is that small, so every picture of this microscope is looked at in every style."""

_ALIKE: Final = 0.1
_ALIKE_SHARE: Final = 0.9
"""Pictures are of one size where nine in ten are within a tenth of the median side."""


@dataclass(frozen=True)
class Adaptation:
    """A bundle that was fitted to a laboratory.

    Attributes
    ----------
    bundle : ModelBundle
        The very one that was given where nothing was changed.
    report : dict
        Schema ``leuko.adaptation/1``.
    """

    bundle: ModelBundle
    report: dict[str, Any]

    @property
    def changed(self) -> bool:
        """Whether the bundle is another one than before."""
        return bool(self.report["changed"])

    def sentences(self) -> list[str]:
        """What was done, for a person.

        Returns
        -------
        list of str
            One line each.
        """
        told = [f"- {step['step']}: {step['told']}" for step in self.report["steps"]]
        if self.changed and Trust.of(self.bundle).active:
            told.append(
                "What is unsure or unlike training still follows thresholds of another laboratory: "
                "leuko models calibrate fits them to labelled cells of this one."
            )
        return told


@dataclass(slots=True)
class _State:
    """What has been accepted so far."""

    bundle: ModelBundle
    spec: PreprocessSpec
    shown: Shown
    check: Check
    bias: Any = field(default_factory=lambda: np.zeros(len(CLASSES)))


def adapt(
    model: str | os.PathLike[str] | ModelBundle,
    images: Sequence[str],
    *,
    labels: str | os.PathLike[str] | None = None,
    measure: bool = True,
    seed: int = 0,
    threads: int | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> Adaptation:
    """Fit a bundle to the pictures of one microscope, and to labels of some of them.

    Parameters
    ----------
    model : str, path-like or ModelBundle
        A name of the zoo, a path, or an open bundle.
    images : sequence of str
        Files, folders, globs, ``.zip`` archives or ``.txt`` lists; see
        `leuko.runtime.sources.expand`.
    labels : path-like, optional
        CSV with the columns ``path`` and ``label``, and ``slide`` where names do not tell it; paths
        are relative to its own folder, or else to a folder of `images`.
    measure : bool
        Whether the fit to labels may use numbers measured on the cell (`leuko.cells.measure`). Such
        a bundle runs in Leuko alone: no other runtime measures.
    seed : int
        Decides which pictures are drawn, how they are altered, and how slides, or cells where fewer
        than two slides are known, are dealt to folds.
    threads, progress, say
        See `fit_adaptation`.

    Returns
    -------
    Adaptation
        With the new bundle, to be saved.

    Raises
    ------
    AdaptError
        When there are too few pictures or labels, or labels and cross-validation say that the
        refit is no better than the bundle as it was.
    DataError
        When images or labels cannot be found.
    """
    bundle = model if isinstance(model, ModelBundle) else load(model, threads=threads).bundle
    named: list[tuple[Source, int]] = []
    slides: list[str] = []
    if labels is not None:
        manifest = read_csv(labels)
        folders = [Path(os.path.expanduser(one)) for one in images]
        slides = manifest.slides
        named = [
            (file_source(place), sample.label)
            for place, sample in zip(
                labelled_files(manifest, folders), manifest.samples, strict=True
            )
        ]
    return fit_adaptation(bundle, list(expand(images)), labels=named, slides=slides,
                          measure=measure, seed=seed, threads=threads, progress=progress,
                          say=say)  # fmt: skip


def fit_adaptation(
    bundle: ModelBundle,
    images: Sequence[Source],
    *,
    labels: Sequence[tuple[Source, int]] = (),
    slides: Sequence[str] = (),
    measure: bool = True,
    seed: int = 0,
    threads: int | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> Adaptation:
    """Fit a bundle to pictures, see `adapt`.

    Parameters
    ----------
    bundle : ModelBundle
        As it is.
    images : sequence of Source
        Of one laboratory.
    labels : sequence of (Source, int)
        Labelled pictures of the same laboratory, with positions in `CLASSES`.
    slides : sequence of str, optional
        Slide of each labelled picture, empty where it is not known; none is known when left out.
    measure, seed
        See `adapt`.
    threads : int, optional
        As many as there are cores when None; they change no result.
    progress : callable, optional
        Called as ``progress(stage, done, total)``.
    say : callable, optional
        Called with sentences for a person: pictures that were left out, and why.

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
    tell = say or (lambda _: None)
    rows = [(*row, slide) for row, slide in zip(labels, slides or [""] * len(labels), strict=True)]
    pictures, labelled = _usable(bundle, images, rows, seed, threads, progress, tell)
    trust = Trust.of(bundle)

    def look(spec: PreprocessSpec, stage: str) -> Shown:
        return show(bundle, spec, pictures, seed=seed, threads=threads, progress=progress,
                    stage=stage)  # fmt: skip

    spec = bundle.preprocess
    shown = look(spec, "as shipped")
    first = check(shown.logits, spec.weights, temperature=trust.temperature)
    state = _State(bundle, spec, shown, first)
    steps = [
        _try_scale(state, pictures, trust, seed, look),
        _try_looks(state, trust, seed),
        _try_statistics(state, trust, seed),
    ]
    report: dict[str, Any] = {
        "schema": schema("adaptation"),
        "adapted_from": bundle.digest,
        "images": len(pictures),
        "images_digest": digest_json(sorted(one.sha256 for one in pictures)),
        "seed": seed,
        "before": first.to_dict(),
        "after": state.check.to_dict(),
        "steps": steps,
        "labels": None,
    }
    fitted: Refit | None = None
    if labels:
        fitted = refit(bundle, (state.spec, state.bias), labelled, measure=measure, seed=seed,
                       threads=threads, progress=progress)  # fmt: skip
        report["labels"] = fitted.report
        if not fitted.unlabelled:  # the labels say that the steps above did harm, if any was kept
            state.spec, state.bias = spec, np.zeros(len(CLASSES))
            report["after"] = first.to_dict()
            for step in (one for one in steps if one["kept"]):
                told = step["told"].removeprefix(f"{_KEPT} ")
                step["kept"] = False
                step["told"] = f"given up: labelled cells are answered better without it. {told}"
        steps.append(fitted.step)
    report["changed"] = any(step["kept"] for step in steps)
    report = rounded(report)
    if not report["changed"]:
        return Adaptation(bundle, {**report, "digest": bundle.digest})
    made = _made(bundle, state, fitted, report)
    return Adaptation(made, {**report, "digest": made.digest})


def _usable(
    bundle: ModelBundle,
    images: Sequence[Source],
    labels: Sequence[tuple[Source, int, str]],
    seed: int,
    threads: int | None,
    progress: Progress | None,
    tell: Callable[[str], None],
) -> tuple[list[Picture], Labelled]:
    """Read what was given: different pictures that hold a cell, and labelled ones among them."""
    drawn = list(images)
    if len(drawn) > MOST_PICTURES:
        rng = np.random.default_rng([seed, len(drawn)])
        kept = np.sort(rng.choice(len(drawn), MOST_PICTURES, replace=False))
        drawn = [drawn[index] for index in kept]
        tell(f"{MOST_PICTURES} of {len(images)} images are drawn.")
    sources = [source for source, _, _ in labels] + drawn
    pictures: dict[str, Picture] = {}
    named: dict[str, int] = {}
    slides: dict[str, str] = {}
    for index, found in enumerate(survey(sources, threads=threads, progress=progress)):
        name = sources[index].name
        if isinstance(found, ImageError):
            tell(f"Rejected {name} ({found.reason}: {found.detail})")
            continue
        if bundle.preprocess.view != "centre" and not found.finding.found:
            tell(f"Left out {name} ({found.finding.reason}: no cell is found in it)")
            continue
        if index < len(labels):
            _, label, slide = labels[index]
            slides[found.sha256] = slides.get(found.sha256) or slide
            if named.setdefault(found.sha256, label) != label:
                raise AdaptError(
                    f"{name} has the same bytes as another labelled image and another label."
                )
        pictures.setdefault(found.sha256, found)
    if len(pictures) < MIN_PICTURES:
        raise AdaptError(
            f"Fitting needs {MIN_PICTURES} different images that hold a cell; {len(pictures)} of "
            f"the {len(sources)} given can be used. Give more images of the same microscope."
        )
    digests = [*named]
    classes = np.array([named[one] for one in digests], np.int64)
    if labels and (len(digests) < MIN_LABELS or len({*classes.tolist()}) < 2):
        raise AdaptError(
            f"Fitting to labels needs {MIN_LABELS} different usable cells of two classes; received "
            f"{len(digests)} of {len({*classes.tolist()})}. Label more, or leave --labels out."
        )
    cells = Labelled([pictures[one] for one in digests], classes, [slides[one] for one in digests])
    return [*pictures.values()], cells


def _step(name: str, verdict: Verdict, told: str, **facts: Any) -> dict[str, Any]:
    """One candidate for the report."""
    word = _KEPT if verdict.kept else "not kept."
    sentence = f"{told} {verdict.reason}".strip()
    return {"step": name, "kept": verdict.kept, "told": f"{word} {sentence}", **facts}


def _try_scale(
    state: _State,
    pictures: Sequence[Picture],
    trust: Trust,
    seed: int,
    look: Callable[[PreprocessSpec, str], Shown],
) -> dict[str, Any]:
    """One scale for all pictures, where they are of one magnification."""
    spec = state.spec
    why = ""
    sides = np.array([max(one.size) for one in pictures], np.float64)
    scales = np.log([max(one.finding.micrometre, 1e-6) for one in pictures])
    errors = np.array([one.finding.micrometre_error for one in pictures])
    spread, stated = float(scales.std()), float(np.sqrt((errors**2).mean()))
    micrometre = shared_micrometre(one.finding for one in pictures)
    alike = float((np.abs(sides / np.median(sides) - 1) <= _ALIKE).mean())
    if spec.view == "centre":
        why = "The model does not look for the cell, so it has no scale."
    elif spec.micrometre:
        why = f"The model has one scale already, {spec.micrometre:g} pixels to a micrometre."
    elif alike < _ALIKE_SHARE:
        why = "The pictures are of different sizes, so perhaps of different magnifications."
    elif spread > stated:
        why = (
            f"The scales differ by {spread:.2f} (standard deviation of the logarithm) from picture "
            f"to picture, more than their error of {stated:.2f}: not one magnification."
        )
    elif micrometre is None or not 0.5 <= micrometre <= 100:
        why = f"The scale, {micrometre}, is out of range."
    if why or micrometre is None:
        return _step("scale", Verdict(False, why), "")
    changed = replace(spec, micrometre=round(micrometre, 4))
    shown = look(changed, "one scale")
    after = check(shown.logits, spec.weights, temperature=trust.temperature)
    verdict = judge(state.check, after, seed=seed)
    if verdict.kept:
        state.spec, state.shown, state.check = changed, shown, after
    return _step(
        "scale", verdict,
        f"One scale of {changed.micrometre:g} pixels to a micrometre; picture by picture it "
        f"differs by {spread:.2f} (standard deviation of the logarithm).",
        micrometre=changed.micrometre, spread=spread, stated_error=stated, check=after.to_dict(),
    )  # fmt: skip


def _try_looks(state: _State, trust: Trust, seed: int) -> dict[str, Any]:
    """More weight for the looks without texture."""
    spec = state.spec
    if len(spec.styles) == 1:
        why = "The model has one look at a cell."
        return _step("looks", Verdict(False, why), "")
    given = spec.weights or (1.0,) * len(spec.styles)
    weights = (given[0], *(one / PLAIN_WEIGHT for one in given[1:]))
    after = check(state.shown.logits, weights, temperature=trust.temperature)
    verdict = judge(state.check, after, seed=seed)
    if verdict.kept:
        state.spec, state.check = replace(spec, weights=weights), after
    told = f"Weights {', '.join(f'{w:g} {s}' for w, s in zip(weights, spec.styles, strict=True))}."
    return _step("looks", verdict, told, weights=list(weights), check=after.to_dict())


def _try_statistics(state: _State, trust: Trust, seed: int) -> dict[str, Any]:
    """Move the mean features to where training would have them."""
    space, features = state.bundle.space, state.shown.features
    exposed = expose(state.bundle.onnx, features=False, maps=False)
    why = ""
    if space is None or len(space.centres) < len(CLASSES):
        why = "The model does not say where the features of its training lie."
    elif features is None or exposed.weights is None or exposed.bias is None:
        why = "The network does not end in one linear layer."
    if why or space is None or features is None or exposed.weights is None:
        return _step("statistics", Verdict(False, why), "")
    weights = state.spec.weights or None
    mean = features_in_space(features, weights, trust)
    head = Head(exposed.weights.astype(np.float64), np.asarray(exposed.bias, np.float64))
    bias = mean_shift(space, mean, head, temperature=trust.temperature)
    after = check(state.shown.logits, state.spec.weights, bias=bias, temperature=trust.temperature)
    verdict = judge(state.check, after, seed=seed)
    if verdict.kept:
        state.bias, state.check = bias, after
    lengths = np.linalg.norm(mean, axis=1, keepdims=True)
    far = float(np.linalg.norm((mean / lengths).mean(axis=0) - space.mean.astype(np.float64)))
    shifts = ", ".join(f"{one} {value:+.2f}" for one, value in zip(CLASSES, bias, strict=True))
    return _step(
        "statistics", verdict, f"The mean features lie {far:.2f} from those of training. {shifts}.",
        shift=dict(zip(CLASSES, bias.tolist(), strict=True)), distance=far, check=after.to_dict(),
    )  # fmt: skip


def features_in_space(
    features: npt.NDArray[Any], weights: Sequence[float] | None, trust: Trust
) -> npt.NDArray[Any]:
    """Give the features that a bundle's feature space is of: the first look's, or the mean.

    Parameters
    ----------
    features : (N, K, d) float
        Of every look.
    weights : sequence of float or None
        What each look counts for.
    trust : Trust
        The bundle's; see `Trust.again`.

    Returns
    -------
    (N, d) float
        One row a picture.
    """
    if trust.again is not None:
        return features[:, 0]
    return np.asarray(np.average(features, axis=1, weights=weights))


def _made(
    bundle: ModelBundle, state: _State, fitted: Refit | None, report: dict[str, Any]
) -> ModelBundle:
    """The bundle with everything that was kept, goldens asked again."""
    onnx, calibration, temperature = bundle.onnx, bundle.calibration, Trust.of(bundle).temperature
    head: Head | None = None
    layer: MeasuredLayer | None = None
    if fitted is not None and fitted.head is not None:
        head, layer = fitted.head, fitted.layer
        temperature, calibration = fitted.temperature, fitted.calibration(calibration)
    elif state.bias.any():
        exposed = expose(onnx, features=False, maps=False)
        head = Head(np.asarray(exposed.weights, np.float64), np.asarray(exposed.bias) + state.bias)
    if head is not None:
        onnx = replace_head(onnx, head.weights, head.bias)
    plain = replace(
        bundle,
        onnx=onnx,
        preprocess=state.spec,
        goldens=make_goldens(onnx, state.spec, layer),
        measured=layer,
        calibration={"method": "none"},
        thresholds={},
        space=None,
    )
    pictures = plain.goldens.pictures
    classifier = OnnxClassifier(plain, threads=1, features=True)
    outputs = classifier.ask(list(pictures))
    if head is not None:
        logits = head.logits(outputs[1])
        if layer is not None:
            seen = [first_look(picture, state.spec).measures() for picture in pictures]
            logits += layer.logits(seen)
        off = float(np.abs(softmax(logits) - outputs[0]).max())
        if not off <= _TRUE_HEAD:
            raise AdaptError(
                f"{bundle.name} cannot be fitted: its last layer is not the linear one that it "
                f"seems to be (a probability of its golden pictures is off by {off:.2g})."
            )
    answers = Trust(temperature).calibrate(outputs[0]).astype(np.float32)
    space, thresholds = bundle.space, dict(bundle.thresholds)
    if "again" in thresholds:
        thresholds["again"] = _ALWAYS
    if space is not None:
        _, features = classifier.ask(list(pictures), Trust(temperature, thresholds, space))
        space = replace(space, goldens=feature_distances(space, features).astype(np.float32))
    source = {"name": bundle.name, "digest": bundle.digest, "validation": bundle.validation}
    validation = {} if fitted is None else fitted.validation
    if "trust" in bundle.validation:
        validation = {**validation, "trust": bundle.validation["trust"]}
    made = replace(
        plain,
        goldens=Goldens(pictures, answers),
        calibration=calibration,
        thresholds=thresholds,
        space=space,
        validation=validation,
        provenance={
            **bundle.provenance,
            "adapted_from": bundle.digest,
            "adaptation": {**report, "source": source},
        },
    )
    return replace(made, card=adapted_card(bundle.card, report))
