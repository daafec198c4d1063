"""Two sides that share nothing: no slide, no bytes, no cell, no augmented copy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leuko.data.split import split_at_random, split_by_slide
from leuko.errors import DataError
from leuko.manifest import Manifest, Sample, original_of

HEADERS = ("Basophil", "Eosinophil", "Lymphocyte", "Monocyte", "Neutrophil")


def manifest_of(rows: list[tuple[str, int, str, str]]) -> Manifest:
    """From (file name, label, slide, digest)."""
    return Manifest(
        Path("set"),
        tuple(Sample(f"{HEADERS[k]}/{name}", k, slide, sha) for name, k, slide, sha in rows),
    )


def many_slides(slides: int, seed: int) -> Manifest:
    """Slides of uneven size with classes as rare as on Raabin."""
    rng = np.random.default_rng(seed)
    rows = []
    for slide in range(slides):
        for number in range(int(rng.integers(10, 60))):
            label = int(rng.choice(5, p=[0.03, 0.08, 0.25, 0.08, 0.56]))
            rows.append((f"s{slide}_{number}.jpg", label, f"s{slide}", f"{slide}-{number}"))
    return manifest_of(rows)


def check(manifest: Manifest, train: np.ndarray, validation: np.ndarray) -> None:
    """What holds for every split."""
    samples = manifest.samples
    assert len(np.intersect1d(train, validation)) == 0
    assert (np.diff(train) > 0).all()
    assert (np.diff(validation) > 0).all()
    assert len(train) > 0
    assert len(validation) > 0
    sides = [[samples[i] for i in side] for side in (train, validation)]
    slides = [{s.slide for s in side if s.slide} for side in sides]
    digests = [{s.sha256 for s in side if s.sha256} for side in sides]
    assert not slides[0] & slides[1]
    assert not digests[0] & digests[1]
    assert not any(original_of(Path(s.path).name)[0] is not None for s in sides[1])
    assert {s.label for s in samples} == {s.label for s in sides[0]}
    left_out = set(range(len(samples))) - set(train) - set(validation)
    assert all(original_of(Path(samples[i].path).name)[0] is not None for i in left_out)


ROW = st.tuples(
    st.sampled_from(["a", "b", "c", "d", "aug_1_a", "aug_2_a", "aug_0_b", "aug_3_aug_1_c"]),
    st.sampled_from([".jpg", ".png"]),
    st.integers(0, 4),
    st.sampled_from(["", "", "s1", "s2", "s3", "s4", "s5", "s6"]),
    st.sampled_from(["", *"0123456789abcdefghij"]),
)


@pytest.mark.slow
@settings(derandomize=True, max_examples=200, deadline=None)
@given(
    st.lists(ROW, min_size=2, max_size=60, unique_by=lambda row: (row[0], row[1], row[2])),
    st.lists(st.tuples(st.integers(0, 59), st.integers(0, 59)), max_size=4),
    st.floats(0.05, 0.5),
    st.integers(0, 3),
)
def test_nothing_is_shared(
    rows: list[tuple[str, str, int, str, str]],
    pairs: list[tuple[int, int]],
    fraction: float,
    seed: int,
) -> None:
    manifest = manifest_of([(f"{name}{end}", k, slide, sha) for name, end, k, slide, sha in rows])
    same_cell = [(a % len(rows), b % len(rows)) for a, b in pairs]
    try:
        train, validation = split_by_slide(
            manifest, fraction=fraction, seed=seed, same_cell=same_cell
        )
    except DataError as error:
        if "slide" not in str(error):
            raise
        return
    check(manifest, train, validation)
    train_set, validation_set = set(train.tolist()), set(validation.tolist())
    for a, b in same_cell:
        assert not (a in train_set and b in validation_set)
        assert not (b in train_set and a in validation_set)
    # An augmented copy never trains while its original validates, whatever slide either is said to
    # be.
    for i in validation_set:
        original = (manifest.samples[i].label, Path(manifest.samples[i].path).stem)
        for j in train_set:
            copy, stem = original_of(Path(manifest.samples[j].path).stem)
            assert copy is None or (manifest.samples[j].label, stem) != original


@pytest.mark.slow
@settings(derandomize=True, max_examples=12, deadline=None)
@given(st.integers(25, 60), st.sampled_from([0.1, 0.2, 0.3]), st.integers(0, 1000))
def test_about_the_wanted_fraction_of_every_class(slides: int, fraction: float, seed: int) -> None:
    manifest = many_slides(slides, seed)
    train, validation = split_by_slide(manifest, fraction=fraction, seed=seed)
    check(manifest, train, validation)
    assert len(train) + len(validation) == len(manifest)
    assert abs(len(validation) / len(manifest) - fraction) < 0.08
    counts = manifest.counts
    held = manifest.subset(validation).counts
    wanted = counts * fraction
    assert (np.abs(held - wanted) <= np.maximum(0.6 * wanted, 10)).all(), (held, wanted)


def test_one_seed_one_split_and_the_order_of_rows_does_not_matter() -> None:
    manifest = many_slides(30, 1)
    first, second = split_by_slide(manifest, seed=5), split_by_slide(manifest, seed=5)
    np.testing.assert_array_equal(first[1], second[1])
    other = split_by_slide(manifest, seed=6)
    assert first[1].tolist() != other[1].tolist()
    order = np.random.default_rng(0).permutation(len(manifest))
    shuffled = split_by_slide(manifest.subset(order), seed=5)[1]
    assert sorted(order[shuffled].tolist()) == first[1].tolist()


def test_a_class_of_one_slide_trains() -> None:
    rows = [(f"s{n % 6}_{n}.jpg", 4, f"s{n % 6}", str(n)) for n in range(60)]
    rows += [(f"s0_b{n}.jpg", 0, "s0", f"b{n}") for n in range(5)]
    manifest = manifest_of(rows)
    train, validation = split_by_slide(manifest)
    check(manifest, train, validation)
    assert manifest.subset(validation).counts[0] == 0
    assert manifest.subset(train).counts[0] == 5


def test_the_same_cell_on_two_slides_joins_them() -> None:
    manifest = many_slides(20, 3)
    validation = split_by_slide(manifest)[1]
    inside = int(validation[0])
    trains = set(range(len(manifest))) - set(validation.tolist())
    outside = min(trains)
    train, validation = split_by_slide(manifest, same_cell=[(inside, outside)])
    slides = {manifest.samples[i].slide for i in (inside, outside)}
    sides = [{manifest.samples[i].slide for i in side} for side in (train, validation)]
    assert slides <= sides[0] or slides <= sides[1]


def test_a_copy_follows_its_original_though_its_suffix_changed() -> None:
    """Balancing draws JPEG copies of PNG originals, and such names tell no slide."""
    rows = [(f"{n:03}.png", 4, "", f"o{n}") for n in range(40)]
    rows += [(f"aug_0_{n:03}.jpg", 4, "", f"c{n}") for n in range(40)]
    manifest = manifest_of(rows)
    train, validation = split_by_slide(manifest)
    check(manifest, train, validation)
    held = {Path(manifest.samples[i].path).stem for i in validation}
    drawn = {original_of(Path(manifest.samples[i].path).stem)[1] for i in train if i >= 40}
    assert len(held) >= 4
    assert not held & drawn


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a_1.jpg", 0, "s1", "1"), ("a_2.jpg", 1, "s1", "2")], "belong to one slide"),
        ([("a_1.jpg", 0, "s1", "1"), ("b_1.jpg", 1, "s2", "2")], "too few slides"),
        ([("a_1.jpg", 0, "s1", "1"), ("b_1.jpg", 0, "s2", "1")], "belong to one slide"),
    ],
)
def test_too_few_slides(rows: list[tuple[str, int, str, str]], message: str) -> None:
    with pytest.raises(DataError, match=f"{message}.*Give a CSV with a slide column"):
        split_by_slide(manifest_of(rows))


def test_the_published_split_leaks_as_it_did() -> None:
    manifest = many_slides(12, 2)
    train, validation = split_at_random(manifest, fraction=0.2, seed=123)
    assert len(validation) == int(0.2 * len(manifest))
    assert sorted([*train, *validation]) == list(range(len(manifest)))
    slides = [{manifest.samples[i].slide for i in side} for side in (train, validation)]
    assert slides[0] & slides[1]
    again = split_at_random(manifest, fraction=0.2, seed=123)
    np.testing.assert_array_equal(again[1], validation)


def test_one_image_cannot_be_split_at_random() -> None:
    with pytest.raises(DataError, match="needs two"):
        split_at_random(manifest_of([("a_1.jpg", 0, "", "1")]))
