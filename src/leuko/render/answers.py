"""What was decided on images, in the words of pictures, tables and last lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from leuko.prediction import Prediction
from leuko.render.words import percent
from leuko.support.text import counted, rejection

__all__ = ["all_rejected", "next_step", "question", "remark_on", "tally_text", "title", "why"]

Outcomes = Mapping[tuple[str, str], int]

_TITLES: Final = {
    "class": "Accepted",
    "unsure": "Unsure",
    "not-a-cell": "Not a cell",
    "unlike-training": "Unlike training",
    "duplicate": "Seen before",
    "set-aside": "Set aside",
    "rejected": "Rejected",
}
_REASONS: Final = {
    "blank": "nothing is in the picture",
    "no-nucleus": "no nucleus is found",
    "far-from-training": "far from every cell of training",
    "overexposed": "too bright",
    "underexposed": "too dark",
    "few-pixels": "too few pixels",
    "unproven": "this model is not calibrated yet",
    "border": "cut by the picture's border",
    "overlapping": "overlaps another cell",
}
_MANY: Final = 10
"""From so many answers on, a share of them says something of the model."""

_STEPS: Final = {
    "unlike-training": "Look at those unlike training with --picture FILE.png: is the stain, the "
    "magnification or the crop another?",
    "not-a-cell": "Look at those that are no cell with --picture FILE.png: a picture needs one "
    "white cell in its middle.",
    "unsure": "Look at the unsure images with --picture FILE.png, and name them by eye.",
    "blurred": "Photograph the blurred cells again, in focus.",
    "overexposed": "Photograph the cells that are too bright again, with less light.",
    "underexposed": "Photograph the cells that are too dark again, with more light.",
    "few-pixels": "Photograph the cells of too few pixels again, at a higher magnification.",
    "unproven": "Nothing is accepted until leuko models calibrate has checked this model on cells "
    "with labels.",
    "duplicate": "A cell seen before is not counted again.",
    "set-aside": "Cells set aside are not counted: choose fields where they lie apart and whole.",
    "rejected": "The answers name each rejected file and its reason.",
}
"""What to do about an outcome, by its reason or else by itself."""


def title(row: Prediction) -> str:
    """Say in a word or two what was decided.

    Parameters
    ----------
    row : Prediction
        Of any status and decision.

    Returns
    -------
    str
        The class where it is accepted, and never anywhere else.
    """
    what, _ = row.outcome
    return row.label or _TITLES.get(what, what.capitalize())


def question(row: Prediction, *, short: bool = False) -> str:
    """Ask which of the two likeliest classes it is.

    Parameters
    ----------
    row : Prediction
        Of any status and decision.
    short : bool
        Call classes by their abbreviations.

    Returns
    -------
    str
        Empty where the probabilities are not what is in doubt.
    """
    if row.reason != "low-confidence":
        return ""
    classes = [one.abbreviation if short else one.name for one in row.scheme.classes]
    first, second = sorted(range(len(classes)), key=lambda k: -row.probabilities[k])[:2]
    return f"{classes[first]} or {classes[second]}?"


def why(row: Prediction) -> str:
    """Say why an image is rejected or its answer not accepted.

    Parameters
    ----------
    row : Prediction
        Of any status and decision.

    Returns
    -------
    str
        A few words; empty where it is accepted.

    Examples
    --------
    >>> why(Prediction("a.jpg", "ok", "low-confidence", "Monocyte", 0.62, limit=0.93))
    '62.0%, accepted from 93.0% on'
    """
    if row.reason == "low-confidence":
        if row.limit is None:
            return f"{percent(row.confidence)} is too little"
        return "{}%, accepted from {}% on".format(*_apart(100 * row.confidence, 100 * row.limit, 1))
    far, limit = row.distance, row.limit
    if row.reason == "far-from-training" and far is not None and limit is not None:
        return "distance {}, at most {}".format(*_apart(far, limit, 2))
    return _REASONS.get(row.reason, row.reason)


def remark_on(row: Prediction) -> str:
    """Say what a person should know of one row while rows pass by.

    Parameters
    ----------
    row : Prediction
        Of any status and decision.

    Returns
    -------
    str
        Why it was rejected, or what was done beyond plain decoding; empty for nothing.

    Examples
    --------
    >>> remark_on(Prediction("a.jpg", "rejected", "truncated"))
    'Rejected a.jpg (truncated)'
    """
    if row.status != "ok":
        return rejection(row.path, row.reason, row.detail)
    return f"Note on {row.path}: {row.detail}" if row.detail else ""


def tally_text(outcomes: Outcomes, noun: str = "image") -> str:
    """Say how many images came to what.

    Parameters
    ----------
    outcomes : mapping of (str, str) to int
        Images by `leuko.prediction.Prediction.outcome`.
    noun : str
        What they are, where they are no whole images.

    Returns
    -------
    str
        One sentence.

    Examples
    --------
    >>> tally_text({("class", ""): 20, ("unsure", "blurred"): 1, ("rejected", "corrupt"): 2})
    '23 images: 20 accepted, 1 unsure, 2 rejected.'
    """
    totals = _totals(outcomes)
    parts = [f"{n:,} {_TITLES.get(what, what).lower()}" for what, n in totals.items() if n]
    return f"{counted(sum(totals.values()), noun)}: {', '.join(parts)}."


def next_step(outcomes: Outcomes) -> str:
    """Say what to do about the largest part of what was not accepted.

    Parameters
    ----------
    outcomes : mapping of (str, str) to int
        See `tally_text`.

    Returns
    -------
    str
        One sentence; empty where everything was accepted.
    """
    totals = _totals(outcomes)
    answered = sum(totals.values()) - totals["rejected"]
    doubted = totals["unlike-training"] + outcomes.get(("unsure", "low-confidence"), 0)
    if answered >= _MANY and 2 * doubted > answered:
        return (
            "This model does not know pictures like most of these: label 50 of the cells and fit "
            "it to them with leuko adapt --labels."
        )
    groups: Counter[str] = Counter()
    for (what, reason), n in outcomes.items():
        if what != "class":
            groups[reason if reason in _STEPS else what] += n
    known = [group for group in _STEPS if groups[group]]
    return _STEPS[max(known, key=lambda group: groups[group])] if known else ""


def all_rejected(outcomes: Outcomes) -> str:
    """Say that there is no answer at all.

    Parameters
    ----------
    outcomes : mapping of (str, str) to int
        See `tally_text`.

    Returns
    -------
    str
        One sentence, with the reasons; empty where something was answered.
    """
    if {what for what, _ in outcomes} != {"rejected"}:
        return ""
    found = sum(outcomes.values())
    if found == 1:
        return f"The image could not be read ({next(iter(outcomes))[1]}), so there is no answer."
    reasons = ", ".join(f"{n:,} {reason}" for (_, reason), n in sorted(outcomes.items()))
    return f"None of {found:,} images could be read ({reasons}), so there is no answer."


def _totals(outcomes: Outcomes) -> dict[str, int]:
    """Images by what became of them, in the order in which that is told."""
    totals = dict.fromkeys(_TITLES, 0)
    for (what, _), n in outcomes.items():
        totals[what] = totals.get(what, 0) + n
    return totals


def _apart(first: float, second: float, digits: int) -> tuple[str, str]:
    """Two different numbers with as many digits as tell them apart, and the second from 100."""
    for more in range(digits, 12):
        pair = f"{first:.{more}f}", f"{second:.{more}f}"
        if pair[0] != pair[1] and (float(pair[1]) != 100 or second == 100):
            break
    return pair
