"""Fit a network's last layer to one laboratory, with a few labels.

It ends as other weights and another bias of the same linear layer and a small second one beside it,
of numbers measured on the cell. That is exact: features are centred and divided by
one number for all pictures, never by their own length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
import numpy.typing as npt

from leuko.bundle import MOST_MEASURED, FeatureSpace, MeasuredLayer
from leuko.cells.morphometry import MEASURES
from leuko.runtime.network.average import softmax
from leuko.statistics import log_loss

__all__ = [
    "FOLDS",
    "Cells",
    "Head",
    "HeadFit",
    "deal_cells",
    "deal_groups",
    "fit_head",
    "slide_groups",
]

Doubles = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Rows = npt.NDArray[np.bool_] | slice

FOLDS: Final = 5
REPEATS: Final = 4
"""Folds of the cross-validation, and how often the cells are dealt anew."""

_SHUFFLED: Final = 0.35
"""Spread of the logarithm of a slide's weight, so that no two dealings have the same order."""

STRENGTHS: Final = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Ridges that are tried; beside them only a bias, and nothing at all."""

_SPREAD: Final = 30.0
"""Whitened features are divided by this, so that a strength of 1 is in the middle of the grid."""

MEASURED_STRENGTHS: Final = (0.03, 0.1, 0.3, 1.0, 3.0)
"""The same, for a refit on the logits and on numbers measured on the cell."""

_UNIT: Final = 3.0
"""Standard deviations of a logit, or of a number, that are one of its values in such a refit."""

_BELIEVED: Final = 0.3
"""What such a refit begins from: this share of the present logits, which are too sure abroad."""

_BIAS_RIDGE: Final = 0.1
_SCALE_RIDGE: Final = 0.3
_WHOLE: Final = 1 - 1e-9
_STEPS: Final = 40
_RANK: Final = 64
_SETTLED: Final = 1e-9
_LEAST: Final = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """A last layer.

    Attributes
    ----------
    weights : (d, K) float64
        Of the features.
    bias : (K,) float64
        Added.
    """

    weights: Doubles
    bias: Doubles

    def logits(self, features: npt.NDArray[np.floating]) -> Doubles:
        """Apply it: (N, d) to (N, K)."""
        return np.asarray(features @ self.weights + self.bias, np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Labelled cells, as a fit sees them.

    Attributes
    ----------
    features : (n, d) float
        Mean over the views.
    labels : (n,) int
        Two classes at least.
    measures : sequence of n (15,) float64 or None, optional
        From `leuko.cells.morphometry.measure_cell`; None where a picture shows no cell. Left out
        where that is so for half of them.
    groups : sequence of n str, optional
        Cells of one group lie on one side of every fold; see `slide_groups`. Cells are dealt one by
        one when None.
    """

    features: npt.NDArray[np.floating]
    labels: Labels
    measures: Sequence[Doubles | None] | None = None
    groups: Sequence[str] | None = None

    def deal(self, seed: int) -> npt.NDArray[np.int64]:
        """Deal them to folds; see `deal_cells` and `deal_groups`."""
        if self.groups is None:
            return deal_cells(self.labels, seed=seed)
        return deal_groups(self.labels, self.groups, seed=seed)

    @property
    def folds(self) -> int:
        """Into how many they are dealt."""
        return FOLDS if self.groups is None else min(FOLDS, len({*self.groups}))


@dataclass(frozen=True, slots=True, eq=False)
class HeadFit:
    """What came of a refit.

    Attributes
    ----------
    head : Head
        Fitted on all cells, for a temperature of 1.
    layer : MeasuredLayer or None
        What measured numbers add to it, likewise; None for every kind but the last.
    kind : {"nothing", "bias", "ridge", "measured"}
        The member of the grid with the least cross-validated log-loss.
    strength : float
        Of the ridge; 0 where there is none.
    loss : float
        Cross-validated log-loss of that member.
    probabilities : (R, n, K) float64
        Of each cell when it was held out, for each of the R dealings.
    folds : int
        Into which cells or slides were dealt.
    unseen : (n,) bool
        Cells that were held out together with all others of their class, in some dealing.
    """

    head: Head
    layer: MeasuredLayer | None
    kind: str
    strength: float
    loss: float
    probabilities: Doubles
    folds: int
    unseen: npt.NDArray[np.bool_]


