"""Recipes side by side: everything is in the document, on the same rows, and done once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from five import CLASSES
from leuko.data.dataset import Dataset, Pictures
from leuko.data.reading import read_split
from leuko.data.seen import fingerprints
from leuko.data.synth import SmearPlan, draw_dataset
from leuko.errors import DataError, LeukoError, UsageError
from leuko.evaluation.paired import Answers, compare_predictions
from leuko.imaging.preprocess import PreprocessSpec
from leuko.prediction_files import read_predictions
from leuko.recipe import (
    AugmentSettings,
    DataSettings,
    ModelSettings,
    Recipe,
    TrainSettings,
    load_recipe,
)
from leuko.support.reporter import SILENT, Reporter

keras = pytest.importorskip("keras", reason="needs the extra 'train'")
pytest.importorskip("matplotlib", reason="needs the extra 'report'")

from leuko.training.options import RunOptions  # noqa: E402
from leuko.workflows.compare import _set_name, _unused, compare  # noqa: E402
from leuko.workflows.starting import find_starts  # noqa: E402
from tiny import write_dataset  # noqa: E402
from training.killed import use_small_networks  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

SETS = ["validation", "test", "Elsewhere"]


def recipe(name: str, **settings: Any) -> Recipe:
    return replace(
        Recipe(
            name=name,
            title=f"Recipe {name}",
            seed=1,
            preprocess=PreprocessSpec((32, 32)),
            data=DataSettings(validation=0.25),
            model=ModelSettings("cnn", norm_momentum=0.5),
            train=TrainSettings(epochs=1, steps=3, batch=8, rate=3e-3),
            published={"accuracy": 0.9, "macro_f1": 0.8},
        ),
        **settings,
    )


@pytest.fixture(scope="module")
def recipes() -> list[Recipe]:
    """One that samples, and one of the published kind."""
    files = recipe(
        "files",
        data=DataSettings("random-file", balance="files"),
        augment=AugmentSettings("none"),
        train=TrainSettings(epochs=1, batch=32, rate=3e-3),
        published={},
    )
    return [recipe("sampled"), files]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "Dataset"
    mix = dict(zip(CLASSES, (1, 1, 2, 1, 3), strict=True))
    draw_dataset(folder, SmearPlan(train=50, test=30, size=64, slides=(8, 3), imbalance=mix))
    return folder


@pytest.fixture(scope="module")
def elsewhere(dataset: Path) -> Path:
    """Another laboratory's cells, without basophils and with one file that is no image."""
    folder = dataset.parent / "Elsewhere"
    shutil.copytree(dataset / "Test", folder)
    shutil.rmtree(folder / "Basophil")
    (folder / "Monocyte" / "S77_1_1.jpg").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def compared(
    dataset: Path, elsewhere: Path, recipes: list[Recipe], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("compared") / "out"
    with pytest.MonkeyPatch.context() as patch:
        use_small_networks(patch.setitem)
        options = RunOptions(command="leuko compare", workers=2)
        document = compare(dataset, recipes, out, seeds=2, unseen=[elsewhere], options=options)
    return out, document


def test_the_document_has_everything(compared: tuple[Path, dict[str, Any]]) -> None:
    out, document = compared
    written = json.loads((out / "comparison.json").read_text())
    assert written["schema"] == "leuko.comparison/1"
    assert set(written) == {
        "schema", "research_use", "version", "command", "dataset", "data_digest", "seeds",
        "machine", "versions", "audit", "balance", "models", "paired", "warnings", "verdict",
        "total_seconds",
    }  # fmt: skip
    assert written["command"] == "leuko compare"
    assert written["dataset"] == "Dataset"
    assert written["seeds"] == [1, 2]
    assert set(written["data_digest"]) == {"train", "test", "Elsewhere"}
    assert written["audit"]["schema"] == "leuko.audit/1"
    assert written["verdict"].endswith(".")
    assert any("no image of Basophil" in line for line in written["warnings"])
    assert len(set(written["warnings"])) == len(written["warnings"])
    assert document["verdict"] == written["verdict"]


def test_every_model_has_every_set_and_seed(compared: tuple[Path, dict[str, Any]]) -> None:
    first, second = compared[1]["models"]
    assert first["start"]["told"] == second["start"]["told"] == "random weights"
    for model, name in ((first, "sampled"), (second, "files")):
        assert model["recipe"] == name
        assert model["input"] == [32, 32]
        assert model["parameters"] > 0
        assert [run["seed"] for run in model["runs"]] == [1, 2]
        assert list(model["mean"]) == SETS
        assert [row["epoch"] for row in model["history"]] == [1.0]
        for run in model["runs"]:
            assert list(run["evaluations"]) == SETS
            assert run["epochs"] == 1
            assert run["predict_images_per_second"] > 0
            assert run["seconds"]["total"] >= run["seconds"]["fit"]
            assert (compared[0] / run["run"] / "bundle" / "bundle.json").is_file()
        values = [r["evaluations"]["test"]["metrics"]["accuracy"]["value"] for r in model["runs"]]
        assert model["mean"]["test"]["accuracy"]["mean"] == pytest.approx(np.mean(values))
    assert first["published"] == {"accuracy": 0.9, "macro_f1": 0.8}
    assert second["published"] is None
    assert [first["split"], second["split"]] == ["slide", "random-file"]
    strange = first["runs"][0]["evaluations"]["Elsewhere"]
    assert strange["absent_classes"] == ["Basophil"]
    assert strange["data"]["rejected"] == 1


def test_warnings_of_evaluations_are_collected(
    compared: tuple[Path, dict[str, Any]], elsewhere: Path
) -> None:
    out, document = compared
    told = document["warnings"]
    few = "There are only 3 slides; an interval over so few is rough and too narrow."
    assert told.count(f"Test: {few}") == 1
    assert "Elsewhere: 1 of 27 images were rejected." in told
    assert told[0] == "Elsewhere has no image of Basophil."
    every = {
        sentence
        for model in document["models"]
        for run in model["runs"]
        for one in run["evaluations"].values()
        for sentence in one["warnings"]
    }
    assert all(any(line.endswith(sentence) for line in told) for sentence in every)
    for text in ((out / "comparison.md").read_text(), (out / "report.html").read_text()):
        assert f"Test: {few}" in text
        assert "rough: 3 slides" in text


def test_the_terminal_gets_a_table_and_the_paths(
    compared: tuple[Path, dict[str, Any]],
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    leuko: Callable[..., Any],
) -> None:
    document = json.loads(json.dumps(compared[1]))
    document["models"][0]["title"] = "\x1b[31mred"
    room = SimpleNamespace(compare=lambda *_, **__: document)
    monkeypatch.setattr("leuko.cli.extras.comparing_room", lambda: room)
    out = tmp_path / "out"
    done = leuko("compare", dataset, "--recipes", "cnn", "mobilenetv2", "--out", out)
    assert done.code == 0
    assert done.out.startswith("The data do not separate ")
    assert "\nTest: 30 images, 3 slides\n" in done.out
    assert "\x1b" not in done.out
    assert "\\x1b[31mred" in done.out
    assert "\\[" not in done.out
    assert done.out.splitlines()[-2:] == [
        f"Tables: {out / 'comparison.md'}, {out / 'comparison.json'}",
        f"Report: {out / 'report.html'}",
    ]


def test_balancing_is_counted_where_files_are_written(
    compared: tuple[Path, dict[str, Any]], dataset: Path
) -> None:
    balance = compared[1]["balance"]
    largest = max(read_split(dataset, "train").counts)
    assert balance["images"] == 2 * 5 * largest
    assert balance["seconds"] >= 0
    assert "balance" not in compared[1]["models"][0]["runs"][0]["seconds"]


def test_pairs_are_on_the_same_rows(compared: tuple[Path, dict[str, Any]], elsewhere: Path) -> None:
    out, document = compared
    pairs = document["paired"]
    assert [(p["a"], p["b"], p["set"], p["seeds"]) for p in pairs] == [
        ("sampled", "files", name, [seed, seed])
        for name in ("test", "Elsewhere")
        for seed in (1, 2)
    ]
    tables = [
        read_predictions(out / "evaluations" / f"{name}-seed2-Elsewhere/predictions.csv")
        for name in ("sampled", "files")
    ]
    assert [row.path for row in tables[0].rows] == [row.path for row in tables[1].rows]
    answered = [row for row in tables[0].rows if row.status == "ok"]
    truth = np.array([CLASSES.index(row.path.split("/")[0]) for row in answered])
    right = [table.probabilities.argmax(axis=1) == truth for table in tables]
    told = pairs[-1]["mcnemar"]
    assert told["b"] == int((right[0] & ~right[1]).sum())
    assert told["c"] == int((right[1] & ~right[0]).sum())
    slides = [Path(row.path).name.split("_")[0] for row in answered]
    again = compare_predictions(
        truth, slides, Answers("sampled", 2, tables[0].probabilities),
        Answers("files", 2, tables[1].probabilities), set_name="Elsewhere",
    )  # fmt: skip
    assert pairs[-1] == again.to_dict()


def test_the_report_is_one_page_and_one_table(compared: tuple[Path, dict[str, Any]]) -> None:
    out, document = compared
    page = (out / "report.html").read_text()
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert "Recipe sampled" in page
    assert "Recipe files" in page
    assert "Research use only" in page
    assert 'src="http' not in page
    table = (out / "comparison.md").read_text()
    assert "Recipe sampled" in table
    assert "Elsewhere" in table
    assert {path.name for path in out.iterdir()} == {
        "runs", "evaluations", "comparison.json", "comparison.md", "report.html",
    }  # fmt: skip


def test_a_resumed_comparison_does_nothing_twice(
    compared: tuple[Path, dict[str, Any]], dataset: Path, elsewhere: Path, recipes: list[Recipe]
) -> None:
    out, document = compared
    kept = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file() and p.parent != out}
    (out / "comparison.json").unlink()
    lost = out / "evaluations" / "files-seed2-test" / "evaluation.json"
    before = json.loads(lost.read_text())
    lost.unlink()
    said: list[str] = []
    again = compare(
        dataset, recipes, out, seeds=2, unseen=[elsewhere], reporter=Reporter(say=said.append),
        options=RunOptions(resume=True, workers=2),
    )  # fmt: skip
    assert sum(line.endswith("is finished.") for line in said) == 4
    now = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file() and p.parent != out}
    changed = {path for path in now if now[path] != kept.get(path)}
    assert changed == {lost, lost.with_name("predictions.csv")}
    after = json.loads(lost.read_text())
    assert after["metrics"] == before["metrics"]
    for name in ("models", "paired", "verdict", "seeds", "balance"):
        if name != "models":
            assert again[name] == document[name]
    assert [m["mean"] for m in again["models"]] == [m["mean"] for m in document["models"]]
    assert again["warnings"] == document["warnings"]


