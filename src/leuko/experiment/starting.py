"""What the networks of a comparison start from, and how much of its data that has seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from leuko.data.seen import FEW, LEARNED, Start, seen_in, start_of
from leuko.errors import DataError
from leuko.manifest import Manifest
from leuko.parallel import Progress, worker_count
from leuko.recipe import Recipe
from leuko.runtime.zoo import load

__all__ = ["find_starts", "head_starts"]


def find_starts(
    recipes: Mapping[str, Recipe],
    sets: Mapping[str, Manifest],
    *,
    allow_seen: bool,
    workers: int | None,
    progress: Progress | None,
) -> dict[str, dict[str, Any]]:
    """Say what each recipe starts from, and refuse one that has learned what it is measured on.

    Parameters
    ----------
    recipes : mapping of str to Recipe
        By name, with the weights that they are trained with.
    sets : mapping of str to Manifest
        ``train``, ``test`` and unseen folders.
    allow_seen : bool
        Refuse nothing.
    workers : int, optional
        Threads.
    progress : callable, optional
        Called as ``progress(stage, done, total)``.

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
        count = seen_in(manifest, workers=worker_count(workers), progress=progress, stage=stage)
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


def head_starts(models: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say which networks knew some of the data before they were trained.

    Parameters
    ----------
    models : sequence of dict
        The ``models`` of a comparison.

    Returns
    -------
    list of str
        A sentence for each.
    """
    sentences = []
    for model in models:
        seen = model["start"].get("seen") or {}
        parts = [f"{n:,} of {total:,} images of {name}" for name, (n, total) in seen.items() if n]
        if parts:
            sentences.append(
                f"{model['title']} has a head start: before it was trained it had learned from "
                f"{', '.join(parts)}."
            )
    return sentences


def _start_of(recipe: Recipe) -> Start:
    """What a recipe starts from, its teacher included."""
    if not recipe.train.teacher:
        return start_of(recipe)
    return start_of(recipe, load(recipe.train.teacher, threads=1).bundle.provenance)
