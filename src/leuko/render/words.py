"""Numbers and lists as the reports write them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from leuko.support.text import counted

Document = Mapping[str, Any]

NONE: Final = "–"


def bracket(one: Document, *, decimals: bool = False) -> str:
    """An interval in brackets; empty when there is none."""
    low, high = one.get("low"), one.get("high")
    if low is None or high is None:
        return ""
    if decimals:
        return f"[{low:.3f}–{high:.3f}]"
    return f"[{100 * low:.1f}–{100 * high:.1f}]"


def interval_text(low: float | None, high: float | None) -> str:
    """An interval in words and brackets, after a space; empty when there is none."""
    if low is None or high is None:
        return ""
    return f" (95% interval {100 * low:.1f} to {100 * high:.1f}%)"


def difference_text(one: Document | None) -> str:
    """A paired difference in points with its interval."""
    if not one or one.get("difference") is None:
        return NONE
    text = f"{100 * one['difference']:+.1f}".replace("-", "−")
    if one.get("low") is None or one.get("high") is None:
        return text
    span = f"[{100 * one['low']:+.1f} to {100 * one['high']:+.1f}]".replace("-", "−")
    return f"{text} {span}"


def percent(share: float) -> str:
    """A share with one decimal; certainty only where it is certain."""
    return f"{points(share)}%"


def points(share: float) -> str:
    """See `percent`; without its sign."""
    if 0.9995 <= share < 1.0:
        return ">99.9"
    if 0.0 < share < 0.0005:
        return "<0.1"
    return f"{100 * share:.1f}"


def decimals(value: float | None) -> str:
    """Three decimals, or a dash."""
    return NONE if value is None else f"{value:.3f}"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def size_text(size: int) -> str:
    """Bytes as people read them."""
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def seen_parts(start: Document) -> list[str]:
    """How many images of each set a start has learned from, where it has learned from some."""
    seen = (start.get("seen") or {}).items()
    return [f"{n:,} of {total:,} images of {name}" for name, (n, total) in seen if n]


def known(values: Any) -> list[float]:
    """The numbers among values that may be None."""
    return [float(value) for value in values if value is not None]


def tally(counts: Document | None) -> str:
    """Counts by name, commonest first."""
    if not counts:
        return NONE
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    text = ", ".join(f"{name} ({count:,})" for name, count in ranked[:6])
    return f"{text} and {len(ranked) - 6} more" if len(ranked) > 6 else text


def ratio_text(value: float | None) -> str:
    """Largest class over smallest."""
    return NONE if value is None else f"{value:.0f} to 1"


def span_of(values: Sequence[float], *, decimals: bool = False) -> str:
    """A share, or from which to which where several differ."""
    ends = (min(values), max(values))
    first, last = (f"{one:.3f}" if decimals else points(one) for one in ends)
    text = first if first == last else f"{first}–{last}"
    return text if decimals else f"{text}%"


def counted_span(numbers: Sequence[int], noun: str) -> str:
    """A number with its noun, or from which to which where several differ."""
    low, high = min(numbers), max(numbers)
    return counted(high, noun) if low == high else f"{low:,} to {counted(high, noun)}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns below each other, the first to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    text = " ".join(str(text).split())
    text = re.sub(r"([\\`*_\[\]|<>])", r"\\\1", text)
    return text.replace("\\<", "&lt;").replace("\\>", "&gt;")


def markdown_row(cells: Sequence[str]) -> str:
    """A row of a Markdown table; rules stay as they are."""
    return "| " + " | ".join(plain(cell) for cell in cells) + " |"


def encodable(text: str) -> str:
    """Text without the halves of characters that undecodable file names leave behind."""
    return text.encode("utf-8", "replace").decode("utf-8")
