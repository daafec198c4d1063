"""What initial weights have learned: named, and found again in other bytes."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from leuko.data import seen
from leuko.data.audit.duplicates import difference_hash
from leuko.data.dataset import Pictures
from leuko.data.reading import read_folder, read_split
from leuko.data.synth import SmearPlan, draw_dataset
from leuko.imaging.decode import encode_jpeg, read_image
from leuko.manifest import Manifest
from leuko.recipe import load_recipe
from leuko.support.reporter import Reporter

BACKBONE = "Leuko's backbone, which has learned Raabin-WBC Train (10,175 cells)"


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Forty drawn cells."""
    folder = tmp_path_factory.mktemp("drawn") / "set"
    draw_dataset(folder, SmearPlan(train=40, test=0, size=96))
    return read_split(folder, "train")


@pytest.fixture
def learned(cells: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the package's weights had learned from these."""
    known = np.sort(seen.fingerprints(Pictures(2).facts(cells.files())))
    monkeypatch.setattr(seen, "_fingerprints", lambda: known)


@pytest.mark.usefixtures("learned")
@pytest.mark.parametrize(("side", "quality"), [(96, 60), (60, 80), (200, 90)])
def test_copies_are_found(cells: Manifest, tmp_path: Path, side: int, quality: int) -> None:
    for sample, file in zip(cells.samples, cells.files(), strict=True):
        smooth = cv2.INTER_AREA if side < 96 else cv2.INTER_CUBIC
        small = cv2.resize(read_image(file).pixels, (side, side), interpolation=smooth)
        place = tmp_path / sample.path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(encode_jpeg(small, quality=quality))
    assert seen.seen_in(read_folder(tmp_path), Pictures(2)) >= 39


@pytest.mark.slow
@pytest.mark.usefixtures("learned")
def test_other_cells_are_not_found(cells: Manifest, tmp_path: Path) -> None:
    draw_dataset(tmp_path / "other", SmearPlan(train=60, test=0, size=96, seed=9))
    other = read_split(tmp_path / "other", "train")
    told: list[tuple[str, int, int]] = []
    found = seen.seen_in(
        other, Pictures(2), reporter=Reporter(lambda *step: told.append(step)), stage="look"
    )
    assert found == 0
    assert told == [("look", 32, 60), ("look", 60, 60)]
    other.files()[0].write_bytes(b"no image")
    assert seen.seen_in(other, Pictures(2)) == 0


def test_the_fingerprints_are_one_a_cell_and_in_no_order_of_theirs() -> None:
    known = seen._fingerprints()
    assert known.shape == (10_175,)
    assert known.dtype == np.uint64
    assert (known[1:] >= known[:-1]).all()
    blank = np.zeros((32, 32), np.uint8)
    assert not seen.were_seen(np.array([difference_hash(blank)])).any()
    assert seen.were_seen(known[:600]).all()
    assert seen.were_seen(known[:3] ^ np.uint64(0b1111)).all()
    assert not seen.were_seen(np.zeros(0, np.uint64)).any()


@pytest.mark.slow
@pytest.mark.data
def test_train_is_found_again_and_test_a_is_not() -> None:
    """Four cells of Test-A stand in Train too: photographed twice, under two slide names."""
    raabin = Path(os.environ.get("LEUKO_DATA", "no such folder")) / "raabin-wbc-288"
    if not raabin.is_dir():
        pytest.skip("LEUKO_DATA does not point to a folder with raabin-wbc-288")
    chosen = np.random.default_rng(1).permutation(10_175)[:300]
    assert seen.seen_in(read_split(raabin, "train").subset(chosen), Pictures(2)) >= 297
    assert seen.seen_in(read_split(raabin, "test"), Pictures(2)) == 4


def test_what_a_recipe_starts_from_is_named(tmp_path: Path) -> None:
    known = load_recipe("mobilenetv2")

    def start(weights: str, width: float = 1.0) -> seen.Start:
        return seen.start_of(
            replace(known, model=replace(known.model, weights=weights, width=width))
        )

    assert start("none") == seen.Start("random weights")
    assert start("imagenet") == seen.Start("ImageNet")
    assert start("leuko") == seen.Start(BACKBONE, fingerprints=True)
    assert "narrowed by least squares, which has learned Raabin" in start("leuko", 0.5).told
    other = tmp_path / "mine" / "other.npz"
    assert (
        start(str(other)).told == "the file other.npz, of which it is not known what it has learned"
    )
    other.parent.mkdir()
    other.write_bytes((seen._zoo() / "mobilenetv2-leuko.npz").read_bytes())
    assert start(str(other)) == start("leuko")  # whatever it is called


def test_a_teacher_is_named_with_what_it_has_learned() -> None:
    small = load_recipe("small")
    raabin = {"source_digest": seen._DATA[0]}
    assert seen.start_of(small, raabin).teacher == (
        "default, which has learned Raabin-WBC Train (10,175 cells)"
    )
    other = replace(small, model=replace(small.model, weights="imagenet"))
    assert seen.start_of(other, raabin).fingerprints
    unknown = seen.start_of(other, {"source_digest": "ab"})
    assert not unknown.fingerprints
    assert unknown.told.endswith("taught by default, of which that is not known")


@pytest.mark.parametrize(
    ("provenance", "expected"),
    [
        ({}, False),
        ({"source_digest": seen._DATA[0]}, True),
        ({"recipe": {"model": {"weights": "leuko"}}}, True),
        ({"recipe": {"model": {"weights": "imagenet"}}}, False),
        ({"recipe": "none"}, False),
        ({"recipe": {"model": []}, "start": "text"}, False),
        ({"start": {"fingerprints": True}}, True),
        ({"start": {"fingerprints": "yes"}}, False),
    ],
)
def test_what_a_bundle_has_learned_is_read_from_its_provenance(
    provenance: dict[str, object], expected: bool
) -> None:
    assert seen.has_learned(provenance) is expected
