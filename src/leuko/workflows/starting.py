"""What the networks of a comparison start from, and how much of its data that has seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from leuko.data.dataset import Pictures
from leuko.data.seen import FEW, LEARNED, Start, seen_in, start_of
from leuko.errors import DataError
from leuko.manifest import Manifest
from leuko.recipe import Recipe
from leuko.runtime.zoo import load
from leuko.support.reporter import Reporter

__all__ = ["find_starts"]


def find_starts(
    recipes: Mapping[str, Recipe],
    sets: Mapping[str, Manifest],
    pictures: Pictures,
    *,
    allow_seen: bool,
    reporter: Reporter,
) -> dict[str, dict[str, Any]]:
    """Say what each recipe starts from, and refuse one that has learned what it is measured on.

    Parameters
    ----------
    recipes : mapping of str to Recipe
        By name, with the weights that they are trained with.
    sets : mapping of str to Manifest
        ``train``, ``test`` and unseen folders.
    pictures : Pictures
        Decodes them, but those that it has decoded before.
    allow_seen : bool
        Refuse nothing.
    reporter : Reporter
        Told how far it is, and what a person should know.

    Returns
    -------
    dict of str to dict
        ``told``, ``weights``, ``teacher`` and ``fingerprints`` as in `leuko.data.seen.Start`;
        where there are fingerprints also ``seen``: ``{set: [images seen, images]}``.

    Raises
    ------
    DataError
        When more than a few images of a set other than ``train`` were seen.
    """
    starts = {name: _start_of(recipe) for name, recipe in recipes.items()}
    told = {name: {"told": one.told, **asdict(one)} for name, one in starts.items()}
    if not any(one.fingerprints for one in starts.values()):
        return told
    seen = {}
    for name, manifest in sets.items():
        stage = f"looking for images of {name} that weights have seen"
        count = seen_in(manifest, pictures, reporter=reporter, stage=stage)
        seen[name] = [count, len(manifest)]
    for name, one in starts.items():
        if not one.fingerprints:
            continue
        told[name]["seen"] = seen
        for place, (count, total) in seen.items():
            if place != "train" and count > FEW * total and not allow_seen:
                raise DataError(
                    f"{count:,} of the {total:,} images of {place} are among those that {name} "
                    f"has learned before it is trained ({LEARNED}, by {one.told}): its figures "
                    "there would be memory. Start from --weights imagenet, none or PATH, leave "
                    "that set out, or allow it with --allow-seen, which is marked in the report."
                )
    return told


def _start_of(recipe: Recipe) -> Start:
    """What a recipe starts from, its teacher included."""
    if not recipe.train.teacher:
        return start_of(recipe)
    return start_of(recipe, load(recipe.train.teacher, threads=1).bundle.provenance)
