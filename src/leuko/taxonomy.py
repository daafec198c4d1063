"""The five white blood cells of a routine differential: order, names, aliases and colours.

The order is alphabetical and never inferred from a folder listing or a model file: whatever
crosses a file or a process carries the class names with it.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = [
    "ABBREVIATIONS",
    "CLASSES",
    "COLOURS",
    "RAABIN_NUMBERS",
    "class_index",
    "class_named",
    "describe_aliases",
    "describe_numbers",
    "is_number",
]

CLASSES: Final = ("Basophil", "Eosinophil", "Lymphocyte", "Monocyte", "Neutrophil")
"""Class names in the order of every probability vector and confusion matrix."""

ABBREVIATIONS: Final = ("BASO", "EOS", "LYMPH", "MONO", "NEUT")
"""Laboratory abbreviations, in class order, for axes that have little room."""

COLOURS: Final = ("#5b5fc7", "#d1495b", "#2a9d8f", "#8d6a9f", "#e09f3e")
"""One colour for each class, in class order, told apart in the three common colour blindnesses."""

RAABIN_NUMBERS: Final = {
    "1": "Neutrophil",
    "2": "Lymphocyte",
    "3": "Monocyte",
    "4": "Eosinophil",
    "5": "Basophil",
}
"""Raabin-WBC's label files number the classes in the order in which its paper lists them."""

_STEMS: Final = {
    "basophil": "Basophil",
    "baso": "Basophil",
    "ba": "Basophil",
    "eosinophil": "Eosinophil",
    "eosino": "Eosinophil",
    "eos": "Eosinophil",
    "eo": "Eosinophil",
    "lymphocyte": "Lymphocyte",
    "lympho": "Lymphocyte",
    "lymph": "Lymphocyte",
    "ly": "Lymphocyte",
    "monocyte": "Monocyte",
    "mono": "Monocyte",
    "mo": "Monocyte",
    "neutrophil": "Neutrophil",
    "neutro": "Neutrophil",
    "neut": "Neutrophil",
    "ne": "Neutrophil",
}


def class_named(name: str) -> str | None:
    """Find the class that a folder name or a label means.

    Case, surrounding space, a plural ``s`` and a leading number (``01_Neutrophil``) are
    forgiven. A number alone means no class: there are several orders; see `describe_numbers`.

    Parameters
    ----------
    name : str
        A folder name or a label.

    Returns
    -------
    str or None
        One of `CLASSES`, or None when the name means none of them.

    Examples
    --------
    >>> class_named("neutrophils"), class_named("EOSINOPHIL"), class_named("01_mono")
    ('Neutrophil', 'Eosinophil', 'Monocyte')
    >>> class_named("platelet") is None, class_named("3") is None
    (True, True)
    """
    text = name.strip().lower()
    text = re.sub(r"^\d+[\s_.-]+", "", text)
    return _STEMS.get(text) or _STEMS.get(text.removesuffix("s"))


def is_number(name: str) -> bool:
    """Whether a folder's name or a label is a number and nothing else.

    Parameters
    ----------
    name : str
        A folder name or a label.

    Returns
    -------
    bool
    """
    return re.fullmatch(r"\d+(\.0*)?", name.strip(), re.ASCII) is not None


def describe_numbers() -> str:
    """Say in one sentence why numbers alone are no class names.

    Returns
    -------
    str
        With the orders that are in use.

    References
    ----------
    Raabin-WBC's numbers: Kouzehkanan et al., Scientific Reports 12:1123, 2022.
    """
    raabin = ", ".join(f"{number} {name}" for number, name in RAABIN_NUMBERS.items())
    return (
        f"A number may mean several classes: Raabin-WBC counts {raabin}; the alphabet counts "
        f"{CLASSES[0]} first, from 0 or from 1."
    )


def class_index(name: str) -> int:
    """Position of a class in `CLASSES`.

    Parameters
    ----------
    name : str
        Exactly one of `CLASSES`.

    Returns
    -------
    int
        0 to 4.

    Raises
    ------
    ValueError
        When the name is not one of `CLASSES`.
    """
    return CLASSES.index(name)


def describe_aliases() -> str:
    """One line that tells a person which names are understood.

    Returns
    -------
    str
        The class names with what else is accepted for each.
    """
    parts = []
    for name in CLASSES:
        short = [stem for stem, full in _STEMS.items() if full == name and stem != name.lower()]
        parts.append(f"{name} ({', '.join(short)})")
    return "; ".join(parts) + "; any case, plural or not"
