"""A bundle on labelled images: the figures are those counted by hand."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import leuko
from five import CLASSES
from in_memory import InMemory
from leuko.data.dataset import Pictures
from leuko.data.reading import read_folder, read_labelled
from leuko.data.seen import fingerprints
from leuko.errors import BundleError, DataError
from leuko.prediction_files import csv_text, read_predictions
from leuko.runtime.classifier import OnnxClassifier
from leuko.support.reporter import Reporter
from leuko.workflows.evaluate import evaluate
from tiny import write_dataset, write_picture


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Five classes of six, on six slides; two neutrophils lie among the basophils."""
    root = write_dataset(tmp_path / "Test", each=6, slides=6)
    for number in range(2):
        file = root / "Basophil" / f"95-8-{number + 1}-1_{number}_1.jpg"
        shutil.copy(root / "Neutrophil" / f"95-8-{number + 1}-1_{number}_1.jpg", file)
    return root


def test_figures_counted_by_hand(labelled: Path) -> None:
    told: list[tuple[str, int, int]] = []
    result = evaluate(
        InMemory(),
        labelled,
        resamples=100,
        command="leuko evaluate",
        reporter=Reporter(lambda *now: told.append(now)),
    )
    document = result.to_dict()
    assert document["n"] == 30
    assert document["metrics"]["accuracy"]["value"] == pytest.approx(28 / 30)
    # Sensitivities 4/6, 1, 1, 1, 1.
    assert document["metrics"]["balanced_accuracy"]["value"] == pytest.approx((4 / 6 + 4) / 5)
    assert document["confusion"][0] == [4, 0, 0, 0, 2]
    assert [document["confusion"][k][k] for k in range(5)] == [4, 6, 6, 6, 6]
    assert document["model"] == {"name": "in memory", "digest": InMemory().digest}
    assert document["data"]["digest"] == read_folder(labelled).digest
    assert document["data"]["folder"] == "Test"
    assert document["command"] == "leuko evaluate"
    assert told[-1] == ("predicting", 30, 30)
    assert result.images_per_second > 0
    assert str(labelled.parent) not in json.dumps(document)


def test_what_is_not_accepted_is_measured_by_its_likeliest_class(labelled: Path) -> None:
    result = evaluate(InMemory(least=1.1), labelled, resamples=100)
    document = result.to_dict()
    assert document["metrics"]["accuracy"]["value"] == pytest.approx(28 / 30)
    assert document["decisions"]["counts"]["unsure"] == 30
    assert document["decisions"]["answered"] is None
    assert set(result.table.labels.values()) == {0}
    assert sum(result.table.likeliest.values()) == 30


def test_rows_are_called_by_their_path_in_the_set(labelled: Path) -> None:
    result = evaluate(InMemory(), labelled, resamples=100)
    assert [row.path for row in result.table.rows] == [s.path for s in result.manifest.samples]
    assert result.report.n == 30


def test_rejected_files_are_listed_and_left_out(labelled: Path) -> None:
    (labelled / "Basophil" / "0_empty.jpg").touch()
    (labelled / "Monocyte" / "95-8-1-1_0_1.jpg").write_bytes(b"%!PS")
    said: list[str] = []
    result = evaluate(InMemory(), labelled, resamples=100, reporter=Reporter(say=said.append))
    assert len(result.table) == 31
    assert len(result.table.rejected) == 2
    assert result.report.n == 29
    document = result.to_dict()
    assert document["n"] == 29
    assert (document["data"]["found"], document["data"]["rejected"]) == (31, 2)
    assert "2 of 31 images were rejected." in document["warnings"]
    assert any("Basophil/0_empty.jpg (empty-file" in sentence for sentence in said)
    # Labels and answers still belong together.
    assert [document["confusion"][k][k] for k in range(5)] == [4, 6, 6, 5, 6]


