"""How well white cells were found: boxes found against boxes given.

Boxes are compared as COCO does it, so that figures can be set beside published ones: the surest
find takes the given box that it overlaps most; ``ignore`` is COCO's crowd.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from leuko.cells.boxes import shared_areas
from leuko.cells.detector import Box
from leuko.evaluation.metrics import accuracy, balanced_accuracy, confusion_matrix
from leuko.prediction import Prediction
from leuko.scheme import ClassScheme, common_scheme, known_name, scheme_of
from leuko.support.artifacts import finite

__all__ = [
    "IGNORE",
    "LEVELS",
    "BoxClassification",
    "DetectionReport",
    "Found",
    "Given",
    "Miss",
    "score_boxes",
]

IGNORE: Final = "ignore"
"""Label of a box that is neither a miss nor a find."""

LEVELS: Final = tuple(np.linspace(0.5, 0.95, 10).tolist())
"""Intersections over union of `DetectionReport.ap50_95`; all counts are at the first."""

_RECALLS: Final = np.linspace(0, 1, 101)

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Found(Protocol):
    """A white cell that was found; `leuko.field.report.FieldCell` is one."""

    @property
    def box(self) -> Box:
        """(row0, col0, row1, col1), half-open, not empty."""
        ...

    @property
    def score(self) -> float:
        """How sure the detector is."""
        ...

    @property
    def answer(self) -> Prediction | None:
        """What it was taken for; None where nothing was asked."""
        ...


class Given(Protocol):
    """A box that was given; `leuko.field.boxes.LabelledBox` is one."""

    @property
    def box(self) -> Box:
        """(row0, col0, row1, col1), half-open, not empty."""
        ...

    @property
    def label(self) -> str:
        """A class under any name, `IGNORE`, or anything else for a white cell."""
        ...


@dataclass(frozen=True, slots=True)
class Miss:
    """A box that was given and not found, or found and not given.

    Attributes
    ----------
    picture : str
        Name of the field.
    box : (int, int, int, int)
        (row0, col0, row1, col1), half-open, in pixels of the original.
    score : float
        Of a box that was found; not-a-number for one that was not.
    """

    picture: str
    box: Box
    score: float


@dataclass(frozen=True, slots=True)
class BoxClassification:
    """How well the cells of matched boxes were named.

    Attributes
    ----------
    n : int
        Matched boxes whose true class the model knows, and whose cell has an answer.
    accuracy, balanced_accuracy : float, 0 to 1
        Of the likeliest classes, accepted or not.
    accepted : float, 0 to 1
        Share of them whose answer is accepted.
    accuracy_accepted : float, 0 to 1
        Of those; not-a-number where none is.
    """

    n: int
    accuracy: float
    balanced_accuracy: float
    accepted: float
    accuracy_accepted: float


@dataclass(frozen=True)
class DetectionReport:
    """White cells found, against boxes given, at an intersection over union of 0.5.

    Attributes
    ----------
    fields : int
        Pictures that were compared.
    found, missed, false, doubles : int
        Boxes given and found; given and not found; found where none was given; found again where
        one was found already. What lies on an ``ignore`` box is none of these.
    ap50, ap50_95 : float, 0 to 1
        Average precision (101 recall levels, as COCO has it) at 0.5, and its mean over 0.5 to 0.95
        in steps of 0.05; not-a-number where no box was given.
    counting_error_per_field : float
        Mean absolute difference of found and given cells in a field; not-a-number where no picture
        was compared.
    classification : BoxClassification or None
        None where no matched box has a class that the model knows.
    by_slide : dict of str to DetectionReport
        The same by slide; empty in those, and where no slide is known.
    misses, false_finds : tuple of Miss
        Each of them, for a page to show.
    """

    fields: int
    found: int
    missed: int
    false: int
    doubles: int
    ap50: float
    ap50_95: float
    counting_error_per_field: float
    classification: BoxClassification | None = None
    by_slide: Mapping[str, DetectionReport] = field(default_factory=dict)
    misses: tuple[Miss, ...] = ()
    false_finds: tuple[Miss, ...] = ()

    @property
    def recall(self) -> float:
        """Share of the given boxes that were found; not-a-number where none was given."""
        return _share(self.found, self.found + self.missed)

    @property
    def precision(self) -> float:
        """Share of the finds that a box was given for, each once; not-a-number for no find."""
        return _share(self.found, self.found + self.false + self.doubles)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON.

        Returns
        -------
        dict
            ``detection``, ``classification`` (None where there is none), ``counting``, the same
            ``by_slide``, ``misses`` and ``false_finds``; what is undefined is None.
        """
        document = self._figures()
        document["by_slide"] = {name: one._figures() for name, one in self.by_slide.items()}
        for name, places in (("misses", self.misses), ("false_finds", self.false_finds)):
            document[name] = [
                {"picture": one.picture, "box": one.box, "score": one.score} for one in places
            ]
        plain: dict[str, Any] = finite(document)
        return plain

    def _figures(self) -> dict[str, Any]:
        """All but the lists."""
        names = ("recall", "precision", "ap50", "ap50_95", "found", "missed", "false", "doubles")
        named = self.classification
        return {
            "detection": {"fields": self.fields} | {name: getattr(self, name) for name in names},
            "classification": None
            if named is None
            else {
                "n": named.n,
                "accuracy": named.accuracy,
                "balanced_accuracy": named.balanced_accuracy,
                "accepted": named.accepted,
                "accuracy_accepted": named.accuracy_accepted,
            },
            "counting": {"error_per_field": self.counting_error_per_field},
        }


