"""What a fitted bundle's card says of it."""

from __future__ import annotations

from typing import Any, Final

from leuko.runtime.adapt_labels import dealt_words

__all__ = ["adapted_card"]

_TITLE: Final = "## Adapted"
_BEFORE: Final = "\n## Trust\n"


def adapted_card(card: str, report: dict[str, Any]) -> str:
    """Put a section "Adapted" into a card, a former one replaced.

    Parameters
    ----------
    card : str
        Of the bundle as it was.
    report : dict
        See `leuko.runtime.adapt.Adaptation`.

    Returns
    -------
    str
        The section stands before "Trust": `leuko.runtime.trust_bundle.fit_trust` replaces that and
        all that follows.
    """
    labels = report["labels"]
    right, balanced = labels["accuracy"], labels["balanced_accuracy"]
    told = ", ".join(f"{count} {name}" for name, count in labels["classes"].items() if count)
    fitted = "fitted again" if labels["calibrated"] else "as it was"
    lines = [
        _TITLE,
        "",
        f"Fitted to {labels['n']} labelled cells of one laboratory (digest "
        f"`{report['images_digest'][:16]}`), from the bundle `{report['adapted_from'][:12]}`. The "
        "figures and settings outside this section are those of that bundle, and say nothing of "
        "this one.",
        "",
        f"- {report['told']}",
        f"- Cells: {labels['n']} ({told}), {dealt_words(labels)}, "
        f"{labels['repeats']} times. Accuracy {right['before']:.3f} before, "
        f"{right['after']:.3f} ({right['low']:.3f} to {right['high']:.3f}) cross-validated; "
        f"balanced {balanced['before']:.3f} and {balanced['after']:.3f}. Temperature "
        f"{labels['temperature']:.4g}, {fitted}.",
    ]
    if labels["unseen"]:
        lines.append(
            f"- Held out, {labels['unseen']} of these cells were answered by fits that had "
            "seen none of their class."
        )
    lines += [
        "- The thresholds under Trust were fitted on another laboratory; `leuko models calibrate` "
        "fits them to labelled cells of this one.",
        "",
    ]
    return _inserted(_without(card), "\n".join(lines))


def _without(card: str) -> str:
    """A card without its section "Adapted"."""
    head, found, rest = card.partition(f"\n{_TITLE}\n")
    if not found:
        return card
    _, more, tail = rest.partition("\n## ")
    return head + (f"\n## {tail}" if more else "\n")


def _inserted(card: str, section: str) -> str:
    """A card with one more section, before "Trust" or at its end."""
    head, found, rest = card.partition(_BEFORE)
    return f"{head.rstrip()}\n\n{section}" + (f"{_BEFORE}{rest}" if found else "")
