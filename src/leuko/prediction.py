"""What a classifier answers: one row for each image, found or rejected."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leuko import __version__
from leuko.scheme import DIFFERENTIAL_5, ClassScheme, load_scheme
from leuko.support.artifacts import RESEARCH_USE, schema

__all__ = ["DECIMALS", "DECISIONS", "SET_ASIDE", "Judgement", "Prediction", "PredictionTable"]

DECIMALS: Final = 6
"""Probabilities are rounded to this many decimals before anything is decided on them."""

SET_ASIDE: Final = "set-aside"
"""Decision on a cell of a field that is told and never counted; `leuko.field.report.FieldCell` has
the reasons. Nobody need have asked what it is: its answer may be empty."""

DECISIONS: Final = ("class", "unsure", "not-a-cell", "unlike-training", "duplicate", SET_ASIDE)
"""What may be decided on an answer; only with ``class`` is it accepted and has a label."""


def _routine() -> ClassScheme:
    """The scheme of a routine differential."""
    return load_scheme(DIFFERENTIAL_5)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is made of one answer.

    Attributes
    ----------
    decision : {"class", "unsure", "not-a-cell", "unlike-training"}
        Whether the answer is accepted.
    reason : str
        Empty for ``class``, otherwise one of `leuko.runtime.trust.decide.REASONS`.
    prediction_set : tuple of str
        Classes that the true one is among, with the coverage that the bundle states; empty where
        it states none.
    distance : float or None
        See `leuko.runtime.trust.decide.feature_distances`; None where the bundle has no feature
        space.
    limit : float or None
        The bundle's limit that the reason speaks of; None where there is none.
    """

    decision: str = "class"
    reason: str = ""
    prediction_set: tuple[str, ...] = ()
    distance: float | None = None
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one image.

    Attributes
    ----------
    path : str
        As the user gave it.
    status : {"ok", "rejected"}
        Whether the image could be read.
    reason : str
        Why it was rejected, one of `leuko.imaging.decode.REJECT_REASONS`; or why it is not
        accepted, one of `leuko.runtime.trust.decide.REASONS`; empty when it is.
    likeliest : str
        The most probable class, whatever is decided; empty when rejected, or set aside unasked.
    confidence : float
        Its probability; not-a-number where there is none.
    probabilities : tuple of float
        In class order, calibrated where the bundle has a calibration, 6 decimals; empty when
        rejected, or set aside unasked.
    decision : str
        One of `DECISIONS`: ``class`` when it is accepted; empty when rejected.
    sha256 : str
        Digest of the image file; empty when it could not be read.
    model : str
        Digest of the bundle that answered, 12 digits.
    detail : str
        One sentence for a person about a rejection, or about what was done beyond plain decoding,
        such as "first of 3 frames"; not part of the CSV.
    preprocessing : str
        Digest of how the picture became the network's input, 12 digits; not part of the CSV, nor
        are the following.
    prediction_set : tuple of str
        Classes that the true one is among, with the coverage that the bundle states; empty where
        it states none.
    distance : float or None
        How far the picture is from those that the bundle knows; see
        `leuko.runtime.trust.decide.feature_distances`.
    quality : tuple of (str, float)
        Figures of the picture by name; see `leuko.runtime.quality.Quality`.
    limit : float or None
        The bundle's threshold that the answer fails, by its reason; None where there is none.
    fingerprint : str
        Of the picture, in base 64, until `leuko.runtime.repeats.mark_repeats` has used it; see
        `leuko.data.alike.fingerprint`. In no file.
    scheme : ClassScheme
        Of the probabilities.
    """

    path: str
    status: str
    reason: str = ""
    likeliest: str = ""
    confidence: float = float("nan")
    probabilities: tuple[float, ...] = ()
    decision: str = ""
    sha256: str = ""
    model: str = ""
    detail: str = ""
    preprocessing: str = ""
    prediction_set: tuple[str, ...] = ()
    distance: float | None = None
    quality: tuple[tuple[str, float], ...] = ()
    limit: float | None = None
    fingerprint: str = field(default="", repr=False, compare=False)
    scheme: ClassScheme = field(default_factory=_routine, repr=False, compare=False)

    @property
    def label(self) -> str:
        """The likeliest class where it is accepted, and nothing anywhere else."""
        return self.likeliest if self.decision == "class" else ""

    @property
    def outcome(self) -> tuple[str, str]:
        """What became of the image, for a tally: ``rejected`` or the decision, and why.

        A reason in words of its own, which may name another image, is left out.
        """
        what = self.decision if self.status == "ok" else "rejected"
        return what, "" if " " in self.reason else self.reason

    @property
    def scores(self) -> dict[str, float]:
        """Probability of each class, by name."""
        return dict(zip(self.scheme.names, self.probabilities, strict=False))

    @classmethod
    def answered(
        cls,
        path: str,
        probabilities: npt.NDArray[np.float64],
        sha256: str,
        model: str,
        judgement: Judgement = Judgement(),
        scheme: ClassScheme | None = None,
    ) -> Prediction:
        """Build the row of an image that was classified.

        Parameters
        ----------
        path : str
            As the user gave it.
        probabilities : (K,) float64
            Already rounded to `DECIMALS`.
        sha256, model : str
            Digests.
        judgement : Judgement
            What is made of the answer; accepted when left out.
        scheme : ClassScheme, optional
            Of the probabilities; of a routine differential when None.

        Returns
        -------
        Prediction
            With the likeliest class; of equal ones, the first in class order.
        """
        best = int(np.argmax(probabilities))
        scheme = _routine() if scheme is None else scheme
        values = tuple(probabilities.tolist())
        return cls(
            path=path,
            status="ok",
            likeliest=scheme.names[best],
            confidence=values[best],
            probabilities=values,
            decision=judgement.decision,
            reason=judgement.reason,
            sha256=sha256,
            model=model,
            prediction_set=judgement.prediction_set,
            distance=judgement.distance,
            limit=judgement.limit,
            scheme=scheme,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON.

        Returns
        -------
        dict
            With the columns of the CSV; absent numbers are None.
        """
        answered = bool(self.probabilities)
        return {
            "path": self.path,
            "status": self.status,
            "reason": self.reason,
            "detail": self.detail,
            "label": self.label,
            "likeliest": self.likeliest,
            "confidence": self.confidence if answered else None,
            "probabilities": self.scores if answered else None,
            "decision": self.decision,
            "sha256": self.sha256,
            "model": self.model,
            "preprocessing": self.preprocessing,
            "prediction_set": list(self.prediction_set),
            "distance": self.distance,
            "quality": dict(self.quality) or None,
            "limit": self.limit,
        }


