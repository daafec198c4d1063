"""What a bundle says of its training: provenance, figures on validation rows, and a card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from leuko.artifacts import RESEARCH_USE, digest_file, finite
from leuko.bundle import ModelBundle
from leuko.data.seen import had_a_head_start
from leuko.evaluation.report import no_better
from leuko.recipe import Recipe
from leuko.runtime.trust import NEVER_CHECKED, Trust
from leuko.runtime.trust_bundle import ALWAYS_NAMES, NOT_CALIBRATED

__all__ = ["model_card", "plain", "validation_summary", "without_folders"]

_KNOWN_WEIGHTS: Final = ("none", "imagenet", "leuko")


def validation_summary(
    bundle: ModelBundle, document: dict[str, Any], *, split: str
) -> dict[str, Any]:
    """Sum up a bundle's evaluation on its validation rows, for the bundle itself.

    Parameters
    ----------
    bundle : ModelBundle
        From `leuko.runtime.trust_bundle.fit_trust`, whose figures are kept.
    document : dict
        Of `leuko.evaluation.report.EvaluationReport`.
    split : str
        How the rows were set aside; see `leuko.recipe.DataSettings`.

    Returns
    -------
    dict
        Plain values.
    """
    names = ("accuracy", "balanced_accuracy", "macro_f1")
    summary = {
        "split": split,
        "n": document["n"],
        "n_slides": document["n_slides"],
        "metrics": {name: document["metrics"][name] for name in names},
        "baselines": document["baselines"],
        "confusion": document["confusion"],
    }
    trust = bundle.validation.get("trust")
    return plain(summary if trust is None else {**summary, "trust": trust})


def model_card(bundle: ModelBundle, recipe: Recipe) -> str:
    """Write a model card in Markdown out of what is known.

    Parameters
    ----------
    bundle : ModelBundle
        With provenance and validation.
    recipe : Recipe
        What it was trained by.

    Returns
    -------
    str
        Without a section on trust; see `leuko.runtime.trust_bundle.trust_card`.
    """
    p, v = bundle.provenance, bundle.validation
    lines = [
        f"# {recipe.title}",
        "",
        f"**{RESEARCH_USE}**",
        "",
        "Sorts one white blood cell, in the middle of an RGB picture, into "
        f"{', '.join(bundle.scheme.names)}. {ALWAYS_NAMES}",
        "",
        f"- Network: {recipe.model.architecture}, {bundle.parameters:,} parameters, input "
        f"{recipe.preprocess.size[0]} x {recipe.preprocess.size[1]}, {_view_words(recipe)}.",
        f"- Initial weights: {p['start']['weights']}.",
        *_teacher_lines(recipe, p),
        f"- Trained on {p['training_images']:,} images, seed {p['seed']}, "
        f"{p['epochs']} epochs (best: {p['best_epoch']}).",
        f"- Data digest `{p['manifest_digest'][:16]}`, recipe digest `{p['recipe_digest'][:16]}`.",
        "",
        "## Validation",
        "",
    ]
    if v["split"] == "slide":
        lines.append(f"{v['n']:,} images of {v['n_slides']} slides that training did not see.")
    else:
        lines.append(
            f"{v['n']:,} images drawn at random from balanced files: copies of the same originals "
            "were trained on, so these figures read too high."
        )
    if not v["baselines"]["majority"]["beaten"]:
        lines += ["", f"**{no_better(v['confusion'], bundle.scheme.names)}**"]
    lines += ["", "| figure | value | 95% interval |", "|---|---|---|"]
    for name, metric in v["metrics"].items():
        low, high = metric["low"], metric["high"]
        span = f"{low:.4f} to {high:.4f}" if low is not None else "too few slides"
        lines.append(f"| {name.replace('_', ' ')} | {metric['value']:.4f} | {span} |")
    lines += [
        "",
        "## Limits",
        "",
        "Cells of one laboratory share stain, light and camera. Figures on images from another "
        "laboratory will be lower; measure them with `leuko evaluate` on labelled images of your "
        f"own before relying on any answer. {NOT_CALIBRATED}"
        + ("" if Trust.of(bundle).accepts else f" {NEVER_CHECKED}"),
        "",
    ]
    return "\n".join(lines)


def _view_words(recipe: Recipe) -> str:
    """Which part of a picture the network sees, for people."""
    spec = recipe.preprocess
    if spec.view == "centre":
        return f"central {spec.crop:.0%} of the picture"
    alone = ", on an empty ground" if spec.view == "cell-alone" else ""
    told = f"the cell that is found in the picture and {spec.width:g} micrometres around{alone}"
    if len(spec.styles) == 1:
        return told
    weights = spec.weights or (1.0,) * len(spec.styles)
    looks = ", ".join(
        f"{name} {weight:g}" for name, weight in zip(spec.styles, weights, strict=True)
    )
    return f"{told}; {len(spec.styles)} looks at it are averaged (by weight: {looks})"


def _teacher_lines(recipe: Recipe, provenance: dict[str, Any]) -> list[str]:
    """Who taught it, and which of its images were known before, for the card."""
    start, lines = provenance["start"], []
    if "teacher" in provenance:
        name = recipe.train.teacher.replace("\\", "/").rpartition("/")[2]
        lines.append(
            f"- Taught by {name}, digest `{provenance['teacher'][:16]}`: "
            f"{recipe.train.imitation:.0%} of what it learned are that model's probabilities, the "
            f"rest are labels. Its teacher: {start['teacher']}."
        )
    if start["seen"]:
        lines.append(f"- **{had_a_head_start(start['seen'], start['of'])}**")
    return lines


def without_folders(recipe: Recipe) -> dict[str, Any]:
    """What a bundle says of its recipe: a file of weights by name and digest, not by its place.

    Parameters
    ----------
    recipe : Recipe
        With the weights that it was trained from.

    Returns
    -------
    dict
        ``recipe``, and ``weights_sha256`` where the weights are a file.
    """
    document, weights = recipe.to_dict(), recipe.model.weights
    document["train"]["teacher"] = recipe.train.teacher.replace("\\", "/").rpartition("/")[2]
    if weights in _KNOWN_WEIGHTS:
        return {"recipe": document}
    file = Path(weights).expanduser()
    document["model"]["weights"] = file.name
    return {
        "recipe": document,
        "weights_sha256": digest_file(file) if file.is_file() else None,
    }


def plain(document: dict[str, Any]) -> dict[str, Any]:
    """Make JSON values: NumPy numbers become Python's, infinities None.

    Parameters
    ----------
    document : dict
        Any values that JSON knows, and NumPy's.

    Returns
    -------
    dict
        The same in plain values.
    """
    made: dict[str, Any] = json.loads(json.dumps(finite(document), default=float))
    return made
