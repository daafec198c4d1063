"""What can be refused, or remarked, before TensorFlow is imported and any image is read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from leuko.data.balance.write import PLAN_FILE
from leuko.data.dataset import Dataset, Pictures
from leuko.errors import DataError, OutputError, UsageError
from leuko.manifest import Manifest
from leuko.recipe import Recipe, load_recipe

__all__ = ["check_readable", "check_room", "passed_over", "plan_comparison", "plan_training"]

_RUN_BYTES: Final = 8 * 2**20
"""What a run folder holds at most, ..."""

_PARAMETER_BYTES: Final = 52
"""...with this for each parameter: weights, the optimizer's state, two models and a bundle."""


def plan_training(dataset: Dataset, recipe: str | Recipe, *, seed: int | None = None) -> Recipe:
    """Check what a training is asked for.

    Parameters
    ----------
    dataset : Dataset
        With training images.
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
        When there is nothing to train on.
    """
    chosen = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    dataset.require("train", "nothing can be trained on it")
    return chosen if seed is None else chosen.with_seed(seed)


def plan_comparison(
    dataset: Dataset,
    recipes: Sequence[str | Recipe],
    out: str | os.PathLike[str],
    *,
    seeds: int = 1,
    resume: bool = False,
) -> list[Recipe]:
    """Check what a comparison is asked for; nothing is written.

    Parameters
    ----------
    dataset : Dataset
        With training and test images.
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
        When there are no training or no test images.
    """
    opened = [one if isinstance(one, Recipe) else load_recipe(one) for one in recipes]
    names = [recipe.name for recipe in opened]
    if not names or len(set(names)) < len(names) or seeds < 1:
        raise UsageError(
            f"Compare needs different recipes and at least one seed; received {names}, {seeds}."
        )
    _refuse_other(Path(out), resume)
    dataset.require("train", "nothing can be trained on it")
    dataset.require("test", "nothing can be compared on it")
    return opened


def check_readable(sets: Mapping[str, Manifest], pictures: Pictures) -> None:
    """Refuse a set of which no image can be read, before models are trained to be measured on it.

    Parameters
    ----------
    sets : mapping of str to Manifest
        By name; images are decoded until one can be read.
    pictures : Pictures
        Decodes them, but those that it has decoded before.

    Raises
    ------
    DataError
        When there is a set without a single one.
    """
    for name, manifest in sets.items():
        if not any(pictures.readable(file) for file in manifest.files()):
            raise DataError(
                f"Not one of the {len(manifest)} images of {name}, in {manifest.root}, could be "
                "read."
            )


def check_room(out: Path, recipes: Sequence[Recipe], rows: Manifest) -> None:
    """Refuse a comparison that would fill the disk up.

    Parameters
    ----------
    out : Path
        An existing folder on that disk.
    recipes : sequence of Recipe
        One for each training that is not finished yet.
    rows : Manifest
        The training images: some recipes write balanced copies of them.

    Raises
    ------
    OutputError
        When less is free than these trainings take at most.
    """
    mean = sum(file.stat().st_size for file in rows.files()) / len(rows)
    copies = len(rows.counts) * max(rows.counts) * mean
    needed = sum(
        _RUN_BYTES
        + _PARAMETER_BYTES * recipe.model.network.parameters
        + copies * (recipe.data.balance == "files")
        for recipe in recipes
    )
    free = shutil.disk_usage(out).free
    if free < needed:
        raise OutputError(
            f"{out} has {free / 1e6:,.0f} MB free, and this comparison may take "
            f"{needed / 1e6:,.0f} MB. Free some space, or choose a folder on another disk."
        )


def passed_over(dataset: Dataset) -> str:
    """Say which balanced folder lies beside the training images and is not read.

    Parameters
    ----------
    dataset : Dataset
        A table has nothing beside its rows.

    Returns
    -------
    str
        A sentence for a person; empty when there is no such folder.
    """
    train = dataset.folders.get("train")
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
