"""The order in which images are shown, every class equally often."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from leuko.data.balance.augmentation import ALGORITHM

__all__ = ["balanced_order", "copy_numbers"]


def balanced_order(labels: npt.ArrayLike, *, seed: int, per_class: int) -> npt.NDArray[np.int64]:
    """Order in which images are shown so that every class comes equally often.

    The plan of `leuko.data.balance.plan.plan_balance` without its files: within a class every
    image is shown equally often up to one.

    Parameters
    ----------
    labels : (N,) integers
        Class of every image, in 0 to 4. Classes without images are left out.
    seed : int
        At least 0.
    per_class : int
        Showings of each class. Fewer than a class has images shows some of them, none twice.

    Returns
    -------
    (per_class * classes present,) int64
        Positions in `labels`, shuffled.

    See Also
    --------
    copy_numbers : which showing of an image each position is.

    Examples
    --------
    >>> order = balanced_order([0, 4, 4, 4], seed=1, per_class=3)
    >>> sorted(order.tolist())
    [0, 0, 0, 1, 2, 3]
    """
    classes = np.asarray(labels, dtype=np.int64)
    rng = np.random.default_rng([ALGORITHM, seed, 0])
    parts = []
    for label in np.unique(classes):
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
    by_image = np.argsort(indices, kind="stable")
    grouped = indices[by_image]
    starts = np.flatnonzero(np.r_[True, grouped[1:] != grouped[:-1]])
    lengths = np.diff(np.r_[starts, len(grouped)])
    numbers = np.empty(len(indices), dtype=np.int64)
    numbers[by_image] = np.arange(len(grouped)) - np.repeat(starts, lengths)
    return numbers