@dataclass(frozen=True)
class PredictionTable:
    """Answers in input order.

    Attributes
    ----------
    rows : tuple of Prediction
        One for each image that was found.
    scheme : ClassScheme
        Of all answers.
    """

    rows: tuple[Prediction, ...]
    scheme: ClassScheme = field(default_factory=_routine)

    def __len__(self) -> int:
        """Count the rows, rejected ones included."""
        return len(self.rows)

    @property
    def predicted(self) -> list[Prediction]:
        """Rows that have an answer."""
        return [row for row in self.rows if row.status == "ok"]

    @property
    def answered(self) -> npt.NDArray[np.int64]:
        """(N,) int64, positions of `predicted` among the rows."""
        return np.flatnonzero([row.status == "ok" for row in self.rows])

    @property
    def rejected(self) -> list[Prediction]:
        """Rows that have none, each with its reason."""
        return [row for row in self.rows if row.status != "ok"]

    @property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """(N, K) float64, one row for each of `predicted`, in class order.

        Not-a-number for cells that were set aside unasked.
        """
        unasked = (math.nan,) * len(self.scheme)
        values = [row.probabilities or unasked for row in self.predicted]
        return np.array(values, dtype=np.float64).reshape(-1, len(self.scheme))

    @property
    def labels(self) -> dict[str, int]:
        """How many images of each class were accepted: what may be counted."""
        labels = [row.label for row in self.rows]
        return {name: labels.count(name) for name in self.scheme.names}

    @property
    def likeliest(self) -> dict[str, int]:
        """How many images each class is the likeliest of, whatever is decided on them."""
        classes = [row.likeliest for row in self.rows]
        return {name: classes.count(name) for name in self.scheme.names}

    @property
    def outcomes(self) -> Counter[tuple[str, str]]:
        """How many images came to each `Prediction.outcome`."""
        return Counter(row.outcome for row in self.rows)

    @property
    def decisions(self) -> dict[str, int]:
        """How many images got each of `DECISIONS`."""
        taken = [row.decision for row in self.predicted]
        return {name: taken.count(name) for name in DECISIONS}

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, schema ``leuko.predictions/2``.

        Returns
        -------
        dict
            With the counts and every row.
        """
        reasons: Counter[str] = Counter()
        for (_, reason), count in self.outcomes.items():
            reasons[reason] += count
        del reasons[""]
        return {
            "schema": schema("predictions"),
            "research_use": RESEARCH_USE,
            "version": __version__,
            "scheme": self.scheme.to_dict(),
            "found": len(self.rows),
            "predicted": len(self.predicted),
            "rejected": len(self.rejected),
            "decisions": self.decisions,
            "reasons": dict(sorted(reasons.items())),
            "labels": self.labels,
            "likeliest": self.likeliest,
            "predictions": [row.to_dict() for row in self.rows],
        }
