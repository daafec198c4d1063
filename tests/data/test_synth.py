"""Drawn smears: the same bytes from one seed, exact masks and boxes, cells as textbooks say."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from five import CLASSES
from leuko.data.reading import find_splits, read_folder
from leuko.data.synth import (
    DEFAULT_MIX,
    DrawnCell,
    SlideStyle,
    SmearPlan,
    draw_cell,
    draw_dataset,
    draw_field,
    draw_slide_style,
)
from leuko.data.synth.kinds import KINDS
from leuko.errors import OutputError, UsageError
from leuko.imaging.decode import read_image
from leuko.support.reporter import Reporter

SAMPLE = 10


def style_of(seed: int) -> SlideStyle:
    """A slide style from a seed."""
    return draw_slide_style(np.random.default_rng(seed))


@pytest.fixture(scope="module")
def cells() -> dict[str, list[DrawnCell]]:
    """A few cells of each class, each from its own slide."""
    return {
        name: [
            draw_cell(name, np.random.default_rng([7, index]), style_of(index))
            for index in range(SAMPLE)
        ]
        for name in CLASSES
    }


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def extent(mask: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Bounding box by OpenCV, which counts columns first."""
    col, row, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return (row, col, row + height, col + width)


def mean_density(cell: DrawnCell, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Mean optical density of a region over the brightest tenth of the picture."""
    pixels = cell.pixels.astype(np.float64)
    green = pixels[..., 1]
    light = pixels[green >= np.quantile(green, 0.9)].mean(axis=0)
    result: npt.NDArray[np.float64] = -np.log10(pixels[mask].mean(axis=0) / light)
    return result


def test_cell_same_state_same_picture() -> None:
    first, again = (
        draw_cell("Eosinophil", np.random.default_rng(3), style_of(4)) for _ in range(2)
    )
    other = draw_cell("Eosinophil", np.random.default_rng(5), style_of(4))
    assert np.array_equal(first.pixels, again.pixels)
    assert not np.array_equal(first.pixels, other.pixels)


def test_cell_masks_box_and_place_agree(cells: dict[str, list[DrawnCell]]) -> None:
    for name, drawn in cells.items():
        for cell in drawn:
            assert cell.label == name
            assert cell.pixels.shape == (288, 288, 3)
            assert cell.pixels.dtype == np.uint8
            assert cell.nucleus.any()
            assert not (cell.nucleus & ~cell.cell).any()
            assert cell.box == extent(cell.cell)
            row0, col0, row1, col1 = cell.box
            # centred with small jitter, and clear of the border
            assert abs((row0 + row1) / 2 - 144) < 20
            assert abs((col0 + col1) / 2 - 144) < 20
            assert min(row0, col0) > 0
            assert max(row1, col1) < 288
            assert cv2.connectedComponents(cell.cell.astype(np.uint8))[0] == 2


def test_cell_fills_about_two_fifths_of_the_width(cells: dict[str, list[DrawnCell]]) -> None:
    widths = [c.box[3] - c.box[1] for drawn in cells.values() for c in drawn]
    assert 0.35 < np.mean(widths) / 288 < 0.48


def test_size_keeps_the_scene() -> None:
    shares = []
    for size in (64, 288):
        drawn = [
            draw_cell("Neutrophil", np.random.default_rng([11, i]), style_of(i), size=size)
            for i in range(12)
        ]
        assert drawn[0].pixels.shape == (size, size, 3)
        shares.append(np.mean([cell.cell.mean() for cell in drawn]))
    assert shares[0] == pytest.approx(shares[1], rel=0.10)


def test_nucleus_is_darker_than_cytoplasm(cells: dict[str, list[DrawnCell]]) -> None:
    for name in ("Eosinophil", "Lymphocyte", "Monocyte", "Neutrophil"):
        for cell in cells[name]:
            nucleus = mean_density(cell, cell.nucleus)[1]
            cytoplasm = mean_density(cell, cell.cell & ~cell.nucleus)[1]
            assert nucleus > 1.5 * cytoplasm, name


def test_monocytes_are_large_and_lymphocytes_small(cells: dict[str, list[DrawnCell]]) -> None:
    area = {name: np.mean([c.cell.sum() for c in drawn]) for name, drawn in cells.items()}
    assert max(area, key=lambda name: area[name]) == "Monocyte"
    assert min(area, key=lambda name: area[name]) == "Lymphocyte"
    assert area["Monocyte"] > 1.8 * area["Lymphocyte"]
    # the thin rim: a lymphocyte is mostly nucleus, a neutrophil mostly cytoplasm
    share = {
        name: np.mean([c.nucleus.sum() / c.cell.sum() for c in drawn])
        for name, drawn in cells.items()
    }
    assert share["Lymphocyte"] > 0.6
    assert share["Neutrophil"] < 0.45


def test_cytoplasm_has_the_colour_of_its_class() -> None:
    style = style_of(1)
    tone = {}
    for name in CLASSES:
        drawn = [draw_cell(name, np.random.default_rng([9, i]), style) for i in range(4)]
        tone[name] = np.mean([mean_density(c, c.cell & ~c.nucleus) for c in drawn], axis=0)
    # red looks red because it takes away green and blue, and little of red itself
    assert tone["Eosinophil"][2] > 1.3 * tone["Neutrophil"][2]
    redness = {name: (d[1] + d[2]) / 2 - d[0] for name, d in tone.items()}
    assert redness["Eosinophil"] > 1.3 * redness["Neutrophil"]
    # blue takes away red first
    for name in ("Lymphocyte", "Monocyte"):
        assert tone[name][0] / tone[name][1] > 1.2 * tone["Neutrophil"][0] / tone["Neutrophil"][1]
    assert tone["Basophil"][1] == max(d[1] for d in tone.values())


@pytest.fixture(scope="module")
def others() -> dict[str, list[DrawnCell]]:
    """Twelve of each kind beyond the five."""
    return {
        name: [draw_cell(name, np.random.default_rng([5, i]), style_of(i)) for i in range(12)]
        for name in KINDS
        if name not in CLASSES
    }


@pytest.mark.slow
def test_other_kinds_are_whole(others: dict[str, list[DrawnCell]]) -> None:
    for name, drawn in others.items():
        for cell in drawn:
            assert cell.label == name
            assert cell.box == extent(cell.cell)
            assert not (cell.nucleus & ~cell.cell).any()
            assert cell.nucleus.any() == (name != "Platelet")


@pytest.mark.slow
def test_other_kinds_have_their_sizes(others: dict[str, list[DrawnCell]]) -> None:
    micrometre = 288 / 28.8
    across = {
        name: np.mean([2 * np.sqrt(c.cell.sum() / np.pi) for c in drawn]) / micrometre
        for name, drawn in others.items()
    }
    assert 2 < across["Platelet"] < 4
    assert 9 < across["Erythroblast"] < 13
    assert 12 < across["Band neutrophil"] < 14.5
    assert across["Metamyelocyte"] < across["Myelocyte"] < across["Promyelocyte"]
    assert 15 < across["Promyelocyte"] < 20
    share = {
        name: np.mean([c.nucleus.sum() / c.cell.sum() for c in drawn])
        for name, drawn in others.items()
    }
    assert share["Blast"] > 0.6 > share["Myelocyte"] > share["Band neutrophil"]


@pytest.mark.slow
def test_a_band_has_one_bent_nucleus_and_a_myelocyte_a_round_one(
    others: dict[str, list[DrawnCell]],
) -> None:
    solidity = {}
    for name in ("Band neutrophil", "Metamyelocyte", "Myelocyte", "Erythroblast"):
        values = []
        for cell in others[name]:
            assert cell.lobes == 1
            assert cv2.connectedComponents(cell.nucleus.astype(np.uint8))[0] == 2
            points = np.argwhere(cell.nucleus).astype(np.int32)
            values.append(cell.nucleus.sum() / cv2.contourArea(cv2.convexHull(points)))
        solidity[name] = np.mean(values)
    assert solidity["Band neutrophil"] < 0.75 < solidity["Metamyelocyte"] < 0.93
    assert min(solidity["Myelocyte"], solidity["Erythroblast"]) > 0.95


def test_lobes(cells: dict[str, list[DrawnCell]]) -> None:
    for cell in cells["Neutrophil"]:
        assert 2 <= cell.lobes <= 5
    for cell in cells["Eosinophil"]:
        assert cell.lobes in (2, 3)
    for name in ("Lymphocyte", "Monocyte"):
        assert all(cell.lobes == 1 for cell in cells[name])
    bilobed = sum(cell.lobes == 2 for cell in cells["Eosinophil"])
    assert bilobed > SAMPLE / 2
    assert len({cell.lobes for cell in cells["Neutrophil"]}) >= 3


def test_nucleus_outline_is_round_only_in_lymphocytes(cells: dict[str, list[DrawnCell]]) -> None:
    solidity = {}
    for name, drawn in cells.items():
        values = []
        for cell in drawn:
            points = np.argwhere(cell.nucleus).astype(np.int32)
            values.append(cell.nucleus.sum() / cv2.contourArea(cv2.convexHull(points)))
        solidity[name] = np.mean(values)
    assert solidity["Lymphocyte"] > 0.95
    assert solidity["Monocyte"] < 0.92
    assert solidity["Neutrophil"] < 0.80


def test_red_cells_are_paler_than_the_nucleus_and_darker_than_nothing() -> None:
    style = style_of(6)
    field = draw_field({"Lymphocyte": 1}, np.random.default_rng(0), style, height=400, width=400)
    red = np.zeros((400, 400), dtype=np.bool_)
    for row0, col0, row1, col1 in field.red_boxes:
        red[row0:row1, col0:col1] = True
    empty = ~red & ~field.cell
    green = field.pixels[..., 1].astype(np.float64)
    on_red = green[red & ~field.cell].mean()
    assert green[field.nucleus].mean() < on_red < green[empty].mean()


def test_field_boxes_instances_and_labels_agree() -> None:
    counts = {"Neutrophil": 2, "Lymphocyte": 2, "Monocyte": 1, "Basophil": 1}
    field = draw_field(counts, np.random.default_rng(1), style_of(0))
    assert field.pixels.shape == (768, 1024, 3)
    assert {name: field.labels.count(name) for name in counts} == counts
    assert len(field.boxes) == 6
    assert field.instances.dtype == np.int32
    assert np.array_equal(np.unique(field.instances), np.arange(7))
    assert np.array_equal(field.instances > 0, field.cell)
    assert not (field.nucleus & ~field.cell).any()
    for number, box in enumerate(field.boxes, 1):
        assert box == extent(field.instances == number)
        assert field.nucleus[field.instances == number].any()
    assert len(field.red_boxes) > 30
    for row0, col0, row1, col1 in (*field.red_boxes, *field.platelet_boxes):
        assert 0 <= row0 < row1 <= 768
        assert 0 <= col0 < col1 <= 1024


def test_field_counts_and_determinism() -> None:
    fields = [
        draw_field(4, np.random.default_rng(5), style_of(5), height=512, width=640)
        for _ in range(2)
    ]
    assert len(fields[0].boxes) == 4
    assert np.array_equal(fields[0].pixels, fields[1].pixels)
    assert fields[0].red_boxes == fields[1].red_boxes
    none = draw_field(0, np.random.default_rng(5), style_of(5), height=200, width=200)
    assert none.boxes == ()
    assert not none.cell.any()


def test_every_kind_has_its_room_in_a_field() -> None:
    counts = dict.fromkeys(KINDS, 1)
    field = draw_field(
        counts, np.random.default_rng(4), style_of(2), height=800, width=800,
        pixels_per_micrometre=4.0, cut_share=0.0,
    )  # fmt: skip
    assert sorted(field.labels) == sorted(KINDS)


def test_field_cut_cells_stay_inside() -> None:
    field = draw_field(
        {"Neutrophil": 3}, np.random.default_rng(2), style_of(3), height=420, width=420,
        cut_share=1.0,
    )  # fmt: skip
    assert len(field.boxes) == 3
    for number, box in enumerate(field.boxes, 1):
        assert box == extent(field.instances == number)


def test_slides_differ_and_one_slide_does_not() -> None:
    styles = [style_of(seed) for seed in range(40)]
    assert len({style.illuminant for style in styles}) == 40
    assert style_of(3) == styles[3]
    assert {style.jpeg_subsampling for style in styles} == {"444", "420"}
    assert all(78 <= style.jpeg_quality <= 95 for style in styles)


PLAN = SmearPlan(train=60, test=15, seed=5, slides=(6, 3), size=48, masks=True, fields=1)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set with masks and a field."""
    out = tmp_path_factory.mktemp("drawn") / "Dataset"
    draw_dataset(out, PLAN)
    return out


@pytest.mark.slow
def test_dataset_same_bytes_with_two_workers(dataset: Path, tmp_path: Path) -> None:
    other = tmp_path / "again"
    draw_dataset(other, PLAN, workers=2)
    assert digests(other) == digests(dataset)


def test_dataset_counts_names_and_slides(dataset: Path) -> None:
    splits = find_splits(dataset)
    assert set(splits) == {"train", "test"}
    train, test = read_folder(splits["train"]), read_folder(splits["test"])
    assert len(train) == 60
    assert len(test) == 15
    # Raabin's shares of 60 are 1.3, 4.4, 14.3, 3.3 and 36.7; five is the floor, and the other
    # 45 are split as 2,427 to 6,231, which is 12.6 to 32.4
    assert train.counts.tolist() == [5, 5, 13, 5, 32]
    assert test.counts.tolist() == [3, 3, 3, 3, 3]
    assert set(train.slides) == {"S01", "S02", "S03", "S04", "S05", "S06"}
    assert set(test.slides) <= {"S07", "S08", "S09"}
    for label in range(len(CLASSES)):
        held = {s.slide for s in train.samples if s.label == label}
        assert len(held) >= 5
    digests_of = [sample.sha256 for sample in (*train.samples, *test.samples)]
    assert len(set(digests_of)) == 75


def test_dataset_masks_record_and_fields(dataset: Path) -> None:
    pictures = sorted(dataset.glob("T*/*/*.jpg"))
    assert len(pictures) == 75
    for picture in pictures[::10]:
        mask = read_image(dataset / "masks" / picture.relative_to(dataset).with_suffix(".png"))
        assert mask.pixels.shape == (48, 48, 3)
        assert set(np.unique(mask.pixels)) == {0, 128, 255}
    record = json.loads((dataset / "drawn.json").read_bytes())
    assert record["complete"] is True
    assert sum(record["counts"]["Train"].values()) == 60
    assert sorted(record["styles"]) == [f"S{n:02d}" for n in range(1, 10)]
    (field,) = (dataset / "fields" / "images").glob("*.jpg")
    lines = (dataset / "fields" / "labels" / f"{field.stem}.txt").read_text().splitlines()
    rows = np.array([[float(value) for value in line.split()] for line in lines])
    assert set(rows[:, 0]) <= {0.0, 1.0, 2.0}
    assert 3 <= (rows[:, 0] == 0).sum() <= 7
    assert ((rows[:, 1:] >= 0) & (rows[:, 1:] <= 1)).all()


def test_dataset_goes_on_where_it_stopped(dataset: Path, tmp_path: Path) -> None:
    plan = SmearPlan(train=15, test=0, slides=(3, 1), size=32, seed=1)
    out = tmp_path / "stopped"

    def stop(stage: str, done: int, total: int) -> None:
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw_dataset(out, plan, reporter=Reporter(stop))
    assert json.loads((out / "drawn.json").read_bytes())["complete"] is False
    seen: list[tuple[str, int, int]] = []
    draw_dataset(out, plan, reporter=Reporter(lambda *step: seen.append(step)))
    assert seen[-1] == ("drawing", 15, 15)
    whole = tmp_path / "whole"
    draw_dataset(whole, plan)
    assert digests(out) == digests(whole)
    assert not (out / "Test").exists()
    with pytest.raises(OutputError, match="other settings"):
        draw_dataset(out, replace(plan, seed=2))
    with pytest.raises(OutputError, match="not an empty folder"):
        draw_dataset(dataset / "Train", plan)


def test_dataset_may_share_slides(tmp_path: Path) -> None:
    plan = SmearPlan(train=15, test=15, slides=(3, 3), shared_slides=2, size=32)
    record = draw_dataset(tmp_path / "shared", plan)
    train, test = (set(record["slides"][split]) for split in ("Train", "Test"))
    assert train & test == {"S02", "S03"}
    files = [path.name for path in (tmp_path / "shared").rglob("*.jpg")]
    assert len(files) == len(set(files)) == 30


def test_dataset_of_other_classes(tmp_path: Path) -> None:
    mix = {"Platelet": 1.0, "Band neutrophil": 2.0}
    plan = SmearPlan(train=12, test=6, size=64, imbalance=mix, slides=(2, 1))
    summary = draw_dataset(tmp_path / "out", plan)
    assert summary["classes"] == ["Platelet", "Band neutrophil"]
    assert summary["counts"]["Train"] == {"Platelet": 4, "Band neutrophil": 8}
    assert len([*(tmp_path / "out/Train/Band neutrophil").iterdir()]) == 8


def test_default_mix_is_raabins() -> None:
    assert sum(DEFAULT_MIX.values()) == pytest.approx(1.0)
    assert DEFAULT_MIX["Neutrophil"] == pytest.approx(0.6124, abs=5e-5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"train": 10}, "at least 15"),
        ({"seed": -1}, "seed"),
        ({"slides": (0, 2)}, "slide"),
        ({"shared_slides": 9}, "shared_slides=9"),
        ({"size": 8}, "32 pixels"),
        ({"imbalance": {"Neutrophil": 1.0}}, "Basophil"),
        ({"fields": -1}, "fields=-1"),
    ],
)
def test_plans_refuse_nonsense(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        SmearPlan(**settings)


def test_nobody_draws_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="workers=0"):
        draw_dataset(tmp_path / "out", workers=0)
    assert not (tmp_path / "out").exists()


def test_pictures_refuse_nonsense() -> None:
    rng, style = np.random.default_rng(0), style_of(0)
    with pytest.raises(UsageError, match="No 'Unicorn' can be drawn; expected one of Band neu"):
        draw_cell("Unicorn", rng, style)
    with pytest.raises(UsageError, match="at least 32"):
        draw_cell("Monocyte", rng, style, size=16)
    with pytest.raises(UsageError, match="negative"):
        draw_field({"Monocyte": -1}, rng, style)
    with pytest.raises(UsageError, match="do not fit"):
        draw_field(40, rng, style, height=400, width=400)
    with pytest.raises(UsageError, match="too small"):
        draw_field({"Monocyte": 1}, rng, style, height=64, width=64)
    with pytest.raises(UsageError, match="between 1 and 40"):
        draw_field(1, rng, style, pixels_per_micrometre=0.1)
