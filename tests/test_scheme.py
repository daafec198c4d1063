"""Class schemes: known ones, files of the user's, inference from folders, merging."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leuko.errors import DataError, UsageError
from leuko.scheme import (
    MOST_CLASSES,
    CellClass,
    ClassScheme,
    infer_scheme,
    known_schemes,
    load_scheme,
    merging,
    scheme_of,
)

FIVE = load_scheme("differential-5")
SIX = load_scheme("differential-6")
EIGHT = load_scheme("pbc-8")

NAMES = st.lists(
    st.text(st.characters(categories=("L", "N")), min_size=1, max_size=12),
    min_size=2,
    max_size=MOST_CLASSES,
    unique_by=lambda name: "".join(c for c in name.casefold() if c.isalnum()),
)


def own(names):
    """A scheme of these names, or None where two of them read alike."""
    try:
        return scheme_of(names)
    except DataError:
        return None


@pytest.mark.parametrize("name", known_schemes())
def test_known_schemes_are_whole(name):
    scheme = load_scheme(name)
    assert scheme.name == name
    assert len({one.colour for one in scheme.classes}) == len(scheme)
    assert len({one.abbreviation for one in scheme.classes}) == len(scheme)
    assert all(scheme.find(one.name) == place for place, one in enumerate(scheme.classes))
    assert all(
        scheme.find(alias) == place
        for place, one in enumerate(scheme.classes)
        for alias in one.aliases
    )
    assert ClassScheme.from_dict(json.loads(json.dumps(scheme.to_dict()))) == scheme


def test_the_five_are_as_they_were():
    assert FIVE.names == ("Basophil", "Eosinophil", "Lymphocyte", "Monocyte", "Neutrophil")
    assert FIVE.slugs == ("basophil", "eosinophil", "lymphocyte", "monocyte", "neutrophil")
    assert [one.range for one in FIVE.classes] == [(0, 2), (1, 6), (20, 40), (2, 10), (40, 80)]


def test_cells_that_are_no_white_cells_are_not_counted():
    uncounted = [one.name for one in EIGHT.classes if not one.counted]
    assert uncounted == ["Erythroblast", "Platelet"]
    assert sum(EIGHT.counted) == 6


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("neutrophils", 4),
        ("EOSINOPHIL", 1),
        ("01_Neutrophil", 4),
        (" mono ", 3),
        ("Linfocito", 2),
        ("eosinófilos", 1),
        ("eosinofilo", 1),
        ("platelet", None),
        ("3", None),
        ("", None),
    ],
)
def test_find(text, place):
    assert FIVE.find(text) == place


def test_find_takes_one_kind_of_space_for_another():
    assert EIGHT.find("immature_granulocyte") == EIGHT.find("Immature-Granulocytes") == 3


def test_merging_bands_and_segmented_into_neutrophils():
    assert merging(SIX, FIVE) == (4, 0, 1, 2, 3, 4)


def test_merging_leaves_out_what_has_no_counterpart():
    assert merging(EIGHT, FIVE) == (0, 1, None, None, 2, 3, 4, None)
    assert merging(FIVE, SIX) == (1, 2, 3, 4, None)


def test_merging_goes_up_by_more_than_one_step():
    fine = scheme_of(["myelocyte", "band neutrophil", "monocyte"])
    assert merging(fine, EIGHT) == (3, 6, 5)


def test_merging_as_told_comes_first():
    told = merging(EIGHT, FIVE, {"ig": "neutrophil"})
    assert told == (0, 1, None, 4, 2, 3, 4, None)
    with pytest.raises(UsageError, match="'blast' is no class of pbc-8"):
        merging(EIGHT, FIVE, {"blast": "neutrophil"})
    with pytest.raises(UsageError, match="'band' is no class of differential-5"):
        merging(EIGHT, FIVE, {"ig": "band"})


@given(NAMES)
def test_a_scheme_merges_into_itself_as_it_is(names):
    scheme = own(names)
    if scheme is not None:
        assert merging(scheme, scheme) == tuple(range(len(names)))


@given(NAMES, st.integers(0, 2**32 - 1))
def test_merging_follows_names_and_not_places(names, seed):
    scheme = own(names)
    if scheme is None:
        return
    order = np.random.default_rng(seed).permutation(len(names))
    turned = scheme_of([names[place] for place in order])
    there = merging(scheme, turned)
    assert [turned.names[place] for place in there] == names


@given(NAMES)
def test_inference_does_not_depend_on_the_order_of_folders(names):
    if own(sorted(names)) is None:
        return
    assert infer_scheme(names) == infer_scheme(reversed(names))
    assert ClassScheme.from_dict(infer_scheme(names).to_dict()) == infer_scheme(names)


def test_inference_prefers_a_known_scheme():
    assert infer_scheme(["Band", "Segmented", "EOS", "BASO", "LYMPH", "MONO"]) == SIX
    assert infer_scheme(["ImmatureGranulocyte", "Erythroblast", "Platelet", "Monocyte"]) == EIGHT


def test_inference_keeps_folders_names_and_fills_in_what_is_known():
    scheme = infer_scheme(["segmented neutrophil", "blast", "Zelle"])
    assert scheme.names == ("Zelle", "blast", "segmented neutrophil")
    assert scheme.classes[1].abbreviation == "BLAST"
    assert scheme.classes[2].broader == "Neutrophil"


def test_two_folders_of_one_class_make_no_known_scheme():
    with pytest.raises(DataError, match="classes of one name: eosinophil"):
        infer_scheme(["eosinophil", "Eosinophil"])


def test_twelve_colours_then_hatching():
    scheme = scheme_of([f"kind {number}" for number in range(21)])
    assert len({one.colour for one in scheme.classes}) == 12
    assert scheme.hatches == (0,) * 12 + (1,) * 9


def test_a_file_of_the_users(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(
        'classes = ["Neutrophil", "Reactive lymphocyte", "Lymphocyte", "Smear"]\n'
        '[class."Reactive lymphocyte"]\nbroader = "Lymphocyte"\ncolour = "#2a9d8f"\n'
        "[class.Smear]\ncounted = false\n[class.Neutrophil]\nrange = [38, 77.5]\n",
        encoding="utf-8",
    )
    scheme = load_scheme(file)
    assert scheme.name == "mine"
    assert scheme.classes[0].range == (38.0, 77.5)
    assert scheme.classes[1].colour == "#2a9d8f" != scheme.classes[2].colour
    assert scheme.counted == (True, True, True, False)
    assert merging(scheme, FIVE) == (4, 2, 2, None)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("classes = 5", "is no class scheme"),
        ('classes = ["A"]', "has 1 classes"),
        ('classes = ["A", "a"]', "classes of one name: a"),
        ('classes = ["A!", "A?"]', "classes of one column: a"),
        ('classes = ["A", "B"]\n[class.C]\ncounted = false', "tells of C"),
        ('classes = ["A", "B"]\n[class.B]\ncolor = "red"', "has color; expected"),
        ('classes = ["A", "B"]\n[class.B]\ncolour = "red"', "expected #rrggbb"),
        ('classes = ["A", "B"]\n[class.B]\nrange = [5, 2]', "the lower first"),
        ("classes = [", "cannot be read as a class scheme"),
    ],
)
def test_files_that_are_no_scheme(tmp_path, text, told):
    file = tmp_path / "mine.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=told):
        load_scheme(file)


def test_a_scheme_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="There is no class scheme 'five'"):
        load_scheme("five")
    with pytest.raises(DataError, match="cannot be read as a class scheme"):
        load_scheme(tmp_path / "none.toml")


@pytest.mark.parametrize("values", [{}, {"name": "x", "classes": [{}]}, {"name": 1, "classes": 5}])
def test_what_is_stored_is_not_trusted(values):
    with pytest.raises(DataError, match="cannot be read"):
        ClassScheme.from_dict(values)


def test_names_that_cannot_be_shown_are_refused():
    with pytest.raises(DataError, match="a name has 1 to 100 letters"):
        CellClass("a\x1b[2J", "A", "#000000")
