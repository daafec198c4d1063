"""The model card: everything that a bundle says of itself, in Markdown.

A card is written whole, out of what the bundle holds, whenever something was done to the model:
nothing of an earlier card is read. What an author adds stands under ``provenance["card"]`` and is
quoted at the end; where nobody recorded how a network was made, that is the card that it came with.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from leuko.bundle import ModelBundle
from leuko.cells.morphometry import MEASURES
from leuko.data.seen import had_a_head_start
from leuko.errors import UsageError
from leuko.history import (
    ImportReport,
    LabelsReport,
    TrainingReport,
    TrustReport,
    Variant,
)
from leuko.imaging.preprocess import PreprocessSpec
from leuko.runtime.trust.decide import NEVER_CHECKED, Trust
from leuko.support.artifacts import RESEARCH_USE

__all__ = ["pixels_in_words", "refit_in_words", "trust_section", "with_card"]

_ALWAYS_NAMES: Final = (
    "It always names one of its classes, also for pictures that hold no white blood cell."
)
_NOT_CALIBRATED: Final = "Probabilities are not calibrated."
_LIMITS: Final = (
    "Cells of one laboratory share stain, light and camera. Figures on images from another "
    "laboratory will be lower; measure them with `leuko evaluate` on labelled images of your "
    "own before relying on any answer."
)

_FOREIGN: Final = (AttributeError, KeyError, TypeError, ValueError, UsageError)
"""What comes of reading a stranger's provenance, which may hold anything."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class _History:
    """What is known of a bundle, each part None where it is not."""

    bundle: ModelBundle
    training: TrainingReport | None
    imported: ImportReport | None
    variant: Variant | None
    labels: LabelsReport | None
    trust: TrustReport | None

    @classmethod
    def of(cls, bundle: ModelBundle) -> _History:
        """Read it; a stranger's provenance may hold anything."""
        known = bundle.provenance
        adaptation = known.get("adaptation")
        labels = adaptation.get("labels") if isinstance(adaptation, Mapping) else None
        return cls(
            bundle,
            _read(TrainingReport.of_provenance, known),
            _read(ImportReport.from_dict, known.get("imported")),
            _read(Variant.from_dict, known.get("variant")),
            _read(LabelsReport.from_dict, labels),
            _read(TrustReport.from_dict, _first(bundle, "trust")),
        )

    @property
    def is_recorded(self) -> bool:
        """Whether it is known how the network was made."""
        return self.training is not None or self.imported is not None


def _read(read: Callable[[Mapping[str, Any]], _T | None], values: object) -> _T | None:
    """What a part of a bundle says; None where it is not there, or not as Leuko writes it."""
    if not isinstance(values, Mapping):
        return None
    try:
        return read(values)
    except _FOREIGN:
        return None


def _validations(bundle: ModelBundle) -> list[Mapping[str, Any]]:
    """Figures of a bundle, and then of what it was made from, step by step."""
    made_from = [_source(bundle.provenance, "variant")]
    known: Mapping[str, Any] = bundle.provenance
    while known := _source(known, "adaptation"):
        made_from.append(known)
    return [bundle.validation, *map(_figures, made_from)]


def _source(known: Mapping[str, Any], step: str) -> Mapping[str, Any]:
    """What was known of the model that a step began with; empty where there was no such step."""
    made = known.get(step)
    source = made.get("source") if isinstance(made, Mapping) else None
    return source if isinstance(source, Mapping) else {}


def _figures(source: Mapping[str, Any]) -> Mapping[str, Any]:
    """Its figures; empty where it has none."""
    found = source.get("validation")
    return found if isinstance(found, Mapping) else {}


def _first(bundle: ModelBundle, key: str) -> Any:
    """What the latest of its figures say under a key."""
    return next((found[key] for found in _validations(bundle) if key in found), None)


def with_card(bundle: ModelBundle) -> ModelBundle:
    """Write a bundle's card anew.

    Parameters
    ----------
    bundle : ModelBundle
        With everything else as it will be saved.

    Returns
    -------
    ModelBundle
        With its card; and with its author's words in the provenance, where nothing else says how
        the network was made.
    """
    known = _History.of(bundle)
    if not known.is_recorded and "card" not in bundle.provenance:
        card = _without_trust(bundle.card)
        bundle = replace(bundle, provenance={**bundle.provenance, "card": card})
        known = replace(known, bundle=bundle)
    parts = (_opening, _export_section, _labels_section, _validation_section, _limits_section)
    sections = [_written(part, known) for part in (*parts, _trust_section, _author_section)]
    text = "\n\n".join("\n".join(section) for section in sections if section)
    return replace(bundle, card=text + "\n")