def test_what_cannot_be_compared_is_refused(
    compared: tuple[Path, dict[str, Any]], dataset: Path, recipes: list[Recipe], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="already holds a comparison"):
        compare(dataset, recipes, compared[0])
    with pytest.raises(UsageError, match="different recipes"):
        compare(dataset, [recipes[0], recipes[0]], tmp_path / "out")
    with pytest.raises(UsageError, match="at least one seed"):
        compare(dataset, recipes, tmp_path / "out", seeds=0)
    with pytest.raises(DataError, match="no test folder"):
        compare(dataset / "Train", recipes, tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        compare(dataset, recipes, tmp_path / "mine")
    assert not (tmp_path / "out").exists()


def _with_options(given: dict[str, Any]) -> dict[str, Any]:
    """Put among a run's options what is one."""
    chosen = {name: given.pop(name) for name in ("weights", "resume") if name in given}
    return {**given, "options": RunOptions(**chosen)}


def without_weights(tmp_path: Path) -> dict[str, Any]:
    return {"weights": str(tmp_path / "none.weights.h5")}


def damaged_weights(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "damaged.npz").write_bytes(b"PK")
    return {"weights": str(tmp_path / "damaged.npz")}


def without_teacher(tmp_path: Path) -> dict[str, Any]:
    train = TrainSettings(epochs=1, steps=1, teacher=str(tmp_path / "none.zip"))
    return {"second": recipe("second", train=train)}


def unreadable_set(tmp_path: Path) -> dict[str, Any]:
    for name in CLASSES:
        (tmp_path / "Other" / name).mkdir(parents=True)
        (tmp_path / "Other" / name / "a.png").write_bytes(b"no image")
    return {"unseen": [tmp_path / "Other"]}


def unseen_nowhere(tmp_path: Path) -> dict[str, Any]:
    return {"unseen": [tmp_path / "nowhere"]}


def too_few_slides(tmp_path: Path) -> dict[str, Any]:
    write_dataset(tmp_path / "One" / "Train", slides=1)
    write_dataset(tmp_path / "One" / "Test", slides=1)
    return {"dataset": tmp_path / "One"}


def below_a_file(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "file").write_text("mine")
    return {"out": tmp_path / "file" / "out"}


def begun_otherwise(tmp_path: Path) -> dict[str, Any]:
    place = tmp_path / "out" / "runs" / "second-seed1"
    place.mkdir(parents=True)
    (place / "recipe.toml").write_text(recipe("second").with_seed(9).to_toml())
    return {"resume": True}


def full_disk(_: Path) -> dict[str, Any]:
    return {"free": 10**6}


def without_plots(_: Path) -> dict[str, Any]:
    return {"missing": "matplotlib"}


def without_exporter(_: Path) -> dict[str, Any]:
    return {"missing": "tf2onnx"}


@pytest.mark.parametrize(
    ("lacking", "told"),
    [
        (without_weights, "The weights file .* does not exist"),
        (damaged_weights, "does not hold a MobileNetV2 backbone"),
        (without_teacher, "none.zip"),
        (unreadable_set, "Not one of the 5 images of Other"),
        (unseen_nowhere, "nowhere"),
        (too_few_slides, "belong to one slide"),
        (below_a_file, "file"),
        (begun_otherwise, "begun with another recipe"),
        (full_disk, "MB free, and this comparison may take"),
        (without_plots, "matplotlib"),
        (without_exporter, "tf2onnx"),
    ],
)
def test_what_the_second_training_lacks_is_said_before_the_first(
    lacking: Callable[[Path], dict[str, Any]],
    told: str,
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A comparison once failed after 24 minutes, at the weights of its second network."""
    second = recipe("second", model=ModelSettings("mobilenetv2", "minus-one-one", "all", "none"))
    given = {"dataset": dataset, "second": second, "out": tmp_path / "out", **lacking(tmp_path)}
    if "missing" in given:
        monkeypatch.setitem(sys.modules, given.pop("missing"), None)
    if "free" in given:
        usage = SimpleNamespace(free=given.pop("free"))
        monkeypatch.setattr("leuko.workflows.plan.shutil.disk_usage", lambda _: usage)
    trained: list[Any] = []
    monkeypatch.setattr("leuko.workflows.compare.train", lambda *a, **_: trained.append(a))
    recipes = [recipe("first", data=DataSettings("random-file", balance="files")),
               given.pop("second")]  # fmt: skip
    with pytest.raises(LeukoError, match=told):
        compare(given.pop("dataset"), recipes, given.pop("out"), **_with_options(given))
    assert trained == []


@pytest.fixture
def learned(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """As if Leuko's backbone had learned from Train, and from some cells of Test."""
    opened = Dataset.open(dataset)
    hashes = {
        split: fingerprints(opened.pictures.facts(opened.rows(split).files()))
        for split in ("train", "test")
    }

    def of_test(count: int) -> None:
        known = np.sort(np.concatenate([hashes["train"], hashes["test"][:count]]))
        monkeypatch.setattr("leuko.data.seen._fingerprints", lambda: known)

    return of_test


def test_a_start_that_has_learned_the_test_set_is_refused(
    dataset: Path,
    tmp_path: Path,
    learned: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained: list[Any] = []
    monkeypatch.setattr("leuko.workflows.compare.train", lambda *a, **_: trained.append(a))
    monkeypatch.setattr("leuko.workflows.compare.check_ready", lambda *_: None)
    head = recipe("head", model=ModelSettings("mobilenetv2", "minus-one-one", "head", "none"))
    learned(3)
    with pytest.raises(DataError, match=r"3 of the 30 images of test .* by Leuko's backbone"):
        compare(
            dataset, [recipe("cnn"), head], tmp_path / "out", options=RunOptions(weights="leuko")
        )
    assert trained == []
    assert not (tmp_path / "out").exists()


def test_what_a_start_has_seen_is_found(dataset: Path, learned: Callable[[int], None]) -> None:
    known = load_recipe("mobilenetv2")
    leuko = replace(known, model=replace(known.model, weights="leuko"))
    sets = {split: read_split(dataset, split) for split in ("train", "test")}
    pictures = Pictures(2)
    find = partial(find_starts, sets=sets, pictures=pictures, reporter=SILENT)
    learned(3)
    found = find({"cnn": recipe("cnn"), "leuko": leuko}, allow_seen=True)
    assert found["leuko"]["seen"] == {"train": [50, 50], "test": [3, 30]}
    assert found["cnn"] == {
        "told": "random weights", "weights": "random weights", "teacher": "", "fingerprints": False,
    }  # fmt: skip
    learned(0)  # Train alone is marked
    assert find({"leuko": leuko}, allow_seen=False)["leuko"]["seen"]["test"] == [0, 30]
    small = load_recipe("small")
    taught = replace(small, model=replace(small.model, weights="imagenet"))
    assert find({"taught": taught}, allow_seen=False)["taught"]["told"] == (
        "ImageNet, taught by default, which has learned Raabin-WBC Train (10,175 cells)"
    )


def test_an_image_is_opened_twice_before_the_first_batch(
    dataset: Path, elsewhere: Path, tmp_path: Path
) -> None:
    """Once to be hashed and once to be decoded, by weights that know data, audit and training."""
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("opens.py"), dataset, elsewhere, tmp_path / "o"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    opened = json.loads(done.stdout)
    assert len(opened) == 50 + 30 + 27
    assert set(opened) == {2}


def test_sets_have_names_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "Lab 1.2").mkdir()
    (tmp_path / "cells.csv").write_text("path,label\n")
    assert _set_name(tmp_path / "Lab 1.2") == "Lab 1.2"
    assert _set_name(tmp_path / "cells.csv") == "cells"
    taken: dict[str, Any] = {"test": None, "test-2": None}
    assert _unused("test", taken) == "test-3"
    assert _unused("validation", taken) == "validation-2"
    assert _unused("train", taken) == "train-2"
    assert _unused("lab", taken) == "lab"