def test_an_absent_class_moves_nothing(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "Test", each=3, names=CLASSES[1:4])
    document = evaluate(InMemory(), root, resamples=100).to_dict()
    assert document["absent_classes"] == ["Basophil", "Neutrophil"]
    assert document["metrics"]["accuracy"]["value"] == 1
    assert document["metrics"]["balanced_accuracy"]["value"] == 1  # over the classes present
    assert [document["per_class"][name]["n"] for name in CLASSES] == [0, 3, 3, 3, 0]
    assert any("has no image of Basophil" in warning for warning in document["warnings"])


def test_one_class_alone(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "Test", each=3, names=("Lymphocyte",))
    document = evaluate(InMemory(), root, resamples=100).to_dict()
    assert document["metrics"]["accuracy"]["value"] == 1


def test_the_same_twice(labelled: Path) -> None:
    documents = [evaluate(InMemory(), labelled, resamples=100, seed=3).to_dict() for _ in range(2)]
    assert documents[0] == documents[1]


def test_a_table_gives_labels_and_slides(tmp_path: Path, tiny_model: Path) -> None:
    lines = ["path,label,slide"]
    for number, name in enumerate(CLASSES):
        write_picture(tmp_path / "cells" / f"{number}.png", name)
        lines.append(f"cells/{number}.png,{name},S{number % 2}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    result = leuko.evaluate(tiny_model, tmp_path / "labels.csv", resamples=100)
    assert result.to_dict()["n_slides"] == 2
    assert result.to_dict()["metrics"]["accuracy"]["value"] == 1
    assert read_labelled(tmp_path / "labels.csv").slides == ["S0", "S1", "S0", "S1", "S0"]


def test_files_that_are_written(
    labelled: Path, tiny_classifier: OnnxClassifier, tmp_path: Path
) -> None:
    result = evaluate(tiny_classifier, labelled, resamples=100)
    page = result.write(tmp_path / "out")
    assert page.is_file()
    document = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert document["schema"] == "leuko.evaluation/1"
    with (tmp_path / "out" / "predictions.csv").open(newline="") as file:
        assert [row["path"] for row in csv.DictReader(file)] == [
            s.path for s in result.manifest.samples
        ]
    again = read_predictions(tmp_path / "out" / "predictions.csv")
    assert csv_text(again) == csv_text(result.table)


def test_images_that_a_model_has_learned_from_are_counted(
    labelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashes = np.sort(fingerprints(Pictures().facts(read_folder(labelled).files()[:9])))
    monkeypatch.setattr("leuko.data.seen._fingerprints", lambda: hashes)
    start = {"start": {"fingerprints": True}}
    learned = InMemory(provenance=start)
    told = [one for one in evaluate(learned, labelled, resamples=100).report.remarks
            if "has learned from" in one]  # fmt: skip
    assert len(told) == 1
    assert int(told[0].split()[0]) >= 9
    assert "of these 30 images are among those that in memory has learned from" in told[0]
    report = evaluate(InMemory(), labelled, resamples=100).report
    assert not any("has learned from" in one for one in report.remarks)


def test_nothing_to_score(tmp_path: Path, tiny_classifier: OnnxClassifier) -> None:
    folder = tmp_path / "Test" / "Basophil"
    folder.mkdir(parents=True)
    with pytest.raises(DataError, match="not one image"):
        evaluate(tiny_classifier, tmp_path / "Test")
    for number in range(3):
        (folder / f"{number}.jpg").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"Not one of the 3 images in .* could be read"):
        evaluate(tiny_classifier, tmp_path / "Test")
    with pytest.raises(DataError, match="does not exist"):
        evaluate(tiny_classifier, tmp_path / "nothing")
    with pytest.raises(BundleError, match="no bundled model"):
        evaluate("resnet", tmp_path / "Test")


def test_an_extra_folder(labelled: Path) -> None:
    (labelled / "Junk").mkdir()
    with pytest.raises(DataError, match="--ignore"):
        evaluate(InMemory(), labelled)
    result = evaluate(InMemory(), read_labelled(labelled, ignore=("Junk",)), resamples=100)
    assert len(result.table) == 30
