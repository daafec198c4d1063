"""Training and validation rows that share no slide.

A random split measures how well slides are remembered: cells of one slide share stain, light,
focus and camera. Whole slides go to one side or the other here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from leuko.errors import DataError
from leuko.manifest import Manifest, Sample, original_of

__all__ = ["split_at_random", "split_by_slide"]

Indices = npt.NDArray[np.int64]


def split_by_slide(
    manifest: Manifest,
    *,
    fraction: float = 0.2,
    seed: int = 0,
    same_cell: Sequence[tuple[int, int]] = (),
) -> tuple[Indices, Indices]:
    """Put whole slides on one side, with about `fraction` of every class in validation.

    Slides are dealt one by one, in a seeded order with the rarest classes' largest slides first,
    to whichever side brings the class counts nearest to what was asked for. Images with the same
    bytes, and augmented copies with their originals, count as one slide, and so do slides that show
    the same cell: Raabin-WBC photographed some slides twice under different names. An image
    whose slide is unknown is a slide of its own. Augmented copies never validate.

    Parameters
    ----------
    manifest : Manifest
        Training rows.
    fraction : float
        Wanted share of each class in validation, in (0, 1).
    seed : int
        Of the order in which slides of similar weight are dealt.
    same_cell : sequence of (int, int)
        Positions of images known to show one cell, from
        `leuko.data.audit.duplicates.near_duplicates`.

    Returns
    -------
    train, validation : (n,) int64
        Sorted positions in `manifest.samples`.

    Raises
    ------
    DataError
        When there are not two groups of slides, or a class cannot be kept in training.
    """
    groups = _groups(manifest.samples, same_cell)
    names = sorted(groups)
    counts = np.zeros((len(names), len(manifest.scheme)))
    for row, name in enumerate(names):
        for index in groups[name]:
            counts[row, manifest.samples[index].label] += 1
    total = counts.sum(axis=0)
    present = total > 0
    wanted = total * fraction
    if len(names) < 2:
        raise DataError(
            f"All {len(manifest)} images belong to one slide, so none can be kept for validation. "
            "Give a CSV with a slide column, or images of other slides."
        )
    rng = np.random.default_rng([seed, 7])
    share = np.divide(counts, total, out=np.zeros_like(counts), where=present)
    weight = share.max(axis=1) * np.exp(rng.normal(0.0, 0.35, len(names)))
    order = np.argsort(-weight, kind="stable")
    validation = _deal(order, counts, wanted)
    if len(validation) == 1:
        # One slide says nothing of the spread between slides: several smaller ones say more.
        several = _deal([row for row in order if row != validation[0]], counts, wanted)
        validation = several if len(several) > 1 else validation
    chosen = {names[row] for row in validation}
    validates = np.array(
        sorted(
            index
            for name in chosen
            for index in groups[name]
            if not manifest.samples[index].augmented
        ),
        dtype=np.int64,
    )
    trains = np.array(
        sorted(index for name in names if name not in chosen for index in groups[name]),
        dtype=np.int64,
    )
    if len(validates) == 0 or len(trains) == 0:
        raise DataError(
            f"{manifest.root} has too few slides to keep some for validation: {len(names)} "
            "groups of slides. Give a CSV with a slide column, or images of other slides."
        )
    return trains, validates


def _deal(
    order: Iterable[int], counts: npt.NDArray[np.float64], wanted: npt.NDArray[np.float64]
) -> list[int]:
    """Take groups into validation while that brings the class counts nearer to what is wanted.

    A group is left in training when it holds all that is left there of a class.
    """
    present = wanted > 0
    scale = np.maximum(wanted, 1.0)
    held, left = np.zeros(len(wanted)), counts.sum(axis=0)
    taken: list[int] = []
    for row in order:
        after = held + counts[row]
        keeps_training = ((left - counts[row] > 0) | (counts[row] == 0)).all()
        gain = (((wanted - held) / scale) ** 2 - ((wanted - after) / scale) ** 2)[present].sum()
        if keeps_training and gain > 0:
            taken.append(int(row))
            held, left = after, left - counts[row]
    return taken


def split_at_random(
    manifest: Manifest, *, fraction: float = 0.2, seed: int = 123
) -> tuple[Indices, Indices]:
    """Split rows as the published experiment did: at random, whatever their slide or original.

    It leaks: augmented siblings of validation images are trained on, and the validation accuracy
    reads several points too high. It exists to show just that.

    Parameters
    ----------
    manifest : Manifest
        Rows of a balanced folder.
    fraction : float
        Share of the rows in validation, in (0, 1).
    seed : int
        Of the permutation.

    Returns
    -------
    train, validation : (n,) int64
        Sorted positions in `manifest.samples`.

    Raises
    ------
    DataError
        When there are not two images.
    """
    if len(manifest) < 2:
        raise DataError(f"{manifest.root} has {len(manifest)} images; a split needs two at least.")
    order = np.random.default_rng(seed).permutation(len(manifest))
    held = max(1, int(len(manifest) * fraction))
    return np.sort(order[held:]), np.sort(order[:held])


def _groups(
    samples: tuple[Sample, ...], same_cell: Sequence[tuple[int, int]]
) -> dict[str, list[int]]:
    """Positions by slide, with slides that share an image, an original or a cell joined."""
    parent: dict[str, str] = {}

    def find(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    def join(first: str, second: str) -> None:
        low, high = sorted((find(first), find(second)))
        parent[high] = low

    # Without the suffix: copies are JPEG files, whatever their originals are.
    parts = [original_of(Path(sample.path).stem) for sample in samples]
    images = [f"image:{s.label}/{name}" for s, (_, name) in zip(samples, parts, strict=True)]
    copied = {image for image, (copy, _) in zip(images, parts, strict=True) if copy is not None}
    slides = []
    same: dict[str, str] = {}
    for sample, image in zip(samples, images, strict=True):
        slide = f"slide:{sample.slide}" if sample.slide else image
        slides.append(slide)
        parent.setdefault(slide, slide)
        if image in copied:
            join(parent.setdefault(image, image), slide)
        if sample.sha256:
            join(same.setdefault(sample.sha256, slide), slide)
    for first, second in same_cell:
        join(slides[first], slides[second])
    groups: dict[str, list[int]] = defaultdict(list)
    for index, slide in enumerate(slides):
        groups[find(slide)].append(index)
    return dict(groups)