def score_boxes(
    found: Mapping[str, Sequence[Found]],
    given: Mapping[str, Sequence[Given]],
    *,
    slides: Mapping[str, str] | None = None,
    scheme: ClassScheme | None = None,
) -> DetectionReport:
    """Compare the cells that were found with the boxes that were given.

    Parameters
    ----------
    found : dict of str to sequence of Found
        By picture. One that `given` lacks has no truth and is left out; one that is lacking here
        has no find.
    given : dict of str to sequence of Given
        By picture, an empty sequence for one without a white cell.
    slides : dict of str to str, optional
        Of the pictures; the cells of those without one stand under "unknown".
    scheme : ClassScheme, optional
        Of the answers; None to compare boxes alone. Labels find their class by any name that it
        understands, or by the broader class that theirs may be merged into; where the model tells
        apart what the labels do not, its answers are merged. Boxes with other labels count as
        cells and say nothing of the classes.

    Returns
    -------
    DetectionReport

    References
    ----------
    T.-Y. Lin et al., Microsoft COCO: common objects in context, ECCV 2014; the rules are those of
    pycocotools 2.0, without a limit of finds a picture.
    """
    told = slides or {}
    pictures = [_compare(name, found.get(name, ()), boxes) for name, boxes in given.items()]
    classes = None if scheme is None else _classes(given, scheme)
    groups: dict[str, list[_Picture]] = {}
    for picture in pictures:
        groups.setdefault(told.get(picture.name, "") or "unknown", []).append(picture)
    if {*groups} <= {"unknown"}:
        groups = {}
    by_slide = {name: _report(groups[name], classes, {}) for name in sorted(groups)}
    return _report(pictures, classes, by_slide)


@dataclass(frozen=True, slots=True)
class _Picture:
    """The boxes of one picture, and which belongs to which.

    ``matched`` is (10, N), at each level the given box that each find takes, or -1; ``near`` is
    (N,), whether a find overlaps any given white cell by half.
    """

    name: str
    found: Sequence[Found]
    given: Sequence[Given]
    ignored: npt.NDArray[np.bool_]
    matched: Integers
    near: npt.NDArray[np.bool_]

    @property
    def on_ignored(self) -> npt.NDArray[np.bool_]:
        """(10, N) bool, finds that lie on an ``ignore`` box."""
        # The last one, of no box at all, is what -1 points to.
        return np.append(self.ignored, False)[self.matched]


def _compare(name: str, found: Sequence[Found], given: Sequence[Given]) -> _Picture:
    """Give each find, the surest first, a box of its own."""
    found = sorted(found, key=lambda one: -one.score)
    given = sorted(given, key=lambda one: one.label == IGNORE)
    ignored = np.array([one.label == IGNORE for one in given], dtype=bool)
    boxes = np.array([one.box for one in given], dtype=np.float64).reshape(-1, 4)
    taken = np.zeros((len(LEVELS), len(given)), dtype=bool)
    matched = np.full((len(LEVELS), len(found)), -1, dtype=np.int64)
    near = np.zeros(len(found), dtype=bool)
    for number, one in enumerate(found):
        overlaps = _overlaps(one.box, boxes, ignored)
        places = np.flatnonzero(overlaps >= LEVELS[0]).tolist()
        near[number] = any(not ignored[place] for place in places)
        for at, level in enumerate(LEVELS):
            best = _best(places, overlaps, ignored, taken[at], level)
            matched[at, number] = best
            if best >= 0:
                taken[at, best] = not ignored[best]
    return _Picture(name, found, given, ignored, matched, near)


def _overlaps(box: Box, boxes: Floats, ignored: npt.NDArray[np.bool_]) -> Floats:
    """(M,) intersections over union; with an ``ignore`` box, over the find's own area."""
    shared = shared_areas(box, boxes)
    area = float((box[2] - box[0]) * (box[3] - box[1]))
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    overlaps: Floats = shared / np.where(ignored, area, area + areas - shared)
    return overlaps


