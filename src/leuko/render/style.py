"""Colours of plots and pages: one set for light paper, one for dark, one that lets the page choose.

Figures that are put inside a page are drawn with placeholder colours, which become CSS variables
afterwards. So one drawing follows the reader's theme, and nothing is drawn twice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Final

from leuko.taxonomy import CLASSES, COLOURS

__all__ = ["PAGE", "Style", "css_variables", "lighter", "style", "themed"]


@dataclass(frozen=True, slots=True)
class Style:
    """Colours by what they are for, as ``#rrggbb``.

    Attributes
    ----------
    ink, muted, line : str
        Text, secondary text, and rules or grids.
    paper, card : str
        The ground, and what lies on it.
    accent, on_accent : str
        Emphasis, and text on a ground of that colour.
    warn : str
        What should worry the reader.
    classes : tuple of 5 str
        In class order.
    models : tuple of 6 str
        One for each model of a comparison, reused in turn.
    """

    ink: str
    muted: str
    line: str
    paper: str
    card: str
    accent: str
    on_accent: str
    warn: str
    classes: tuple[str, ...]
    models: tuple[str, ...]


def lighter(colour: str, share: float) -> str:
    """Mix a colour with white."""
    parts = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return "#" + "".join(f"{round(part + (255 - part) * share):02x}" for part in parts)


_LIGHT: Final = Style(
    ink="#1d2129",
    muted="#59616e",
    line="#d9dce2",
    paper="#fbfbf9",
    card="#ffffff",
    accent="#2a5d9f",
    on_accent="#ffffff",
    warn="#a33a15",
    classes=COLOURS,
    models=("#2a5d9f", "#c05a1c", "#3a7d44", "#8a4f9e", "#8a6d00", "#5b6470"),
)

_DARK: Final = Style(
    ink="#e8e9ec",
    muted="#a4abb8",
    line="#3a404b",
    paper="#14161b",
    card="#1c1f26",
    accent="#82b1ec",
    on_accent="#10131a",
    warn="#f0956b",
    classes=tuple(lighter(colour, 0.22) for colour in COLOURS),
    models=("#82b1ec", "#f0a068", "#84c48d", "#cd9ede", "#d9bd55", "#b0b8c4"),
)

PAGE: Final = Style(
    ink="#010a01",
    muted="#010a02",
    line="#010a03",
    paper="#010a04",
    card="#010a05",
    accent="#010a06",
    on_accent="#010a07",
    warn="#010a08",
    classes=tuple(f"#010b0{index}" for index in range(len(CLASSES))),
    models=tuple(f"#010c0{index}" for index in range(6)),
)
"""Placeholders, for figures that `themed` turns over to the page's CSS variables."""


def style(*, dark: bool = False) -> Style:
    """Colours for light or dark paper.

    Parameters
    ----------
    dark : bool
        Whether the ground is dark.

    Returns
    -------
    Style
        Text on `paper` and `card` has a contrast of at least 4.5.

    Examples
    --------
    >>> style().classes[0], style(dark=True).ink
    ('#5b5fc7', '#e8e9ec')
    """
    return _DARK if dark else _LIGHT


def _named(colours: Style) -> dict[str, str]:
    """Every colour under its CSS name."""
    named: dict[str, str] = {}
    for field in fields(colours):
        value = getattr(colours, field.name)
        name = field.name.replace("_", "-")
        if isinstance(value, str):
            named[f"--{name}"] = value
        else:
            named.update({f"--{name[:-1]}-{i}": one for i, one in enumerate(value)})
    return {name.replace("--classe-", "--class-"): value for name, value in named.items()}


def css_variables(colours: Style) -> str:
    """Declare the colours for a style sheet.

    Parameters
    ----------
    colours : Style
        Usually from `style`.

    Returns
    -------
    str
        CSS declarations, each ended by a semicolon.

    Examples
    --------
    >>> css_variables(style())[:15], "--class-4:#e09f3e;" in css_variables(style())
    ('--ink:#1d2129;-', True)
    """
    return "".join(f"{name}:{value};" for name, value in _named(colours).items())


def themed(svg: str) -> str:
    """Let the page colour a figure that was drawn with `PAGE`.

    Parameters
    ----------
    svg : str
        An SVG whose colours stand in style attributes.

    Returns
    -------
    str
        The same with ``var(--ink)`` and the like.

    Examples
    --------
    >>> themed("fill: #010a01; stroke: #010b03")
    'fill: var(--ink); stroke: var(--class-3)'
    """
    names = {value: name for name, value in _named(PAGE).items()}
    return re.sub(
        r"#01[0-9a-f]{4}",
        lambda found: f"var({names[found[0]]})" if found[0] in names else found[0],
        svg,
    )
