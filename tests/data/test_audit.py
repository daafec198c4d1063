from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from drawn_cells import drawn
from five import CLASSES
from leuko.data.audit.audit import audit_dataset, audit_manifests
from leuko.data.audit.background import (
    RING_FEATURES,
    BackgroundSkipped,
    background_test,
    ring_features,
)
from leuko.data.audit.duplicates import (
    difference_hash,
    identical_files,
    near_duplicates,
    same_cells,
    thumbnail,
)
from leuko.data.audit.report import Confounded
from leuko.data.reading import read_folder
from leuko.data.turned import laid_upon, turned_copies
from leuko.errors import DataError, MissingExtraError
from leuko.imaging.decode import encode_jpeg, encode_png
from leuko.manifest import Manifest, Sample, slide_of
from leuko.support.reporter import Reporter

SIDE = 48


def picture(seed: int, background: int = 200) -> np.ndarray:
    """Noise in the middle, an even background around it."""
    rng = np.random.default_rng(seed)
    pixels = np.full((SIDE, SIDE, 3), background, np.uint8)
    pixels += rng.integers(0, 12, pixels.shape, dtype=np.uint8)
    cell = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    pixels[8:40, 8:40] = cv2.resize(cell, (32, 32), interpolation=cv2.INTER_CUBIC)
    return pixels


def make(folder: Path, split: str, per_class: int, first: int, background=lambda label: 200):
    for label, name in enumerate(CLASSES):
        (folder / split / name).mkdir(parents=True)
        for i in range(per_class):
            pixels = picture(1000 * label + first + i, background(label))
            slide = f"95-8-{i % 3}-1"
            file = folder / split / name / f"{slide}_{first + i}_{label}.jpg"
            file.write_bytes(encode_jpeg(pixels, quality=92))
    return folder


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    make(tmp_path / "Dataset", "Train", 6, 0)
    return make(tmp_path / "Dataset", "Test", 5, 500)


def codes(audit):
    return [finding.code for finding in audit.findings]


def facts(audit, name):
    return next(one for one in audit.splits if one.name == name)


