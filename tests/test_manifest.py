"""The list of labelled images: what it says, keeps and notices."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from five import CLASSES
from leuko.data.reading import read_folder
from leuko.errors import DataError
from leuko.manifest import Manifest, original_of, slide_of
from tiny import write_dataset, write_picture


def test_round_trip(tmp_path: Path) -> None:
    manifest = read_folder(write_dataset(tmp_path / "set", each=2, names=CLASSES[:3]))
    manifest.save(tmp_path / "manifest.json")
    again = Manifest.load(tmp_path / "manifest.json")
    assert again == manifest
    assert again.digest == manifest.digest
    document = json.loads((tmp_path / "manifest.json").read_text())
    assert document["schema"] == "leuko.manifest/1"
    assert document["classes"] == list(CLASSES)


def test_the_digest_tells_content_labels_and_slides_but_not_where(tmp_path: Path) -> None:
    first = read_folder(write_dataset(tmp_path / "a", each=2))
    second = read_folder(write_dataset(tmp_path / "b", each=2))
    assert first.digest == second.digest
    write_picture(tmp_path / "b" / "Basophil" / "95-8-1-1_0_1.jpg", "Basophil", seed=99)
    assert read_folder(tmp_path / "b").digest != first.digest
    assert first.subset([0, 1]).digest != first.subset([1, 0]).digest


@pytest.mark.parametrize("key", ["path", "label", "slide", "sha256"])
def test_a_changed_row_is_noticed(key: str, tmp_path: Path) -> None:
    read_folder(write_dataset(tmp_path / "set", each=1)).save(tmp_path / "manifest.json")
    document = json.loads((tmp_path / "manifest.json").read_text())
    document["samples"][0][key] = "Monocyte"
    (tmp_path / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match="changed by hand"):
        Manifest.load(tmp_path / "manifest.json")


@pytest.mark.parametrize(
    "change",
    [
        {"samples": None},
        {"samples": [{}]},
        {"samples": [{"path": "a", "label": "blast", "slide": "", "sha256": "", "split": ""}]},
        {"samples": ["a"]},
        {"root": 3},
        {"notes": 3},
    ],
)
def test_a_damaged_document(change: dict[str, object], tmp_path: Path) -> None:
    read_folder(write_dataset(tmp_path / "set", each=1)).save(tmp_path / "manifest.json")
    document = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**document, **change}))
    with pytest.raises(DataError, match="is damaged"):
        Manifest.load(tmp_path / "manifest.json")


def test_subset_keeps_the_order_asked_for(tmp_path: Path) -> None:
    manifest = read_folder(write_dataset(tmp_path, each=2))
    part = manifest.subset(np.array([9, 0]), split="validation")
    assert [s.label for s in part.samples] == [4, 0]
    assert {s.split for s in part.samples} == {"validation"}
    assert {s.split for s in manifest.samples} == {""}
    assert part.root == manifest.root


@pytest.mark.parametrize(
    ("name", "slide"),
    [
        ("95-8-22-3_23_1.jpg", "95-8-22-3"),
        ("Train/Neutrophil/95-8-22-3_23_1.jpg", "95-8-22-3"),
        ("aug_0_95-8-22-3_23_1.jpg", "95-8-22-3"),
        ("aug_12_aug_3_95-8-22-3_23_1.jpg", "95-8-22-3"),
        ("20190527_113018_0.jpg", "20190527"),
        ("aug_4_20190527_113018_0.jpg", "20190527"),
        ("066.png", ""),
        ("aug_1_066.png", ""),
        ("_066.png", ""),
        ("noname", ""),
        ("august_1.jpg", ""),
        ("aug_x7_1.jpg", ""),
        ("BA_100102.jpg", ""),
        ("S01_12_1.jpg", "S01"),
    ],
)
def test_slide_ids(name: str, slide: str) -> None:
    assert slide_of(name) == slide


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("a.jpg", (None, "a.jpg")),
        ("aug_7_a.jpg", (7, "a.jpg")),
        ("aug_007_a.jpg", (7, "a.jpg")),
        ("aug_7_aug_2_a_b.jpg", (7, "a_b.jpg")),
        ("aug_7_", (None, "aug_7_")),
        ("aug_a.jpg", (None, "aug_a.jpg")),
        ("aug_1_a\n.jpg", (1, "a\n.jpg")),
    ],
)
def test_originals(name: str, parts: tuple[int | None, str]) -> None:
    assert original_of(name) == parts