def _written(part: Callable[[_History], list[str]], known: _History) -> list[str]:
    """A section; left out where the bundle does not say what Leuko writes."""
    try:
        return part(known)
    except _FOREIGN:
        return []


def _opening(known: _History) -> list[str]:
    """Title, and what the network is."""
    bundle, training, imported = known.bundle, known.training, known.imported
    if training is not None:
        title, facts = training.title, _training_lines(training, bundle)
    elif imported is not None:
        title, facts = f"{imported.source_name}, imported", _import_lines(imported, bundle)
    else:
        title, facts = bundle.name, []
    if known.variant is not None:
        title += f", {known.variant.weights} {known.variant.form}"
    sorts = (
        "Sorts one white blood cell, in the middle of an RGB picture, into "
        f"{', '.join(bundle.scheme.names)}."
    )
    if known.trust is None:
        sorts += f" {_ALWAYS_NAMES}"
    return [f"# {title}", "", f"**{RESEARCH_USE}**", "", sorts, *facts]


def _training_lines(training: TrainingReport, bundle: ModelBundle) -> list[str]:
    """How it was trained."""
    spec = bundle.preprocess
    lines = [
        "",
        f"- Network: {training.architecture}, {bundle.parameters:,} parameters, input "
        f"{spec.size[0]} x {spec.size[1]}, {_view_in_words(spec)}.",
        f"- Initial weights: {training.weights}.",
    ]
    if training.teacher:
        lines.append(
            f"- Taught by {training.teacher}, digest `{training.teacher_digest[:16]}`: "
            f"{training.imitation:.0%} of what it learned are that model's probabilities, the "
            f"rest are labels. Its teacher: {training.teacher_knows}."
        )
    if training.seen:
        lines.append(f"- **{had_a_head_start(training.seen, training.of)}**")
    return [
        *lines,
        f"- Trained on {training.images:,} images, seed {training.seed}, {training.epochs} epochs "
        f"(best: {training.best_epoch}).",
        f"- Data digest `{training.data_digest[:16]}`, recipe digest "
        f"`{training.recipe_digest[:16]}`.",
    ]


def _view_in_words(spec: PreprocessSpec) -> str:
    """Which part of a picture the network sees."""
    if spec.view == "centre":
        return f"central {spec.crop:.0%} of the picture"
    alone = ", on an empty ground" if spec.view == "cell-alone" else ""
    told = f"the cell that is found in the picture and {spec.width:g} micrometres around{alone}"
    if len(spec.styles) == 1:
        return told
    weights = spec.weights or (1.0,) * len(spec.styles)
    views = ", ".join(
        f"{name} {weight:g}" for name, weight in zip(spec.styles, weights, strict=True)
    )
    return f"{told}; {len(spec.styles)} views of it are averaged (by weight: {views})"


def _import_lines(imported: ImportReport, bundle: ModelBundle) -> list[str]:
    """Where a foreign network came from."""
    keras = f", Keras {imported.keras_version}" if imported.keras_version else ""
    spec = bundle.preprocess
    return [
        "",
        f"A foreign model ({imported.source_format}{keras}), {bundle.parameters:,} parameters, "
        f"input {spec.size[0]} x {spec.size[1]}: {pixels_in_words(imported)}.",
        "",
        *(f"- {note}" for note in imported.notes),
        f"- SHA-256 of the file: `{imported.source_sha256}`",
        f"- Its outputs, in its own order: {', '.join(imported.model_classes)}",
        f"- Command: `{imported.command}`" if imported.command else "- Imported from Python.",
        "",
        "Nothing is known about how it was trained or how well it does. Measure it with "
        "`leuko evaluate`, and fit what its answers carry with `leuko models calibrate`, before "
        "relying on any answer.",
    ]


def pixels_in_words(imported: ImportReport) -> str:
    """Say what a foreign network's pixels are.

    Parameters
    ----------
    imported : ImportReport
        Of it.

    Returns
    -------
    str
        Part of a sentence.
    """
    by, plus = (
        ", ".join(f"{number:.6g}" for number in numbers)
        for numbers in (imported.input_scale, imported.input_offset)
    )
    return f"{imported.channel_order.upper()} 0 to 255 multiplied by {by}, plus {plus}"


