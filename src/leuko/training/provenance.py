"""What a bundle says of its training: its recipe, and figures on validation rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from leuko.bundle import ModelBundle
from leuko.recipe import Recipe
from leuko.support.artifacts import digest_file, finite

__all__ = ["plain", "validation_summary", "without_folders"]

_KNOWN_WEIGHTS: Final = ("none", "imagenet", "leuko")


def validation_summary(
    bundle: ModelBundle, document: dict[str, Any], *, split: str
) -> dict[str, Any]:
    """Sum up a bundle's evaluation on its validation rows, for the bundle itself.

    Parameters
    ----------
    bundle : ModelBundle
        From `leuko.runtime.trust.calibrate.fit_trust`, whose figures are kept.
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
        "warnings": document["warnings"],
    }
    trust = bundle.validation.get("trust")
    return plain(summary if trust is None else {**summary, "trust": trust})


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
