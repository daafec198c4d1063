"""An audit in words; the document is that of a data set with every kind of trouble."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from five import CLASSES
from leuko.data.audit.audit import audit_dataset
from leuko.data.audit.background import BackgroundSkipped, BackgroundTest
from leuko.data.audit.findings import ConfoundedClass, find_all
from leuko.data.audit.report import Confounded, Finding
from leuko.imaging.decode import encode_jpeg, encode_png
from leuko.render.audit import audit_document, finding_sentence, finding_title, format_audit
from leuko.support.artifacts import RESEARCH_USE

DOCUMENT = Path(__file__).with_name("audit.json")
"""What Leuko wrote of `troubled` when its audit still was a document; digests and places left out.
"""


def cell(seed: int, background: int = 200) -> np.ndarray:
    rng = np.random.default_rng(seed)
    pixels = np.full((48, 48, 3), background, np.uint8)
    pixels += rng.integers(0, 12, pixels.shape, dtype=np.uint8)
    inner = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    pixels[8:40, 8:40] = cv2.resize(inner, (32, 32), interpolation=cv2.INTER_CUBIC)
    return pixels


def put(file: Path, seed: int) -> None:
    file.write_bytes(encode_png(cell(seed)))


@pytest.fixture(scope="module")
def troubled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("troubled")
    train, test = folder / "Train", folder / "Test"
    for split, first, counts in ((train, 0, (4, 6, 6, 6, 20)), (test, 500, (5, 5, 5, 0, 5))):
        for label, (name, n) in enumerate(zip(CLASSES, counts, strict=True)):
            (split / name).mkdir(parents=True)
            for i in range(n):
                of_a_day = split == train and name == "Basophil"
                slide, number = (
                    ("20190526", 1000 + i) if of_a_day else (f"95-8-{i % 3}-1", first + i)
                )
                file = split / name / f"{slide}_{number}_{label}.png"
                background = 150 if name == "Eosinophil" else 200
                file.write_bytes(encode_png(cell(1000 * label + first + i, background)))
    (train / "Monocyte" / "95-8-0-1_92_3.jpg").write_bytes(b"")
    (train / "Monocyte" / "95-8-0-1_94_3.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0")
    (train / "Lymphocyte" / "95-8-0-1_90_2.png").write_bytes(encode_png(cell(9001)[:40]))
    (train / "Lymphocyte" / "95-8-0-1_91_2.png").write_bytes(encode_png(cell(9002)[..., 0]))
    (train / "Lymphocyte" / "95-8-1-1_93_2.jpg").write_bytes(encode_jpeg(cell(9003)))
    source = train / "Eosinophil" / "95-8-0-1_0_1.png"
    shutil.copy(source, test / "Eosinophil" / "95-8-9-1_7_1.png")
    for i in (0, 3, 6, 9):
        again = cv2.convertScaleAbs(cell(4000 + i), alpha=0.9, beta=10)
        (train / "Eosinophil" / f"95-8-8-1_{40 + i}_1.png").write_bytes(encode_png(again))
    put(train / "Neutrophil" / "aug_1_95-8-1-1_1_4.png", 9005)
    put(test / "Neutrophil" / "aug_2_95-8-1-1_501_4.png", 9006)
    (train / "Neutrophil" / "Eosinophil").mkdir()
    put(train / "Neutrophil" / "Eosinophil" / "95-8-2-1_77_4.png", 9007)
    put(train / "Neutrophil" / "cell.png", 9008)
    (folder / "list.csv").write_text("a,b\n")
    return folder


@pytest.fixture(scope="module")
def report(troubled: Path):
    return audit_dataset(troubled, background=False, workers=2)


def test_the_document_is_that_of_earlier_releases(report, troubled: Path):
    document = audit_document(report)
    json.dumps(document, allow_nan=False)
    assert document.pop("schema") == "leuko.audit/1"
    assert document.pop("dataset") == troubled.as_posix()
    assert len(document.pop("data_digest")) == 64
    assert document.pop("scheme") == report.scheme.to_dict()
    assert all(split.pop("digest") for split in document["splits"].values())
    before = json.loads(DOCUMENT.read_text(encoding="utf-8"))
    del before["schema"]
    assert document == before
    assert list(document) == list(before)


def test_every_kind_of_finding_but_the_background_is_among_them(report):
    known = {kind.code for kind in Finding.__subclasses__()}
    assert {finding.code for finding in report.findings} == known - {"background"}


def test_the_terminal_has_tables_and_all_sentences(report):
    text = format_audit(report)
    lines = text.splitlines()
    assert ["Basophil", "4", "5"] in [line.split() for line in lines]
    assert "formats:          PNG (73), JPEG (1)" in lines
    assert "Background test skipped: it was not asked for." in lines
    assert "  Train/Monocyte/95-8-0-1_92_3.jpg: empty-file" in lines
    assert " ! Missing class: test has no image of Monocyte." in lines
    assert sum(line.startswith((" ! ", " - ")) for line in lines) == len(report.findings)
    assert lines[-1] == RESEARCH_USE
    assert "sizes:            not looked at" in format_audit(replace(report, splits=()))


def test_confounded_classes_in_words():
    def said(*args, **kwargs):
        return finding_sentence(ConfoundedClass("warning", Confounded(*args, **kwargs)))

    assert said("Eosinophil", "train", "one slide", ("s1",), 6, 9, elsewhere=4) == (
        "6 of 9 Eosinophil images of train come from one slide, s1, which also gives 4 to the "
        "other splits."
    )
    days = tuple(f"day{i}" for i in range(7))
    assert said("Basophil", "train", "slides of its own", days, 9, 9) == (
        "All 9 Basophil images of train come from slides or days that hold no other class "
        "(day0, day1, day2, day3, day4, day5, ...)."
    )
    assert said("Basophil", "train", "slides of its own", days[:1], 9, 10).startswith("9 of 10 ")


@pytest.mark.parametrize(
    ("recall", "level", "sentence"),
    [
        (
            {"Basophil": 0.9, "Monocyte": 0.3},
            "note",
            "The background alone does not name the cells (balanced accuracy 0.60 where chance is "
            "0.50).",
        ),
        (
            {"Basophil": 0.45, "Monocyte": 0.44, "Eosinophil": 0.46, "Lymphocyte": 0.45},
            "note",
            "The background alone gives no single class away, but it does better than guessing "
            "(balanced accuracy 0.45 where chance is 0.25).",
        ),
        (
            {"Basophil": 1.0, "Monocyte": 0.2, "Eosinophil": 0.6},
            "warning",
            "The background alone, without the cell, names 100% of Basophil (balanced accuracy "
            "0.60 where chance is 0.33); always answering Monocyte names none of the others, and "
            "guessing evenly names 33% of each class. A network may learn stain, slide or camera "
            "in place of these cells.",
        ),
    ],
)
def test_the_background_in_words(report, recall, level, sentence):
    test = BackgroundTest(
        0.5, 0.4, "Monocyte", recall, dict.fromkeys(recall, 10), "train", "test", 3
    )
    changed = replace(report, background=test)
    (finding,) = [one for one in find_all(changed) if one.code == "background"]
    assert (finding.level, finding_title(finding)) == (level, "Background")
    assert finding_sentence(finding) == sentence
    told = audit_document(changed)["background_test"]
    assert told["sentence"] == sentence
    assert told["per_class_recall"] == recall
    assert told["balanced_accuracy"] == pytest.approx(sum(recall.values()) / len(recall))
    assert (told["ring"], told["seed"], len(told["features"])) == (0.125, 3, 29)
    text = format_audit(changed)
    assert "Background test (outer 12.5% of each side; trained on train, tested on test)" in text
    assert "accuracy 0.500, always Monocyte 0.400;" in text


@pytest.mark.parametrize(
    ("skipped", "sentence"),
    [
        (BackgroundSkipped("missing-package", detail="it needs a package."), "it needs a package."),
        (BackgroundSkipped("unreadable"), "no image is readable."),
        (
            BackgroundSkipped("too-few", (("Basophil", 9), ("Monocyte", 4))),
            "it needs at least 5 readable images of two classes; there are 9 of Basophil, 4 of "
            "Monocyte.",
        ),
        (
            BackgroundSkipped("not-taught"),
            "no tested image has a class that the training images teach.",
        ),
        (
            BackgroundSkipped("one-slide"),
            "all images come from one slide, so no part can be held out.",
        ),
    ],
)
def test_why_there_is_no_background_test(report, skipped, sentence):
    changed = replace(report, background=skipped)
    assert audit_document(changed)["background_test"] == {"skipped": sentence}
    assert f"Background test skipped: {sentence}" in format_audit(changed).splitlines()