def fit_head(
    cells: Cells,
    head: Head,
    *,
    temperature: float = 1.0,
    space: FeatureSpace | None = None,
    seed: int = 0,
) -> HeadFit:
    """Refit a last layer on a few labelled cells, as strongly as cross-validation allows.

    The new logits are ``a l + V' z + c``: ``l`` those of the present layer, ``z`` centred features
    along the whitened axes of the training's feature space (along the cells' own principal
    directions where there is none). ``V`` has a ridge, whose strength is chosen by stratified
    cross-validation; ``c`` and ``a - 1`` have weak ones. With measures, ``z`` is the logits
    themselves and the measured numbers, each centred and divided by three standard deviations, and
    ``a`` is drawn to 0.3: the labels are then spent on how classes are mistaken for each other and
    on what sizes and stains say there. A class without a label takes no part; its logit is only
    multiplied by ``a``. So it is in the folds: cells of a class that one slide alone shows are
    answered, when it is held out, by a fit that has learned nothing of that class.

    Parameters
    ----------
    cells : Cells
        Labelled.
    head : Head
        The present layer.
    temperature : float
        Its logits are divided by it; the result is for a temperature of 1.
    space : FeatureSpace, optional
        Of the bundle.
    seed : int
        Of the dealing into folds.

    Returns
    -------
    HeadFit
        Also where the best is to change nothing.
    """
    given = np.asarray(cells.features, np.float64)
    logits = head.logits(given) / temperature
    measured = None if cells.measures is None else _Measured.of(logits, cells.measures)
    basis: _Along | _Measured = measured or _Along.of(given, space)
    members = [_Member(kind, 0.0, 1.0, basis.values[:, :0]) for kind in ("nothing", "bias")]
    members += [
        _Member(basis.kind, strength, basis.share, basis.values) for strength in basis.strengths
    ]
    held, unseen = _held_out(members, cells, logits, seed)
    losses = [float(np.mean([log_loss(cells.labels, one) for one in member])) for member in held]
    best = int(np.argmin(losses))
    chosen = members[best]
    new, layer = Head(head.weights / temperature, head.bias / temperature), None
    if chosen.kind != "nothing":
        scale, matrix, bias = chosen.fit(logits, cells.labels)
        share = scale * chosen.share
        plain, new = new, Head(share * new.weights, share * new.bias + bias)
        if chosen.kind == basis.kind:
            added, layer = basis.layers(plain, matrix)
            new = Head(new.weights + added.weights, new.bias + added.bias)
    return HeadFit(new, layer, chosen.kind, chosen.strength, losses[best], held[best], cells.folds,
                   unseen)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class _Member:
    """One way to fit: from which share of the present logits, along what, how strongly held."""

    kind: str
    strength: float
    share: float
    values: Doubles

    def fit(self, logits: Doubles, labels: Labels, rows: Rows = slice(None)) -> _Fitted:
        """Fit some of the cells."""
        own = self.share * logits[rows]
        return _fit(self.values[rows], own, labels[rows], self.strength)

    def answer(self, fitted: _Fitted, logits: Doubles, rows: Rows) -> Doubles:
        """Probabilities of some of the cells."""
        return softmax(_apply(fitted, self.values[rows], self.share * logits[rows]))


def _held_out(
    members: Sequence[_Member], cells: Cells, logits: Doubles, seed: int
) -> tuple[Doubles, npt.NDArray[np.bool_]]:
    """What each member, the first of which changes nothing, answers to cells that are held out.

    (M, R, n, K) probabilities, and (n,) whether a cell was held out with all others of its class.
    """
    held = np.empty((len(members), REPEATS, *logits.shape))
    held[0] = softmax(logits)
    unseen = np.zeros(len(cells.labels), dtype=np.bool_)
    for repeat in range(REPEATS):
        folds = cells.deal(seed + repeat)
        for fold in np.unique(folds):
            inside, outside = folds != fold, folds == fold
            unseen |= outside & ~np.isin(cells.labels, cells.labels[inside])
            for number, member in enumerate(members[1:], 1):
                fitted = member.fit(logits, cells.labels, inside)
                held[number, repeat, outside] = member.answer(fitted, logits, outside)
    return held, unseen


@dataclass(frozen=True, slots=True, eq=False)
class _Along:
    """Centred features along a few directions, divided by one number for all."""

    kind: ClassVar[str] = "ridge"
    share: ClassVar[float] = 1.0
    strengths: ClassVar[tuple[float, ...]] = STRENGTHS

    values: Doubles
    axes: Doubles
    middle: Doubles

    @classmethod
    def of(cls, features: Doubles, space: FeatureSpace | None) -> _Along:
        """Turn features to the space's axes, or to their own."""
        middle, length = features.mean(axis=0), float(np.linalg.norm(features, axis=1).mean())
        axes = _directions((features - middle) / length, space) / length
        return cls((features - middle) @ axes, axes, middle)

    def layers(self, _: Head, matrix: Doubles) -> tuple[Head, MeasuredLayer | None]:
        """What weights of the values, (r, K), add to a last layer, and the one beside it."""
        turned = self.axes @ matrix
        return Head(turned, -self.middle @ turned), None