def _export_section(known: _History) -> list[str]:
    """What was changed and measured when a variant was made."""
    variant = known.variant
    if variant is None:
        return []
    check, agreement, drawn = variant.check, variant.agreement, variant.drawn
    lines = [
        "## Exported",
        "",
        f"Made from {variant.source_name}, digest `{variant.source_digest[:16]}`, by "
        "`leuko export`.",
        "",
    ]
    if variant.calibration is not None:
        n, digest = variant.calibration
        lines.append(f"- Ranges measured on {n} pictures, digest `{digest[:16]}`.")
    if check is not None and check.balanced_accuracy is not None:
        figures = check.balanced_accuracy
        lines.append(
            f"- Balanced accuracy {figures.after:.4f}, the original's {figures.before:.4f}, on the "
            f"same {check.n:,} pictures, digest `{check.digest[:16]}`; the same class for "
            f"{check.agreement:.2%}."
        )
    elif agreement is not None:
        lines.append(
            f"- The original's class for {agreement.agreement:.2%} of {agreement.n:,} pictures "
            f"without labels, digest `{agreement.digest[:16]}`. Its accuracy was not measured."
        )
    else:
        lines.append("- Its accuracy was not measured; it was compared on drawn cells alone.")
    own = "trust" in known.bundle.validation
    return [
        *lines,
        f"- On {drawn.n} drawn cells: the same class for {drawn.agreement:.1%}, largest "
        f"difference of a probability {drawn.largest_difference:.2g}.",
        "- All other figures are the original's"
        + (", but for those under Trust." if own else ", and so are calibration and thresholds."),
    ]


def _labels_section(known: _History) -> list[str]:
    """What a refit to labelled cells gave."""
    labels, provenance = known.labels, known.bundle.provenance
    if labels is None:
        return []
    adaptation = provenance["adaptation"]
    before = _figures(_source(provenance, "adaptation")).get("trust")
    is_recalibrated = before != known.bundle.validation.get("trust")
    told = ", ".join(f"{count} {name}" for name, count in labels.classes.items() if count)
    right, balanced = labels.accuracy, labels.balanced_accuracy
    lines = [
        "## Adapted",
        "",
        f"Fitted to {labels.n} labelled cells of one laboratory (digest "
        f"`{adaptation['images_digest'][:16]}`), from the bundle "
        f"`{adaptation['adapted_from'][:12]}`. The figures outside this section"
        f"{' and Trust' if is_recalibrated else ''} are older than the fit, and say nothing "
        "of this bundle.",
        "",
        f"- {refit_in_words(labels)}",
        f"- Cells: {labels.n} ({told}), {_dealt_in_words(labels)}, {labels.repeats} times. "
        f"Accuracy {right.before:.3f} before, {right.after:.3f} ({labels.low:.3f} to "
        f"{labels.high:.3f}) cross-validated; balanced {balanced.before:.3f} and "
        f"{balanced.after:.3f}. Temperature {labels.temperature:.4g}, "
        f"{'fitted again' if labels.calibrated else 'as it was'}.",
    ]
    if labels.unseen:
        lines.append(
            f"- Held out, {labels.unseen} of these cells were answered by fits that had seen none "
            "of their class."
        )
    if known.trust is not None and not is_recalibrated:
        lines.append(
            "- The thresholds under Trust were fitted on another laboratory; `leuko models "
            "calibrate` fits them to labelled cells of this one."
        )
    return lines


def refit_in_words(labels: LabelsReport) -> str:
    """Say what was fitted to labelled cells, and what it gave.

    Parameters
    ----------
    labels : LabelsReport
        Of the refit.

    Returns
    -------
    str
        Sentences on one line.
    """
    ridge = f"A ridge of {labels.strength:g}"
    what = {
        "bias": "A bias on the last layer",
        "ridge": f"{ridge} on the last layer",
        "measured": f"{ridge} on the answers and {len(MEASURES)} numbers measured on cells",
    }[labels.kind]
    loss, right = labels.log_loss, labels.accuracy
    return (
        f"{labels.n} labelled cells, {_dealt_in_words(labels)}. {what}. Log-loss "
        f"{loss.before:.3f} as shipped, {loss.after:.3f} cross-validated; accuracy "
        f"{right.before:.3f} and {right.after:.3f}."
    )


def _dealt_in_words(labels: LabelsReport) -> str:
    """How labelled cells were dealt to folds."""
    if labels.dealt == "slides":
        return f"{labels.folds} folds of whole slides, {labels.slides} slides known"
    return (
        f"{labels.folds} folds of single cells, as fewer than two slides are known, so the figures "
        "may read too high"
    )


