"""The order in which an epoch shows images, every class equally often."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from leuko.data.balance.augmentation import ALGORITHM
from leuko.errors import DataError

__all__ = ["balanced_order", "copy_numbers"]


def balanced_order(
    labels: npt.ArrayLike, *, seed: int, epoch: int, per_class: int | None = None
) -> npt.NDArray[np.int64]:
    """Order in which one epoch shows images so that every class comes equally often.

    The plan of `leuko.data.balance.plan.plan_balance` without its files: within a class every
    image is shown equally often up to one, and which ones get the odd showing changes from epoch
    to epoch.

    Parameters
    ----------
    labels : (N,) integers
        Class of every image, in 0 to 4. Classes without images are left out.
    seed : int
        At least 0.
    epoch : int
        At least 0; the order depends on seed and epoch alone, so training can resume anywhere.
    per_class : int, optional
        Showings of each class; the largest class's number of images when left out. Fewer than a
        class has images shows some of them, none twice.

    Returns
    -------
    (per_class * classes present,) int64
        Positions in `labels`, shuffled.

    Raises
    ------
    DataError
        When there are no labels.

    See Also
    --------
    copy_numbers : which showing of an image each position is.

    Examples
    --------
    >>> order = balanced_order([0, 4, 4, 4], seed=1, epoch=0)
    >>> sorted(order.tolist())
    [0, 0, 0, 1, 2, 3]
    """
    classes = np.asarray(labels, dtype=np.int64)
    if classes.size == 0:
        raise DataError("There are no images to put in order; received no labels.")
    counts = np.bincount(classes)
    if per_class is None:
        per_class = int(counts.max())
    rng = np.random.default_rng([ALGORITHM, seed, epoch])
    parts = []
    for label in np.flatnonzero(counts):
        rows = np.flatnonzero(classes == label)
        every, odd = divmod(per_class, len(rows))
        parts += [np.tile(rows, every), rng.permutation(rows)[:odd]]
    return rng.permutation(np.concatenate(parts)).astype(np.int64)


def copy_numbers(order: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Count, for every position of an order, how often its image was shown before.

    Parameters
    ----------
    order : (M,) integers
        From `balanced_order`.

    Returns
    -------
    (M,) int64
        0 for the first showing of an image, which balancing on disk leaves as it is; 1 and more
        for the copies to draw.

    Examples
    --------
    >>> copy_numbers([3, 1, 3, 3, 1]).tolist()
    [0, 0, 1, 2, 1]
    """
    indices = np.asarray(order, dtype=np.int64)
    if indices.size == 0:
        return np.zeros(0, dtype=np.int64)
    by_image = np.argsort(indices, kind="stable")
    grouped = indices[by_image]
    starts = np.flatnonzero(np.r_[True, grouped[1:] != grouped[:-1]])
    lengths = np.diff(np.r_[starts, len(grouped)])
    numbers = np.empty(len(indices), dtype=np.int64)
    numbers[by_image] = np.arange(len(grouped)) - np.repeat(starts, lengths)
    return numbers
