"""The five white blood cells of a routine differential: order, names, aliases and colours.

The order is alphabetical and never inferred from a folder listing or a model file: whatever
crosses a file or a process carries the class names with it.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["ABBREVIATIONS", "CLASSES", "COLOURS", "class_index", "class_named", "describe_aliases"]

CLASSES: Final = ("Basophil", "Eosinophil", "Lymphocyte", "Monocyte", "Neutrophil")
"""Class names in the order of every probability vector and confusion matrix."""

ABBREVIATIONS: Final = ("BASO", "EOS", "LYMPH", "MONO", "NEUT")
"""Laboratory abbreviations, in class order, for axes that have little room."""

COLOURS: Final = ("#5b5fc7", "#d1495b", "#2a9d8f", "#8d6a9f", "#e09f3e")
"""One colour for each class, in class order, told apart in the three common colour blindnesses."""

# Raabin-WBC's label files number the classes in the order in which its paper lists them.
_RAABIN_LABELS: Final = {
    "1": "Neutrophil",
    "2": "Lymphocyte",
    "3": "Monocyte",
    "4": "Eosinophil",
    "5": "Basophil",
}

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
    forgiven; Raabin-WBC's numeric labels 1 to 5 are understood.

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
    >>> class_named("neutrophils"), class_named("EOSINOPHIL"), class_named("3")
    ('Neutrophil', 'Eosinophil', 'Monocyte')
    >>> class_named("platelet") is None
    True

    References
    ----------
    The numeric labels are those of Raabin-WBC: Kouzehkanan et al., Scientific Reports 12:1123,
    2022.
    """
    text = name.strip().lower()
    if text in _RAABIN_LABELS:
        return _RAABIN_LABELS[text]
    text = re.sub(r"^\d+[\s_.-]+", "", text)
    return _STEMS.get(text) or _STEMS.get(text.removesuffix("s"))


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
    numbers = {v: k for k, v in _RAABIN_LABELS.items()}
    parts = []
    for name in CLASSES:
        short = [stem for stem, full in _STEMS.items() if full == name and stem != name.lower()]
        parts.append(f"{name} ({', '.join([*short, numbers[name]])})")
    return "; ".join(parts) + "; any case, plural or not"
