"""What can be refused, or remarked, before TensorFlow is imported and any image is read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from leuko.data.balance import PLAN_FILE
from leuko.errors import DataError, UsageError
from leuko.manifest import find_splits, is_table
from leuko.recipe import Recipe, load_recipe

__all__ = ["passed_over", "plan_comparison", "plan_training"]


def plan_training(
    dataset: str | os.PathLike[str], recipe: str | Recipe, *, seed: int | None = None
) -> Recipe:
    """Check what a training is asked for.

    Parameters
    ----------
    dataset : path-like
        A folder with ``Train`` in it, or a CSV with the training images.
    recipe : str or Recipe
        What to train.
    seed : int, optional
        In place of the recipe's.

    Returns
    -------
    Recipe
        With that seed.

    Raises
    ------
    RecipeError
        When there is no such recipe, or it is wrong.
    DataError
        When there is no data set in the folder, or none to train on.
    """
    chosen = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    if not is_table(dataset) and "train" not in find_splits(dataset):
        raise DataError(f"{dataset} has no training folder, so nothing can be trained on it.")
    return chosen if seed is None else chosen.with_seed(seed)


def plan_comparison(
    dataset: str | os.PathLike[str],
    recipes: Sequence[str | Recipe],
    out: str | os.PathLike[str],
    *,
    seeds: int = 1,
    resume: bool = False,
) -> list[Recipe]:
    """Check what a comparison is asked for; nothing is written.

    Parameters
    ----------
    dataset : path-like
        A folder with ``Train`` and ``Test`` in it.
    recipes : sequence of str or Recipe
        At least one.
    out : path-like
        The folder to write to: none yet, an empty one, or a comparison's when `resume` is set.
    seeds : int
        Trainings of each recipe.
    resume : bool
        Go on where a killed comparison stood.

    Returns
    -------
    list of Recipe
        Opened, in the same order.

    Raises
    ------
    RecipeError
        When there is no such recipe, or it is wrong.
    UsageError
        When recipes repeat, there are no seeds, or the folder holds other things.
    DataError
        When there is no data set in the folder, or no test folder in it.
    """
    opened = [one if isinstance(one, Recipe) else load_recipe(one) for one in recipes]
    names = [recipe.name for recipe in opened]
    if not names or len(set(names)) < len(names) or seeds < 1:
        raise UsageError(
            f"Compare needs different recipes and at least one seed; received {names}, {seeds}."
        )
    _refuse_other(Path(out), resume)
    splits = find_splits(dataset)
    for split, name, why in (
        ("train", "training", "nothing can be trained on it"),
        ("test", "test", "nothing can be compared on it"),
    ):
        if split not in splits:
            raise DataError(f"{dataset} has no {name} folder, so {why}.")
    return opened


def passed_over(dataset: str | os.PathLike[str]) -> str:
    """Say which balanced folder lies beside the training images and is not read.

    Parameters
    ----------
    dataset : path-like
        A folder with ``Train`` in it, or a CSV.

    Returns
    -------
    str
        A sentence for a person; empty when there is no such folder.
    """
    train = None if is_table(dataset) else find_splits(dataset).get("train")
    if train is None:
        return ""
    try:
        beside = sorted(one for one in train.parent.iterdir() if one != train)
        found = [one.name for one in beside if one.is_dir() and _is_balanced(one)]
    except OSError:
        return ""  # a folder that cannot be looked into is not read either
    if not found:
        return ""
    what = "are" if len(found) > 1 else "is"
    return (
        f"{' and '.join(found)} {what} not read: training takes {train.name}, and a recipe "
        "balances it by itself."
    )


def _is_balanced(folder: Path) -> bool:
    """Whether `leuko balance` wrote a folder, or its name says that somebody did."""
    bare = folder.name.lower().replace("_", "").replace("-", "").replace(" ", "")
    return bare == "balancedtrain" or (folder / PLAN_FILE).is_file()


def _refuse_other(folder: Path, resume: bool) -> None:
    """Refuse a folder that is not ours to write to."""
    if not folder.is_dir():
        return
    found = {entry.name for entry in folder.iterdir()}
    begun = bool(found & {"runs", "comparison.json"})
    if begun and not resume:
        raise UsageError(
            f"{folder} already holds a comparison. Go on with it by --resume, or choose another "
            "folder."
        )
    if found and not begun:
        raise UsageError(f"{folder} is not empty and holds no comparison; choose another folder.")