def _best(
    places: Iterable[int],
    overlaps: Floats,
    ignored: npt.NDArray[np.bool_],
    taken: npt.NDArray[np.bool_],
    level: float,
) -> int:
    """The box that a find takes: an ``ignore`` box only where no cell is left; -1 for none."""
    best = -1
    for place in places:
        if taken[place] or (best >= 0 and ignored[place] and not ignored[best]):
            continue
        if overlaps[place] >= level:
            best, level = place, float(overlaps[place])
    return best


def _report(
    pictures: Sequence[_Picture],
    classes: _Classes | None,
    by_slide: Mapping[str, DetectionReport],
) -> DetectionReport:
    """Add up what was found in some pictures."""
    misses: list[Miss] = []
    false: list[Miss] = []
    doubles = hits = error = 0
    for one in pictures:
        taken = {*one.matched[0].tolist()}
        cells = np.flatnonzero(~one.ignored).tolist()
        lost = [Miss(one.name, one.given[k].box, math.nan) for k in cells if k not in taken]
        free = np.flatnonzero(one.matched[0] < 0).tolist()
        wrong = [Miss(one.name, one.found[k].box, one.found[k].score) for k in free]
        wrong = [miss for miss, k in zip(wrong, free, strict=True) if not one.near[k]]
        misses += lost
        false += wrong
        doubles += len(free) - len(wrong)
        hits += len(cells) - len(lost)
        error += abs(len(free) - len(lost))
    precisions = [_average_precision(pictures, at) for at in range(len(LEVELS))]
    return DetectionReport(
        fields=len(pictures),
        found=hits,
        missed=len(misses),
        false=len(false),
        doubles=doubles,
        ap50=precisions[0],
        ap50_95=float(np.mean(precisions)),
        counting_error_per_field=_share(error, len(pictures)),
        classification=None if classes is None else _classification(pictures, classes),
        by_slide=by_slide,
        misses=tuple(misses),
        false_finds=tuple(false),
    )


def _average_precision(pictures: Sequence[_Picture], at: int) -> float:
    """Mean precision over 101 levels of recall, each the best at that recall or a higher one."""
    total = sum(int((~one.ignored).sum()) for one in pictures)
    if not total:
        return math.nan
    counts = [~one.on_ignored[at] for one in pictures]
    right = np.concatenate(
        [one.matched[at][keep] >= 0 for one, keep in zip(pictures, counts, strict=True)]
    )
    scores = [
        np.array([cell.score for cell in one.found])[keep]
        for one, keep in zip(pictures, counts, strict=True)
    ]
    right = right[np.argsort(-np.concatenate(scores), kind="stable")]
    hits = np.cumsum(right)
    precision = hits / np.arange(1, len(right) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    reached = np.searchsorted(hits / total, _RECALLS)
    return float(np.append(envelope, np.zeros(1))[reached].mean())


@dataclass(frozen=True, slots=True)
class _Classes:
    """In what classes answers and labels are compared: where each of them goes, and how many."""

    answers: Mapping[str, int]
    labels: Mapping[str, int]
    size: int


def _classes(given: Mapping[str, Sequence[Given]], scheme: ClassScheme) -> _Classes:
    """Find the classes that the labels and the model share."""
    known: dict[str, str] = {}
    for label in {one.label for boxes in given.values() for one in boxes}:
        place = scheme.find(label)
        known[label] = known_name(label) if place is None else scheme.names[place]
    names = sorted({*known.values()} - {""})
    if not names:
        return _Classes({}, {}, 0)
    # A scheme has two classes at least.
    common, places, answers = common_scheme(scheme_of([*names, "anything else"]), scheme)
    where = dict(zip(names, places, strict=False))
    labels = {
        label: place for label, name in known.items() if (place := where.get(name)) is not None
    }
    return _Classes(dict(zip(scheme.names, answers, strict=True)), labels, len(common))


def _classification(pictures: Sequence[_Picture], classes: _Classes) -> BoxClassification | None:
    """Compare labels and answers of the boxes that were found."""
    truth: list[int] = []
    said: list[int] = []
    accepted: list[bool] = []
    for picture in pictures:
        for one, place in zip(picture.found, picture.matched[0].tolist(), strict=True):
            if place < 0 or one.answer is None:
                continue
            label = classes.labels.get(picture.given[place].label)
            answer = classes.answers.get(one.answer.likeliest)
            if label is not None and answer is not None:
                truth.append(label)
                said.append(answer)
                accepted.append(bool(one.answer.label))
    if not truth:
        return None
    confusion = confusion_matrix(truth, said, classes.size)
    right = np.equal(truth, said)
    kept = np.array(accepted)
    return BoxClassification(
        n=len(truth),
        accuracy=float(accuracy(confusion)),
        balanced_accuracy=float(balanced_accuracy(confusion)),
        accepted=float(kept.mean()),
        accuracy_accepted=_share(int((right & kept).sum()), int(kept.sum())),
    )


def _share(part: float, of: int) -> float:
    """A part of a whole; not-a-number where there is no whole."""
    return part / of if of else math.nan
