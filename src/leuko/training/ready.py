"""What a training may lack, looked for before anything is trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from leuko.data.split import split_by_slide
from leuko.errors import TrainingError
from leuko.manifest import Manifest
from leuko.recipe import Recipe
from leuko.support import artifacts
from leuko.training.architectures import check_weights
from leuko.training.to_onnx import require_converters

__all__ = ["BALANCED", "check_ready", "refuse_claimed", "with_weights"]

BALANCED: Final = "Balanced_Train"
"""Name of the folder in a run where a recipe of the published kind balances files."""


def with_weights(recipe: Recipe, weights: str | None) -> Recipe:
    """Start a recipe from other weights, if it has a backbone that could take any.

    Parameters
    ----------
    recipe : Recipe
        Any.
    weights : str or None
        ``imagenet``, ``leuko``, ``none`` or a path; None leaves the recipe as it is.

    Returns
    -------
    Recipe
        With these weights.

    Raises
    ------
    RecipeError
        When its architecture has no such weights.
    """
    if weights is None or not recipe.model.network.has_backbone:
        return recipe
    return replace(recipe, model=replace(recipe.model, weights=weights))


def check_ready(recipe: Recipe, run: Path, rows: Manifest) -> None:
    """Refuse a training that is bound to stop for want of something; nothing is written.

    Weights that come over the network are fetched, so that they are there later.

    Parameters
    ----------
    recipe : Recipe
        With the seed and the weights that it will be trained with.
    run : Path
        Its run folder; a run that was begun there is gone on with.
    rows : Manifest
        The training images.

    Raises
    ------
    DataError
        When there are too few slides.
    TrainingError
        When the folder holds something else, or weights cannot be had.
    MissingExtraError
        When a package is not installed that exports what was trained.
    """
    refuse_claimed(run, recipe, resume=True)
    if (run / "bundle" / "bundle.json").exists():
        return
    require_converters()
    if recipe.data.split == "slide":
        split_by_slide(rows, fraction=recipe.data.validation, seed=recipe.seed)
    check_weights(recipe)


def refuse_claimed(run: Path, recipe: Recipe, *, resume: bool) -> None:
    """Say why a run folder is not a recipe's, if it is not.

    Parameters
    ----------
    run : Path
        The folder, which may not exist yet.
    recipe : Recipe
        What is to be trained there.
    resume : bool
        Whether a run of the same recipe may have been begun there.

    Raises
    ------
    TrainingError
        When it holds another run, or something else.
    """
    begun = (run / "recipe.toml").exists()
    if begun and not resume:
        raise TrainingError(
            f"{run} already holds a run. Go on with it by --resume, or choose another folder."
        )
    if run.exists() and not run.is_dir():
        raise TrainingError(f"{run} is a file; a run needs a folder.")
    if run.exists() and not begun and any(not _is_ours(entry) for entry in run.iterdir()):
        raise TrainingError(f"{run} is not empty and holds no run; choose another folder.")
    if begun and (run / "recipe.toml").read_text(encoding="utf-8") != recipe.to_toml():
        raise TrainingError(
            f"{run} was begun with another recipe, seed or weights; resume it with the same ones, "
            "or choose another folder."
        )


def _is_ours(entry: Path) -> bool:
    """Whether a killed run may have left this before its recipe was written."""
    return entry.name.startswith(artifacts.TEMPORARY_PREFIX) or entry.name in {
        BALANCED,
        "manifest.json",
        "environment.json",
    }