def _validation_section(known: _History) -> list[str]:
    """Figures of the training's own validation rows."""
    splits = ("slide", "random-file")
    found = [one for one in _validations(known.bundle) if one.get("split") in splits]
    if known.training is None or not found:
        return []
    figures = found[0]
    if figures["split"] == "slide":
        rows = f"{figures['n']:,} images of {figures['n_slides']} slides that training did not see."
    else:
        rows = (
            f"{figures['n']:,} images drawn at random from balanced files: copies of the same "
            "originals were trained on, so these figures read too high."
        )
    lines = ["## Validation", "", rows, ""]
    for warning in figures.get("warnings", ()):
        lines += [f"**{warning}**", ""]
    lines += ["| figure | value | 95% interval |", "|---|---|---|"]
    for name, metric in figures["metrics"].items():
        low, high = metric["low"], metric["high"]
        span = f"{low:.4f} to {high:.4f}" if low is not None else "too few slides"
        lines.append(f"| {name.replace('_', ' ')} | {metric['value']:.4f} | {span} |")
    return lines


def _limits_section(known: _History) -> list[str]:
    """What nobody may expect of it."""
    told = [_LIMITS] if known.training is not None else []
    if known.trust is None:
        told += [_NOT_CALIBRATED] if known.bundle.calibration == {"method": "none"} else []
        told += [] if Trust.of(known.bundle).accepts else [NEVER_CHECKED]
    return ["## Limits", "", " ".join(told)] if told else []


def _trust_section(known: _History) -> list[str]:
    """What was fitted when it was calibrated last."""
    return [] if known.trust is None else trust_section(known.trust, known.bundle.thresholds)


def trust_section(trust: TrustReport, thresholds: Mapping[str, float]) -> list[str]:
    """Say what was fitted when a bundle was calibrated.

    Parameters
    ----------
    trust : TrustReport
        What was measured.
    thresholds : mapping of str to float
        Of the bundle.

    Returns
    -------
    list of str
        Lines of Markdown, the first a heading.
    """
    targets, selection = trust.targets, trust.selection
    lines = [
        "## Trust",
        "",
        f"Fitted on {trust.n:,} images of {trust.n_slides} slides "
        f"(data digest `{trust.data[:16]}`).",
        "",
        f"- Temperature {trust.temperature:.4g}: log-loss {trust.log_loss.before:.4f} before, "
        f"{trust.log_loss.after:.4f} after; expected calibration error {trust.ece.before:.4f} "
        f"before, {trust.ece.after:.4f} after.",
    ]
    if selection is not None:
        lines.append(
            f"- `unsure` below a probability of {selection.confidence:.3f}: "
            f"{selection.coverage:.1%} are answered, {selection.accuracy:.1%} of these rightly. "
            f"The lower limit of that accuracy ({targets.level:.0%}) reaches the stated "
            f"{targets.accuracy:.1%} for images drawn one by one; on few slides it promises too "
            "much."
        )
    if trust.set_size is not None:
        lines.append(
            f"- Prediction sets hold the true class with a coverage of {targets.coverage:.0%} for "
            f"each class; they have {trust.set_size:.2f} classes on average."
        )
    if "again" in thresholds and trust.again is not None:
        lines.append(
            f"- Pictures further than {thresholds['again']:.3f} from training are looked at in "
            f"every style, as {trust.again:.1%} of these were; the first look answers for the "
            "others."
        )
    if "distance" in thresholds:
        of_others = "in the space that the bundle had: fitted on other images than these"
        of_these = f"which {targets.alarms:.1%} of the images exceed when their slide is left out"
        kept = "distance" in trust.kept
        lines.append(
            f"- `unlike-training` beyond a distance of {thresholds['distance']:.3f}"
            f"{f' {of_others}' if kept else f', {of_these}'}."
        )
    if "nucleus" in thresholds:
        lines.append("- `not-a-cell` where no nucleus is found, or nothing at all.")
    told = ", ".join(f"{name} {share:.1%}" for name, share in trust.shares.items())
    return [*lines, f"- On these images: {told}.", *(f"- {note}" for note in trust.notes)]


def _without_trust(card: str) -> str:
    """A card without what it says of trust, which is fitted anew when it is quoted."""
    sections = re.split(r"^(?=## )", card, flags=re.MULTILINE)
    return "".join(one for one in sections if not one.startswith("## Trust\n"))


def _author_section(known: _History) -> list[str]:
    """Its author's words, with headings below ours."""
    card = str(known.bundle.provenance.get("card", "")).strip()
    if not card:
        return []
    lines = ["## In its author's words", "", "Where they say otherwise, the above holds.", ""]
    return [*lines, *(f"##{line}" if line.startswith("#") else line for line in card.splitlines())]