@dataclass(frozen=True, slots=True, eq=False)
class _Measured:
    """Logits without their mean, and measured numbers, both centred and divided by their spread."""

    kind: ClassVar[str] = "measured"
    share: ClassVar[float] = _BELIEVED
    strengths: ClassVar[tuple[float, ...]] = MEASURED_STRENGTHS

    values: Doubles
    middle: Doubles
    spread: Doubles

    @classmethod
    def of(cls, logits: Doubles, measures: Sequence[Doubles | None]) -> _Measured | None:
        """Bring them together; None where half of the pictures or more were not measured."""
        numbers = np.array([one for one in measures if one is not None])
        if 2 * len(numbers) <= len(measures):
            return None
        usual = numbers.mean(axis=0)
        rows = np.array([usual if one is None else one for one in measures])
        centred = logits - logits.mean(axis=1, keepdims=True)
        middle = np.append(centred.mean(axis=0), usual)
        spread = _UNIT * np.maximum(np.append(centred.std(axis=0), numbers.std(axis=0)), 1e-6)
        values = (np.column_stack([centred, rows]) - middle) / spread
        count = logits.shape[1]
        values[:, count:] = values[:, count:].clip(-MOST_MEASURED, MOST_MEASURED)
        return cls(values, middle, spread)

    def layers(self, present: Head, matrix: Doubles) -> tuple[Head, MeasuredLayer | None]:
        """What weights of the values, (r, K), add to a last layer, and the one beside it."""
        count = matrix.shape[1]
        middle, spread = self.middle[count:], self.spread[count:]
        unit = matrix[:count] / self.spread[:count, None]
        mixed = unit - unit.mean(axis=0)
        head = Head(present.weights @ mixed, present.bias @ mixed - self.middle[:count] @ unit)
        return head, MeasuredLayer(MEASURES, middle, spread, matrix[count:])


def deal_cells(labels: Labels, *, seed: int = 0) -> npt.NDArray[np.int64]:
    """Deal cells to folds, each class evenly.

    Parameters
    ----------
    labels : (n,) int
        Classes.
    seed : int
        Decides who comes where.

    Returns
    -------
    (n,) int64
        0 to 4.
    """
    rng = np.random.default_rng([seed, 20])
    folds = np.empty(len(labels), np.int64)
    for label in range(int(labels.max()) + 1):
        rows = rng.permutation(np.flatnonzero(labels == label))
        folds[rows] = (np.arange(len(rows)) + rng.integers(FOLDS)) % FOLDS
    return folds


def slide_groups(slides: Sequence[str]) -> list[str] | None:
    """Say which cells are dealt together.

    Parameters
    ----------
    slides : sequence of n str
        Slide of each cell, empty where it is not known.

    Returns
    -------
    list of n str, or None
        A cell of an unknown slide is a group of its own. None where fewer than two slides are
        known: then there is nothing to hold out whole.
    """
    if len({slide for slide in slides if slide}) < 2:
        return None
    return [slide or f"cell {row}" for row, slide in enumerate(slides)]


def deal_groups(labels: Labels, groups: Sequence[str], *, seed: int = 0) -> npt.NDArray[np.int64]:
    """Deal whole groups to folds, each class and all cells as evenly as groups allow.

    One after the other, those with the largest part of a class first, in an order that changes with
    the seed; each to the fold that has least of what it brings. No fold gets all of a class that
    several groups have, where that can be avoided.

    Parameters
    ----------
    labels : (n,) int
        Classes.
    groups : sequence of n str
        Two at least; the order of the cells changes nothing.
    seed : int
        Decides who comes where.

    Returns
    -------
    (n,) int64
        0 to 4, or fewer where there are fewer groups; no fold is empty.
    """
    names, which = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)
    which = which.ravel()
    classes = int(labels.max()) + 1
    counts = np.zeros((len(names), classes + 1))
    np.add.at(counts, (which, labels), 1)
    counts[:, classes] = counts[:, :classes].sum(axis=1)
    shares = counts / np.maximum(counts.sum(axis=0), 1)
    rng = np.random.default_rng([seed, 23])
    weights = shares[:, :classes].max(axis=1) * np.exp(rng.normal(0, _SHUFFLED, len(names)))
    held = np.zeros((min(FOLDS, len(names)), classes + 1))
    fold_of = np.empty(len(names), np.int64)
    for group in np.argsort(-weights, kind="stable"):
        after = held + shares[group]
        emptied = ((after > _WHOLE) & (held <= _WHOLE))[:, :classes].sum(axis=1)
        # The sum of squares over all folds grows by this, and by what is the same for all of them.
        more = (held @ shares[group]).round(12)
        fold = int(np.lexsort((held[:, classes], more, emptied))[0])
        fold_of[group] = fold
        held[fold] += shares[group]
    return fold_of[which]


