"""The rows of one training: usable images, dealt to training and validation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from leuko.data.audit.duplicates import same_cells
from leuko.data.balance.write import write_balanced
from leuko.data.dataset import Dataset, ImageFacts
from leuko.data.reading import read_folder
from leuko.data.seen import fingerprints
from leuko.data.split import split_at_random, split_by_slide
from leuko.errors import ImageError
from leuko.manifest import Manifest
from leuko.recipe import Recipe
from leuko.support.reporter import Reporter
from leuko.support.text import rejection
from leuko.training.ready import BALANCED
from leuko.training.run_folder import Clock

__all__ = ["Rows", "split_rows"]


@dataclass(frozen=True)
class Rows:
    """What one training learns from, and what it is validated on.

    Attributes
    ----------
    train, validation : Manifest
        Their samples carry the split's name.
    both : Manifest
        One after the other, with the notes of the data set.
    source_digest : str
        Of the data set's training rows, before any was left out or copied.
    hashes : (N,) uint64
        Fingerprints of the usable images of that data set.
    """

    train: Manifest
    validation: Manifest
    both: Manifest
    source_digest: str
    hashes: npt.NDArray[np.uint64]


@dataclass(frozen=True)
class _Usable:
    """Rows whose images can be read, pairs of them that show one cell, and fingerprints."""

    rows: Manifest
    same_cell: list[tuple[int, int]]
    hashes: npt.NDArray[np.uint64]


def split_rows(
    dataset: Dataset,
    recipe: Recipe,
    clock: Clock,
    *,
    reporter: Reporter,
) -> Rows:
    """Deal a data set's training rows to training and validation, as a recipe wants them.

    Parameters
    ----------
    dataset : Dataset
        Images that it has decoded are not decoded again.
    recipe : Recipe
        One of the published kind balances all rows on disk first, in the run folder.
    clock : Clock
        Of the run.
    reporter : Reporter
        Told how far it is, and what a person should know.

    Returns
    -------
    Rows
        The same for the same data and seed.

    Raises
    ------
    DataError
        When a class has no usable image, or there are too few slides.
    """
    with clock("data"):
        usable = _usable(dataset, reporter)
    rows, source = usable.rows, dataset.training_rows
    if recipe.data.split == "random-file":
        with clock("balance"):
            rows = _balanced(rows, recipe, clock.folder / BALANCED, dataset, reporter)
    train, validation = _split(rows, usable.same_cell, recipe, reporter)
    samples = (*train.samples, *validation.samples)
    both = Manifest(train.root, samples, source.notes, train.scheme)
    return Rows(train, validation, both, source.digest, usable.hashes)


def _usable(dataset: Dataset, reporter: Reporter) -> _Usable:
    """Leave out, by name, what is no image, and find cells shown twice."""
    manifest = dataset.training_rows
    facts = dataset.pictures.facts(manifest.files(), reporter=reporter)
    for sample, found in zip(manifest.samples, facts, strict=True):
        if isinstance(found, ImageError):
            reporter.say(rejection(sample.path, found.reason, found.detail))
    kept = [i for i, found in enumerate(facts) if isinstance(found, ImageFacts)]
    if len(kept) < len(manifest):
        reporter.say(f"{len(manifest) - len(kept)} of {len(manifest)} images were rejected.")
        manifest = manifest.subset(kept)
    manifest.require_all_classes("Training")
    thumbnails = np.stack([found.thumbnail for found in facts if isinstance(found, ImageFacts)])
    pairs = [(one, two) for one, two, _ in same_cells(thumbnails)]
    repeats = len({two for _, two in pairs})
    if repeats:
        reporter.say(
            f"{repeats} of {len(manifest)} images show the same cell as another; all are kept, and "
            "a split by slide keeps them together."
        )
    return _Usable(manifest, pairs, fingerprints(facts))


def _balanced(
    manifest: Manifest, recipe: Recipe, folder: Path, dataset: Dataset, reporter: Reporter
) -> Manifest:
    """Balance the whole of Train on disk, as published, and open that."""
    workers = dataset.pictures.workers
    write_balanced(manifest, folder, seed=recipe.seed, workers=workers, reporter=reporter)
    return read_folder(folder)


def _split(
    manifest: Manifest,
    same_cell: list[tuple[int, int]],
    recipe: Recipe,
    reporter: Reporter,
) -> tuple[Manifest, Manifest]:
    """Training and validation rows as the recipe wants them."""
    settings = recipe.data
    given = np.array([sample.split == "validation" for sample in manifest.samples])
    if given.any() and settings.split != "random-file":
        reporter.say(f"Validated on the {given.sum():,} rows that the table keeps for it.")
        trains, validates = np.flatnonzero(~given), np.flatnonzero(given)
    elif settings.split == "random-file":
        trains, validates = split_at_random(
            manifest, fraction=settings.validation, seed=recipe.seed
        )
        reporter.say(
            "This recipe repeats the published split: augmented siblings of validation images are "
            "trained on, so its validation accuracy reads too high."
        )
    else:
        trains, validates = split_by_slide(
            manifest, fraction=settings.validation, seed=recipe.seed, same_cell=same_cell
        )
        if sum(not slide for slide in manifest.slides) > len(manifest) / 2:
            reporter.say(
                "Most file names tell no slide, so images were split one by one; validation "
                "figures will read too high if slides hold several images."
            )
    train_rows = manifest.subset(trains, split="train")
    train_rows.require_all_classes("Training, after validation slides were set aside,")
    return train_rows, manifest.subset(validates, split="validation")