def test_counts_sizes_modes_and_rejects(dataset: Path):
    train = dataset / "Train"
    grey = encode_jpeg(picture(1)[:40])
    (train / "Basophil" / "95-8-0-1_90_0.jpg").write_bytes(grey)
    (train / "Basophil" / "95-8-0-1_91_0.png").write_bytes(encode_png(picture(2)[..., 0]))
    good = (train / "Monocyte" / "95-8-0-1_0_3.jpg").read_bytes()
    (train / "Monocyte" / "95-8-0-1_92_3.jpg").write_bytes(good[: len(good) * 4 // 5])
    (train / "Monocyte" / "95-8-0-1_93_3.jpg").write_bytes(b"")
    (train / "Monocyte" / "95-8-0-1_94_3.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0")
    audit = audit_dataset(dataset, background=False, workers=2)
    train = facts(audit, "train")
    assert train.counts == (8, 6, 6, 9, 6)
    assert facts(audit, "test").n == 25
    assert train.sizes == {"48x48": 31, "40x48": 1}
    assert facts(audit, "test").sizes == {"48x48": 25}
    assert train.modes == {"RGB": 31, "L": 1}
    assert train.formats == {"JPEG": 31, "PNG": 1}
    assert {file.path: file.reason for file in audit.rejected} == {
        "Train/Monocyte/95-8-0-1_92_3.jpg": "truncated",
        "Train/Monocyte/95-8-0-1_93_3.jpg": "empty-file",
        "Train/Monocyte/95-8-0-1_94_3.jpg": "unsupported-format",
    }
    assert train.imbalance == pytest.approx(9 / 6)
    assert "unusable-files" in codes(audit)


def test_shared_slides_are_counted(dataset: Path):
    audit = audit_dataset(dataset, background=False, workers=1)
    assert audit.shared_slides.names == ("95-8-0-1", "95-8-1-1", "95-8-2-1")
    assert [row.count for row in audit.shared_slides.between] == [3]
    assert facts(audit, "train").slides["95-8-0-1"] == (2, 2, 2, 2, 2)
    assert codes(audit)[0] == "shared-slides"


def test_identical_and_near_duplicates(dataset: Path):
    train, test = dataset / "Train", dataset / "Test"
    source = train / "Eosinophil" / "95-8-0-1_0_1.jpg"
    shutil.copy(source, test / "Eosinophil" / "95-8-9-1_7_7.jpg")
    pixels = picture(1000)  # the same cell, brighter, larger, compressed harder, another label
    again = cv2.resize(cv2.convertScaleAbs(pixels, alpha=0.85, beta=20), (90, 90))
    (train / "Monocyte" / "95-8-8-1_1_1.jpg").write_bytes(encode_jpeg(again, quality=70))
    audit = audit_dataset(dataset, background=False, workers=2)
    assert audit.duplicates == (
        ("Train/Eosinophil/95-8-0-1_0_1.jpg", "Test/Eosinophil/95-8-9-1_7_7.jpg"),
    )
    pairs = {frozenset({pair.first, pair.second}) for pair in audit.near_duplicates}
    assert pairs == {
        frozenset({"Train/Eosinophil/95-8-0-1_0_1.jpg", "Train/Monocyte/95-8-8-1_1_1.jpg"}),
        frozenset({"Test/Eosinophil/95-8-9-1_7_7.jpg", "Train/Monocyte/95-8-8-1_1_1.jpg"}),
    }
    assert {(row.first, row.second) for row in audit.alike_slides} == {
        ("95-8-0-1", "95-8-8-1"),
        ("95-8-8-1", "95-8-9-1"),
    }
    assert len(audit.across_splits) == 2
    assert len(audit.labelled_differently) == 2
    assert {"identical-files", "across-splits", "labels-at-odds"} <= set(codes(audit))


def test_near_duplicates_by_brute_force_and_even_pictures():
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (600, 32, 32), dtype=np.uint8)
    small = np.stack([cv2.GaussianBlur(image, (0, 0), 4) for image in small])
    small[577] = cv2.convertScaleAbs(small[3], alpha=0.9, beta=9)
    small[10] = small[11] = 128
    hashes = np.array([difference_hash(image) for image in small], dtype=np.uint64)
    assert [pair[:2] for pair in near_duplicates(small, hashes)] == [(3, 577)]
    different = (int(hashes[3]) ^ int(hashes[577])).bit_count()
    assert near_duplicates(small, hashes)[0][2] == different <= 8


def turned(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As augmentation of single cells does it: any turn, mirrors, shear, light, black corners."""
    side = len(pixels)
    angle, shear = rng.uniform(0, 2 * np.pi), np.deg2rad(rng.uniform(-10, 10))
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = matrix @ np.array([[1, -np.sin(shear)], [0, np.cos(shear)]])
    matrix = matrix @ np.diag([rng.choice([-1, 1]), 1])
    middle = np.full(2, (side - 1) / 2)
    whole = np.column_stack([matrix, middle - matrix @ middle])
    moved = cv2.warpAffine(pixels, whole, (side, side))
    return cv2.convertScaleAbs(moved, alpha=rng.uniform(0.85, 1.1))


@pytest.mark.slow
def test_turned_copies_across_splits_are_found(tmp_path: Path):
    rng = np.random.default_rng(7)
    cells = [drawn(name, seed).pixels for seed in range(10) for name in CLASSES][:48]
    for number, cell in enumerate(cells):
        for copy in range(6):
            place = tmp_path / ("TEST" if copy == 5 else "TRAIN") / CLASSES[number % 5].upper()
            place.mkdir(parents=True, exist_ok=True)
            (place / f"_{number}_{copy}.jpeg").write_bytes(encode_jpeg(turned(cell, rng)))
    audit = audit_dataset(tmp_path, background=False, workers=2)
    cell_of = [{Path(path).stem.split("_")[1] for path in group} for group in audit.across_splits]
    assert {len(cell) for cell in cell_of} == {1}  # no two cells are taken for one
    assert len({cell.pop() for cell in cell_of}) >= 45
    assert "across-splits" in codes(audit)


@pytest.mark.slow
def test_round_cells_are_not_taken_for_one_another():
    small = np.stack([thumbnail(drawn("Lymphocyte", seed).pixels) for seed in range(60)])
    assert same_cells(small) == []
    assert turned_copies(small[:1]) == []
    assert turned_copies(np.full((3, 32, 32), 128, np.uint8)) == []
    assert laid_upon(small[0], small[0]) == pytest.approx(1)
    assert laid_upon(small[0], small[1]) < 0.9


def test_hash_is_eight_rows_of_eight_comparisons():
    rising = np.tile(np.arange(32, dtype=np.uint8) * 8, (32, 1))
    assert difference_hash(rising) == np.uint64(2**64 - 1)
    assert difference_hash(rising[:, ::-1].copy()) == 0
    assert thumbnail(np.full((50, 70, 3), 7, np.uint8)).tolist() == [[7] * 32] * 32


def test_identical_files_pass_over_unreadable_ones():
    assert identical_files(["a", "", "b", "a", ""]) == [[0, 3]]


def test_ring_sees_nothing_but_the_ring():
    one, other = picture(1), picture(1)
    other[6:42, 6:42] = np.random.default_rng(5).integers(0, 256, (36, 36, 3))
    assert np.array_equal(ring_features(one), ring_features(other))
    other[5, 20] = 0
    assert not np.array_equal(ring_features(one), ring_features(other))
    even = np.zeros((575, 575, 3), np.uint8)
    even[:] = (200, 150, 160)
    features = dict(zip(RING_FEATURES, ring_features(even), strict=True))
    assert features["red 1%"] == features["red 99%"] == 200
    assert features["green 50%"] == 150
    assert features["red-green mean"] == 50
    assert features["green-blue mean"] == -10
    assert features["texture left"] == features["green-blue deviation"] == 0


def test_confounded_classes(tmp_path: Path):
    def row(split, label, slide, i):
        return Sample(f"{label}/{slide}_{i}.jpg", CLASSES.index(label), slide, f"{split}{slide}{i}")

    train = [row("a", "Neutrophil", f"s{i % 6}", i) for i in range(24)]
    train += [row("a", "Eosinophil", "s1", i) for i in range(6)]
    train += [row("a", "Eosinophil", "s2", i) for i in range(3)]
    train += [row("a", "Basophil", f"day{i % 3}", i) for i in range(9)]
    test = [row("b", "Eosinophil", "s1", i) for i in range(4)]
    test += [row("b", "Neutrophil", "s7", i) for i in range(4)]
    manifests = {
        "train": Manifest(tmp_path / "Train", tuple(train)),
        "test": Manifest(tmp_path / "Test", tuple(test)),
    }
    audit = audit_manifests(manifests, root=tmp_path, background=False)
    days = ("day0", "day1", "day2")
    assert [row for row in audit.confounding if row.split == "train"] == [
        Confounded("Basophil", "train", "slides of its own", days, 9, 9),
        Confounded("Eosinophil", "train", "one slide", ("s1",), 6, 9, elsewhere=4),
    ]
    assert audit.background == BackgroundSkipped("not-asked")
    assert audit.shared_slides.names == ("s1",)
    assert not audit.together("sizes")


@pytest.mark.slow
def test_background_that_gives_a_class_away_is_found(tmp_path: Path):
    pytest.importorskip("sklearn")

    def background(label):
        return 120 if label == 0 else 200

    folder = make(tmp_path / "D", "Train", 24, 0, background)
    make(folder, "Test", 12, 500, background)
    audit = audit_dataset(folder, seed=1, workers=2)
    test = audit.background
    assert test.recall["Basophil"] == 1
    assert test.balanced_accuracy < 0.55
    assert (test.trained_on, test.tested_on) == ("train", "test")
    assert test.majority == pytest.approx(0.2)
    assert test.given_away == {"Basophil": 1}
    assert [f.level for f in audit.findings if f.code == "background"] == ["warning"]
    again = audit_dataset(folder, seed=1, workers=1)
    assert again == audit


@pytest.mark.slow
def test_background_without_a_test_folder_is_cross_validated_by_slide():
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 4], 60)
    slides = [f"s{i % 6}" for i in range(120)]
    features = rng.normal(size=(120, len(RING_FEATURES))).astype(np.float32)
    # Each slide has its own look, and within a slide nothing tells the classes apart.
    features[:, 0] += 10 * np.array([int(s[1:]) for s in slides])
    result = background_test(features, labels, slides, ["train"] * 120, CLASSES, seed=0)
    assert result.tested_on == "slide-grouped cross-validation"
    assert 0.3 < result.balanced_accuracy < 0.7
    assert not result.given_away
    assert not result.beats_guessing
    features[:60, 1] += 5
    result = background_test(features, labels, slides, ["train"] * 120, CLASSES, seed=0)
    assert result.balanced_accuracy > 0.95


def test_background_test_says_why_it_is_skipped():
    pytest.importorskip("sklearn")
    features = np.zeros((20, len(RING_FEATURES)), np.float32)
    one_class = background_test(features, np.zeros(20, int), ["s"] * 20, ["train"] * 20, CLASSES)
    assert one_class == BackgroundSkipped("too-few", (("Basophil", 20),))
    one_slide = background_test(
        features, np.repeat([0, 1], 10), ["s"] * 20, ["train"] * 20, CLASSES
    )
    assert one_slide == BackgroundSkipped("one-slide")
    not_taught = background_test(
        features, np.repeat([0, 1, 2], (8, 8, 4)), [""] * 20, ["train"] * 16 + ["test"] * 4, CLASSES
    )
    assert not_taught == BackgroundSkipped("not-taught")


def test_without_sklearn_the_rest_is_audited(
    dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    told: list[str] = []
    audit = audit_dataset(
        dataset, workers=1, reporter=Reporter(lambda stage, *_: told.append(stage), told.append)
    )
    assert facts(audit, "train").counts == (6, 6, 6, 6, 6)
    assert audit.background.code == "missing-package"
    why = audit.background.detail
    assert why.startswith("it needs the package 'scikit-learn', which is not installed.")
    assert "[report]" in why
    assert told[0] == f"The background test is left out: {why}"
    assert set(told[1:]) == {"looking", "comparing"}
    with pytest.raises(MissingExtraError, match="The background test needs"):
        background_test(
            np.zeros((4, 29), np.float32), np.arange(4), ["s"] * 4, ["train"] * 4, CLASSES
        )


def test_balanced_folder_and_missing_class_are_said(dataset: Path):
    shutil.rmtree(dataset / "Test" / "Monocyte")
    source = dataset / "Train" / "Basophil" / "95-8-0-1_0_0.jpg"
    shutil.copy(source, source.with_name("aug_1_" + source.name))
    audit = audit_dataset(dataset, background=False, workers=1)
    assert {"missing-class", "augmented-copies"} <= set(codes(audit))
    assert "reading" not in codes(audit)  # the notes on these two are not told again
    assert facts(audit, "train").slides["95-8-0-1"][0] == 3


def test_a_folder_in_a_folder_of_another_class_is_a_warning(dataset: Path):
    shutil.move(dataset / "Train" / "Basophil", dataset / "Train" / "Monocyte" / "Basophil")
    (dataset / "Train" / "Monocyte" / "augmented copies of another class").symlink_to("nowhere")
    audit = audit_dataset(dataset, background=False, workers=1)
    reading = [finding for finding in audit.findings if finding.code == "reading"]
    assert [(finding.level, finding.note[:23]) for finding in reading] == [
        ("warning", "Monocyte/Basophil names"),
        ("note", "Monocyte/augmented copi"),
    ]


def test_no_data_set_is_an_error(tmp_path: Path):
    with pytest.raises(DataError):
        audit_dataset(tmp_path / "nowhere", background=False)


# Real images


@pytest.mark.slow
@pytest.mark.data
def test_raabin_shares_26_slides_and_confounds_two_classes(raabin: Path, tmp_path: Path):
    manifests = {}
    for split in ("Train", "Test"):
        rows = [
            Sample(f"{name}/{file}", label, slide_of(file), f"{split}/{file}")
            for label, name in enumerate(CLASSES)
            for file in sorted(os.listdir(raabin / split / name))
        ]
        manifests[split.lower()] = Manifest(tmp_path / split, tuple(rows))  # names alone
    audit = audit_manifests(manifests, root=tmp_path, background=False)
    assert facts(audit, "train").counts == (212, 744, 2427, 561, 6231)
    assert facts(audit, "test").counts == (89, 322, 1034, 234, 2660)
    assert len(audit.shared_slides.names) == 26
    assert audit.shared_slides.between[0].n_second == 28
    one = Confounded("Eosinophil", "test", "one slide", ("95-8-27-1",), 321, 322, elsewhere=380)
    assert one in audit.confounding
    own = {row.split: row for row in audit.confounding if row.kind == "slides of its own"}
    assert (own["train"].name, own["train"].n, own["train"].total) == ("Basophil", 212, 212)
    assert (own["test"].name, own["test"].n, own["test"].total) == ("Basophil", 89, 89)


@pytest.mark.slow
@pytest.mark.data
def test_raabin_background_names_basophils_and_eosinophils(raabin: Path, tmp_path: Path):
    pytest.importorskip("sklearn")
    manifests = {}
    for split in ("Train", "Test"):
        for name in CLASSES:
            (tmp_path / split / name).mkdir(parents=True)
            files = sorted((raabin / split / name).iterdir())
            for file in files[:: max(1, len(files) // (100 if split == "Train" else 40))]:
                (tmp_path / split / name / file.name).symlink_to(file)
        manifests[split.lower()] = read_folder(tmp_path / split)
    audit = audit_manifests(manifests, root=tmp_path)
    recall = audit.background.recall
    assert recall["Basophil"] > 0.85
    assert recall["Eosinophil"] > 0.6
    assert not audit.rejected
