"""Five classes, one order, many spellings."""

from __future__ import annotations

import pytest

from leuko.taxonomy import (
    ABBREVIATIONS,
    CLASSES,
    COLOURS,
    RAABIN_NUMBERS,
    class_index,
    class_named,
    describe_aliases,
    describe_numbers,
    is_number,
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


def test_a_number_means_no_class_of_itself() -> None:
    assert [class_named(str(number)) for number in range(7)] == [None] * 7
    assert [is_number(text) for text in ("1", " 05 ", "3.0", "1_a", "a", "", "²")] == [
        True, True, True, False, False, False, False]  # fmt: skip
    # The order of the data set's paper: neutrophils first, basophils last.
    assert list(RAABIN_NUMBERS.values()) == [CLASSES[label] for label in (4, 2, 3, 1, 0)]
    assert "Raabin-WBC counts 1 Neutrophil, 2 Lymphocyte, 3 Monocyte" in describe_numbers()


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
