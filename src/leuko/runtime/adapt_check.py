"""Whether a change to a model is for the better, judged without a single label.

A picture that is turned, mirrored or stained a little shows the same cell. Where the answers to
such views differ, the network hangs on something other than the cell. The measure is the
Jensen-Shannon divergence of these answers as a share of all the doubt there is: as it stands, a
change that only makes answers surer would lower it, and so would one that names every cell a
neutrophil; see docs/decisions/0019-fit-to-a-microscope.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leuko.runtime.looks import softmax
from leuko.taxonomy import CLASSES

__all__ = ["MARGIN", "Check", "Verdict", "check", "entropy", "judge"]

Doubles = npt.NDArray[np.float64]

MARGIN: Final = 0.02
"""The share of unsteady doubt must fall by this part of itself, and by more than its own error."""

LARGEST: Final = 0.95
"""No class may get more of the pictures than this."""

MOVED: Final = 0.15
"""Total variation by which the mix of classes may change, at most."""

_DRAWS: Final = 500
_LEAST: Final = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Check:
    """What is known of a model's answers without labels.

    Attributes
    ----------
    unsteady : (N,) float64
        Jensen-Shannon divergence of the answers to all views of each picture, in nats.
    doubt : (N,) float64
        Entropy of the mean of these answers; `unsteady` is a part of it.
    entropy : float
        Mean entropy of the answers to the pictures as they are.
    mix : (5,) float64
        Mean of these answers.
    between : float
        Mean divergence between the looks at a picture; 0 where there is one look.
    """

    unsteady: Doubles
    doubt: Doubles
    entropy: float
    mix: Doubles
    between: float

    @property
    def share(self) -> float:
        """Share of the doubt that comes from the views."""
        return float(self.unsteady.sum() / max(float(self.doubt.sum()), _LEAST))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a report.

        Returns
        -------
        dict
            With the class mix by name.
        """
        return {
            "unsteady_share": self.share,
            "divergence": float(self.unsteady.mean()),
            "entropy": self.entropy,
            "between_looks": self.between,
            "mix": dict(zip(CLASSES, self.mix.tolist(), strict=True)),
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was made of a candidate.

    Attributes
    ----------
    kept : bool
        Whether it is applied.
    reason : str
        One sentence.
    """

    kept: bool
    reason: str


def check(
    logits: Doubles,
    weights: tuple[float, ...] = (),
    *,
    bias: Doubles | None = None,
    temperature: float = 1.0,
) -> Check:
    """Measure answers to pictures and to their altered views.

    Parameters
    ----------
    logits : (N, V, K, 5) float64
        See `leuko.runtime.adapt_views.Shown`.
    weights : tuple of float
        What each look counts for; empty where all count the same.
    bias : (5,) float64, optional
        Added to every logit.
    temperature : float
        Logits are divided by it.

    Returns
    -------
    Check
        One value a picture where a comparison needs them.
    """
    moved = logits if bias is None else logits + bias
    answers = softmax(np.average(moved, axis=2, weights=weights or None) / temperature)
    doubt = entropy(answers.mean(axis=1))
    own = softmax(moved[:, 0] / temperature)
    between = entropy(own.mean(axis=1)) - entropy(own).mean(axis=1)
    return Check(
        unsteady=np.maximum(doubt - entropy(answers).mean(axis=1), 0.0),
        doubt=doubt,
        entropy=float(entropy(answers[:, 0]).mean()),
        mix=answers[:, 0].mean(axis=0),
        between=float(np.maximum(between, 0.0).mean()),
    )


def judge(before: Check, after: Check, *, seed: int = 0) -> Verdict:
    """Decide whether a candidate is kept.

    Parameters
    ----------
    before, after : Check
        Of the same pictures and the same views.
    seed : int
        Of the bootstrap over pictures that gives the error of the gain.

    Returns
    -------
    Verdict
        Kept when the unsteady share falls by `MARGIN` and by its standard error, no class takes
        more than `LARGEST`, and the mix moves by no more than `MOVED`.
    """
    top = int(after.mix.argmax())
    if after.mix[top] > LARGEST:
        return Verdict(
            False, f"{CLASSES[top]} would take {after.mix[top]:.0%}, more than {LARGEST:.0%}."
        )
    moved = float(np.abs(after.mix - before.mix).sum() / 2)
    if moved > MOVED:
        return Verdict(
            False, f"The mix of classes would move by {moved:.2f}, more than {MOVED:.2f}."
        )
    gain = 1 - after.share / max(before.share, _LEAST)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(before.doubt), size=(_DRAWS, len(before.doubt)))
    shares = [
        one.unsteady[drawn].sum(axis=1) / np.maximum(one.doubt[drawn].sum(axis=1), _LEAST)
        for one in (before, after)
    ]
    error = float(np.std(1 - shares[1] / np.maximum(shares[0], _LEAST)))
    told = f"The unsteady share of the doubt goes from {before.share:.4f} to {after.share:.4f}"
    if gain < MARGIN:
        return Verdict(False, f"{told}; it would have to fall by {MARGIN:.0%}.")
    if gain < error:
        return Verdict(False, f"{told}, which is within its error of {error:.0%}.")
    return Verdict(True, f"{told}.")


def entropy(probabilities: Doubles) -> Doubles:
    """Entropy along the last axis.

    Parameters
    ----------
    probabilities : (..., 5) float64
        Of sum 1.

    Returns
    -------
    (...) float64
        In nats.

    Examples
    --------
    >>> float(entropy(np.array([0.5, 0.5, 0, 0, 0])).round(4))
    0.6931
    """
    values = probabilities * np.log(np.maximum(probabilities, _LEAST))
    return np.asarray(-values.sum(axis=-1), np.float64)
