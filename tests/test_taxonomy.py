"""Five classes, one order, many spellings."""

from __future__ import annotations

import pytest

from leuko.taxonomy import (
    ABBREVIATIONS,
    CLASSES,
    COLOURS,
    class_index,
    class_named,
    describe_aliases,
)


def test_the_order_is_alphabetical() -> None:
    assert CLASSES == ("Basophil", "Eosinophil", "Lymphocyte", "Monocyte", "Neutrophil")
    assert len(ABBREVIATIONS) == len(COLOURS) == 5
    assert [class_index(name) for name in CLASSES] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("name", CLASSES)
def test_case_plural_space_and_number_are_forgiven(name: str) -> None:
    for spelling in (
        name,
        name.lower(),
        name.upper(),
        f"{name}s",
        f" {name.lower()}s ",
        f"01_{name}",
        f"3 - {name}s",
    ):
        assert class_named(spelling) == name, spelling


def test_raabins_labels() -> None:
    # The order of the data set's paper: neutrophils first, basophils last.
    assert [class_named(str(n)) for n in range(7)] == [
        None,
        "Neutrophil",
        "Lymphocyte",
        "Monocyte",
        "Eosinophil",
        "Basophil",
        None,
    ]


@pytest.mark.parametrize(
    ("spelling", "name"),
    [("baso", 0), ("EOS", 1), ("lymph", 2), ("mono", 3), ("Neut", 4), ("neutro", 4), ("ly", 2)],
)
def test_laboratory_abbreviations(spelling: str, name: int) -> None:
    assert class_named(spelling) == CLASSES[name]


@pytest.mark.parametrize(
    "name", ["", "s", "platelet", "Neutrophil2", "neutrophil/band", "12", "1_", "erythroblast", "²"]
)
def test_anything_else_is_no_class(name: str) -> None:
    assert class_named(name) is None


def test_unknown_index() -> None:
    with pytest.raises(ValueError, match="not in tuple"):
        class_index("neutrophil")


def test_what_is_described_is_understood() -> None:
    for part in describe_aliases().split("; ")[:5]:
        name, _, others = part.partition(" (")
        assert name in CLASSES
        assert {class_named(word) for word in others.rstrip(")").split(", ")} == {name}