def _directions(centred: Doubles, space: FeatureSpace | None) -> Doubles:
    """Directions that the refit may use, (d, r)."""
    if space is not None:
        return np.asarray(
            space.axes.astype(np.float64) @ space.whitening.astype(np.float64) / _SPREAD
        )
    _, sizes, turned = np.linalg.svd(centred, full_matrices=False)
    rank = min(_RANK, int((sizes > 1e-6 * max(sizes[0], _LEAST)).sum()))
    return np.asarray(turned[:rank].T)


_Fitted = tuple[float, Doubles, Doubles]
"""The factor of the present logits, (r, K) weights of the directions, (K,) bias."""


def _apply(fitted: _Fitted, values: Doubles, logits: Doubles) -> Doubles:
    """Logits of a fitted layer."""
    scale, matrix, bias = fitted
    return np.asarray(scale * logits + values @ matrix + bias, np.float64)


def _fit(values: Doubles, logits: Doubles, labels: Labels, strength: float) -> _Fitted:
    """Newton's method on the penalised log-loss, over the classes that have a label.

    The unknowns are the weights of one class after the other, each with its bias last, and then
    the factor. The loss is convex, so halving a step that is too long is all that is needed.
    """
    classes = np.unique(labels)
    count, width = len(classes), values.shape[1] + 1
    rows = np.column_stack([values, np.ones(len(values))])
    own = logits[:, classes]
    targets = (labels[:, None] == classes).astype(np.float64)
    ridge = np.append(np.tile(np.append(np.full(width - 1, strength), _BIAS_RIDGE), count),
                      _SCALE_RIDGE)  # fmt: skip
    centre = np.append(np.zeros(count * width), 1.0)

    def loss(point: Doubles) -> tuple[float, Doubles]:
        found = softmax(point[-1] * own + rows @ point[:-1].reshape(count, width).T)
        fit = -np.log(np.maximum((found * targets).sum(axis=1), 1e-300)).sum()
        return float(fit + 0.5 * (ridge * (point - centre) ** 2).sum()), found

    point = centre.copy()
    value, found = loss(point)
    for _ in range(_STEPS):
        slope = np.append(((found - targets).T @ rows).ravel(), ((found - targets) * own).sum())
        slope += ridge * (point - centre)
        step = np.linalg.solve(_curvature(rows, own, found) + np.diag(ridge), -slope)
        size = 1.0
        after, seen = loss(point + step)
        while after > value + 1e-4 * size * float(slope @ step) and size > 1e-6:
            size /= 2
            after, seen = loss(point + size * step)
        gained = value - after
        if gained <= 0:
            break
        point, value, found = point + size * step, after, seen
        if gained < _SETTLED * max(1.0, value):
            break
    weights = np.zeros((logits.shape[1], width))
    weights[classes] = point[:-1].reshape(count, width)
    return float(point[-1]), weights[:, :-1].T, weights[:, -1]


def _curvature(rows: Doubles, own: Doubles, found: Doubles) -> Doubles:
    """Second derivatives of the log-loss."""
    count, width = found.shape[1], rows.shape[1]
    whole = np.zeros((count * width + 1, count * width + 1))
    for a in range(count):
        for b in range(a, count):
            weight = found[:, a] * (float(a == b) - found[:, b])
            block = (rows * weight[:, None]).T @ rows
            whole[a * width : (a + 1) * width, b * width : (b + 1) * width] = block
            whole[b * width : (b + 1) * width, a * width : (a + 1) * width] = block.T
    pull = found * (own - (found * own).sum(axis=1, keepdims=True))
    whole[:-1, -1] = whole[-1, :-1] = (pull.T @ rows).ravel()
    whole[-1, -1] = (pull * own).sum()
    return whole
