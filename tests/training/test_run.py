"""A whole training: its files, its seed, and every way in which it may be stopped or refused."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import leuko
from five import CLASSES
from leuko.architectures import ARCHITECTURES
from leuko.bundle import ModelBundle
from leuko.data.reading import read_split
from leuko.errors import DataError, LeukoError, TrainingError
from leuko.manifest import Manifest
from leuko.recipe import AugmentSettings, DataSettings, Recipe, load_recipe
from leuko.runtime.classifier import OnnxClassifier
from leuko.runtime.trust.calibrate import without_trust
from leuko.runtime.trust.decide import NEVER_CHECKED, Trust
from leuko.support.reporter import Reporter

keras = pytest.importorskip("keras", reason="needs the extra 'train'")

from leuko.training import architectures, features  # noqa: E402
from leuko.training import run as run_module  # noqa: E402
from leuko.training.run import RunOptions, train  # noqa: E402
from training.killed import use_small_networks  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

Digests = Callable[[Path], dict[str, str]]

CNN = ARCHITECTURES["cnn"]
POINTS = ("in_epoch_two", "in_model_checkpoint", "between_renames", "in_export")
FILES = {
    "recipe.toml", "manifest.json", "history.csv", "environment.json", "curves.png",
    "last/state.json", "last/variables.npz", "best/model.weights.h5", "model.keras",
    "bundle/bundle.json", "bundle/model.onnx", "bundle/goldens.npz", "bundle/card.md",
    "validation.json",
}  # fmt: skip
"""The run folder of the interfaces, and the evaluation of the validation rows."""


def environment() -> dict[str, str]:
    paths = [str(Path(leuko.__file__).parents[1]), str(Path(__file__).parent)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "TF_CPP_MIN_LOG_LEVEL": "3"}


@pytest.fixture(scope="module", autouse=True)
def small_networks() -> Iterator[None]:
    """Networks of three layers, with features in shards of sixteen."""
    with pytest.MonkeyPatch.context() as patch:
        use_small_networks(patch.setitem)
        patch.setattr(features, "_SHARD", 16)
        yield


class Runs:
    """Undisturbed runs of both recipes, and folders where the same runs were killed."""

    def __init__(self, base: Path, dataset: Path, recipes: dict[str, Recipe]) -> None:
        self.base, self.dataset, self.recipes = base, dataset, recipes
        self.ended: dict[str, int] = {}
        self.said: list[str] = []

    def recipe(self, point: str) -> Recipe:
        return self.recipes["head" if point == "in_features" else "tiny"]

    def resume(self, point: str) -> Any:
        recipe, cache = self.recipe(point), self.base / f"{point}-cache"
        return train(
            self.dataset, recipe, self.base / point, options=RunOptions(resume=True, cache=cache)
        )


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory,
    small_networks: None,
    drawn: Path,
    tiny: Recipe,
    tiny_head: Recipe,
) -> Runs:
    base = tmp_path_factory.mktemp("runs")
    found = Runs(base, drawn, {"tiny": tiny, "head": tiny_head})
    for name, recipe in found.recipes.items():
        (base / f"{name}.toml").write_text(recipe.to_toml())
    jobs = []
    for point in (*POINTS, "in_features"):
        recipe = base / ("head.toml" if point == "in_features" else "tiny.toml")
        jobs.append([point, str(recipe), str(base / point), str(base / f"{point}-cache")])
    program = [sys.executable, str(Path(__file__).with_name("killed.py")), str(drawn)]
    with subprocess.Popen(
        [*program, json.dumps(jobs)], env=environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        train(
            drawn,
            tiny,
            base / "tiny",
            options=RunOptions(command="leuko train"),
            reporter=Reporter(say=found.said.append),
        )
        train(drawn, tiny_head, base / "head", options=RunOptions(cache=base / "cache"))
        told, _ = process.communicate(timeout=280)
    found.ended = dict(json.loads(line) for line in told.splitlines())
    return found


def names(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", ["tiny", "head"])
def test_a_run_folder_holds_what_was_promised(runs: Runs, name: str) -> None:
    assert names(runs.base / name) == FILES
    assert {p.name for p in (runs.base / name).iterdir() if p.is_dir()} == {
        "last", "best", "bundle",
    }  # fmt: skip


def test_the_files_say_what_happened(runs: Runs, tiny: Recipe) -> None:
    run = runs.base / "tiny"
    assert load_recipe(run / "recipe.toml") == tiny
    rows = Manifest.load(run / "manifest.json")
    assert len(rows) == 60
    sides = {side: {s.slide for s in rows.samples if s.split == side} for side in
             ("train", "validation")}  # fmt: skip
    assert sides["train"]
    assert sides["validation"]
    assert not sides["train"] & sides["validation"]
    history = (run / "history.csv").read_text().splitlines()
    assert history[0] == "epoch,accuracy,loss,val_accuracy,val_loss,learning_rate"
    assert len(history) == 5
    validation = json.loads((run / "validation.json").read_text())
    assert validation["n"] == sum(s.split == "validation" for s in rows.samples)
    times = json.loads((run / "environment.json").read_text())
    assert times["command"] == "leuko train"
    assert set(times["seconds"]) == {"data", "build", "fit", "export"}
    bundle = ModelBundle.load(run)
    assert bundle.provenance["epochs"] == 4
    best = min(range(4), key=lambda i: float(history[1:][i].split(",")[4]))
    assert bundle.provenance["best_epoch"] == best + 1
    assert bundle.provenance["source_digest"] == read_split(runs.dataset, "train").digest
    for name in ("manifest.json", "validation.json", "environment.json", "last/state.json"):
        assert json.loads((run / name).read_text())["schema"].startswith("leuko.")


def test_the_bundle_answers_as_keras_does(runs: Runs, tiny: Recipe) -> None:
    run = runs.base / "tiny"
    model = keras.saving.load_model(run / "model.keras")
    rows = Manifest.load(run / "manifest.json")
    pixels = np.stack(
        [
            tiny.preprocess.apply(leuko.imaging.decode.read_image(f).pixels)
            for f in rows.files()[:20]
        ]
    )
    bundle = ModelBundle.load(run)
    assert bundle.calibration["method"] == "temperature"
    assert bundle.validation["trust"]["n"] == bundle.validation["n"]
    told = OnnxClassifier(without_trust(bundle)).predict_views(pixels)
    np.testing.assert_allclose(
        told, np.asarray(model(pixels.astype(np.float32), training=False)), atol=1e-5
    )


@pytest.mark.parametrize("point", [*POINTS, "in_features"])
def test_killed_and_resumed_is_identical_to_the_bit(
    runs: Runs, digests: Digests, point: str
) -> None:
    assert runs.ended[point] == -signal.SIGKILL
    before = names(runs.base / point)
    if point == "in_features":
        cached = sorted((runs.base / f"{point}-cache").rglob("*.npz"))
        assert [path.name for path in cached] == ["00000.npz"]
        first = cached[0].stat().st_mtime_ns
    elif point == "in_model_checkpoint":
        assert {"best/.leuko-model.weights.h5", "best/model.weights.h5"} <= before
    elif point == "between_renames":
        assert ".leuko-last.old/state.json" in before
        assert "last/state.json" not in before
    elif point == "in_export":
        assert ".leuko-model.keras" in before
    assert "bundle/bundle.json" not in before
    runs.resume(point)
    wanted = digests(runs.base / ("head" if point == "in_features" else "tiny"))
    assert digests(runs.base / point) == wanted
    if point == "in_features":
        assert cached[0].stat().st_mtime_ns == first


@pytest.mark.usefixtures("heard_ctrl_c")
def test_ctrl_c_ends_with_130_and_resume_finishes(runs: Runs, digests: Digests) -> None:
    out = runs.base / "interrupted"
    program = "import killed; killed.use_small_networks(); from leuko.cli.main import main; main()"
    with subprocess.Popen(
        [
            sys.executable, "-c", program, "train", str(runs.dataset), "--recipe",
            str(runs.base / "tiny.toml"), "--out", str(out), "--workers", "2",
        ],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        until = time.monotonic() + 120
        while not (out / "recipe.toml").exists() and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert stdout == ""
    assert "Interrupted" in stderr
    assert "Traceback" not in stderr
    assert not (out / "bundle").exists()
    train(runs.dataset, runs.recipes["tiny"], out, options=RunOptions(resume=True))
    assert digests(out) == digests(runs.base / "tiny")


def test_a_finished_run_is_opened(runs: Runs, digests: Digests) -> None:
    before = digests(runs.base / "tiny")
    said: list[str] = []
    again = train(
        runs.dataset,
        runs.recipes["tiny"],
        runs.base / "tiny",
        options=RunOptions(resume=True),
        reporter=Reporter(say=said.append),
    )
    assert said == [f"{runs.base / 'tiny'} is finished."]
    assert len(again.history) == 4
    assert again.validation["n"] > 0
    assert set(again.seconds) == {"data", "build", "fit", "export"}
    assert digests(runs.base / "tiny") == before


def test_a_run_is_never_continued_as_another(runs: Runs, digests: Digests, tmp_path: Path) -> None:
    recipe, before = runs.recipes["tiny"], digests(runs.base / "tiny")
    faster = replace(recipe, train=replace(recipe.train, rate=2e-2))
    with pytest.raises(TrainingError, match="already holds a run"):
        train(runs.dataset, recipe, runs.base / "tiny")
    for other in (faster, recipe.with_seed(9)):
        with pytest.raises(TrainingError, match="another recipe, seed or weights"):
            train(runs.dataset, other, runs.base / "tiny", options=RunOptions(resume=True))
    fewer = read_split(runs.dataset, "train").subset(range(55), split="train")
    with pytest.raises(TrainingError, match="other data"):
        train(fewer, recipe, runs.base / "tiny", options=RunOptions(resume=True))
    assert digests(runs.base / "tiny") == before
    # The same for a run that was stopped before its end.
    unfinished = tmp_path / "unfinished"
    shutil.copytree(runs.base / "tiny", unfinished)
    shutil.rmtree(unfinished / "bundle")
    before = digests(unfinished)
    with pytest.raises(TrainingError, match="other data"):
        train(fewer, recipe, unfinished, options=RunOptions(resume=True))
    assert digests(unfinished) == before


def test_folders_of_others_are_refused(runs: Runs, tmp_path: Path) -> None:
    (tmp_path / "diary.txt").write_text("mine")
    with pytest.raises(TrainingError, match="not empty and holds no run"):
        train(runs.dataset, runs.recipes["tiny"], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["diary.txt"]
    with pytest.raises(TrainingError, match="is a file"):
        train(runs.dataset, runs.recipes["tiny"], tmp_path / "diary.txt")


def test_rows_that_cannot_be_trained_on_are_refused(runs: Runs, tmp_path: Path) -> None:
    recipe, rows = runs.recipes["tiny"], read_split(runs.dataset, "train")
    out = tmp_path / "run"
    with pytest.raises(DataError, match="no image of Monocyte"):
        train(rows.subset(np.flatnonzero(rows.labels != 3)), recipe, out)
    with pytest.raises(DataError, match="no image of Basophil, Eosinophil, Lymphocyte, Monocyte"):
        train(rows.subset(np.flatnonzero(rows.labels == 4)), recipe, out)
    with pytest.raises(DataError, match="test rows"):
        train(read_split(runs.dataset, "test"), recipe, out)
    with pytest.raises(DataError, match="is the test folder"):
        train(runs.dataset / "Test", recipe, out)
    held = runs.dataset / "held.csv"
    held.write_text(
        "path,label\n"
        + "".join(f"Test/{s.path},{CLASSES[s.label]}\n"
                  for s in read_split(runs.dataset, "test").samples)
    )  # fmt: skip
    with pytest.raises(DataError, match="is the test folder"):
        train(held, recipe, out)
    held.unlink()
    one = [i for i, slide in enumerate(rows.slides) if slide == rows.slides[0]]
    some = {int(label): i for i, label in enumerate(rows.labels)}
    alone = rows.subset([*one, *some.values()])
    same = replace(alone, samples=tuple(replace(s, slide="A") for s in alone.samples))
    assert not out.exists()
    with pytest.raises(DataError, match="one slide"):
        train(same, recipe, out)
    assert {path.name for path in out.iterdir()} == {"environment.json"}


def test_a_csv_may_stand_for_the_training_folder(runs: Runs, tmp_path: Path) -> None:
    rows = read_split(runs.dataset, "train")
    table = tmp_path / "labels.csv"
    lines = [f"{file},{CLASSES[label]},{slide}\n" for file, label, slide in
             zip(rows.files(), rows.labels, rows.slides, strict=True)]  # fmt: skip
    table.write_text("path,label,slide\n" + "".join(lines))
    tiny = runs.recipes["tiny"]
    recipe = replace(tiny, train=replace(tiny.train, epochs=1, steps=1))
    said: list[str] = []
    done = train(table, recipe, tmp_path / "run", reporter=Reporter(say=said.append))
    saved = Manifest.load(tmp_path / "run" / "manifest.json")
    assert sorted(s.sha256 for s in saved.samples) == sorted(s.sha256 for s in rows.samples)
    assert {s.slide for s in saved.samples} == set(rows.slides)
    assert done.bundle.provenance["training_images"] > 0


def test_what_is_passed_over_is_said_and_kept(runs: Runs, tmp_path: Path) -> None:
    shutil.copytree(runs.dataset, tmp_path / "set")
    (tmp_path / "set" / "Train" / "Basophil" / "gone.png").symlink_to("nowhere")
    tiny = runs.recipes["tiny"]
    recipe = replace(tiny, train=replace(tiny.train, epochs=1, steps=1))
    said: list[str] = []
    train(tmp_path / "set", recipe, tmp_path / "run", reporter=Reporter(say=said.append))
    note = "Basophil/gone.png is a dangling link (No such file or directory); passed over."
    assert note in said
    assert note in Manifest.load(tmp_path / "run" / "manifest.json").notes
    shutil.rmtree(tmp_path / "set" / "Train" / "Basophil")
    (tmp_path / "set" / "Train" / "Basophil").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"no image of Basophil.* Basophil is a dangling link"):
        train(tmp_path / "set", recipe, tmp_path / "other")


def test_weights_are_never_ignored_in_silence(runs: Runs, tmp_path: Path) -> None:
    said: list[str] = []
    rows = read_split(runs.dataset, "train")
    broken = rows.subset(np.flatnonzero(rows.labels != 0))
    with pytest.raises(DataError):
        train(
            broken,
            runs.recipes["tiny"],
            tmp_path / "run",
            options=RunOptions(weights="leuko"),
            reporter=Reporter(say=said.append),
        )
    assert said == ["tiny has no backbone, so the weights leuko are not used for it."]
    with pytest.raises(TrainingError, match=r"none\.h5 does not exist"):
        train(
            rows,
            runs.recipes["head"],
            tmp_path / "head",
            options=RunOptions(weights=str(tmp_path / "none.h5")),
        )


def test_a_folder_serves_again_where_weights_were_missing_and_an_h5_may_be_asked_for_later(
    runs: Runs, tmp_path: Path
) -> None:
    recipe, out = runs.recipes["head"], tmp_path / "head"
    with pytest.raises(TrainingError, match=r"none\.h5 does not exist"):
        train(runs.dataset, recipe, out, options=RunOptions(weights=str(tmp_path / "none.h5")))
    assert {path.name for path in out.iterdir()} == {"environment.json"}
    train(runs.dataset, recipe, out, options=RunOptions(cache=tmp_path / "cache"))
    assert not (out / "model.h5").exists()
    train(runs.dataset, recipe, out, options=RunOptions(resume=True, save_h5=True))
    loaded = keras.saving.load_model(out / "model.h5", compile=False)
    assert loaded.count_params() == ModelBundle.load(out / "bundle").parameters


def test_tensorboard_is_asked_for_before_anything_is_done(runs: Runs, tmp_path: Path) -> None:
    if importlib.util.find_spec("tensorboard") is not None:
        pytest.skip("TensorBoard is installed here")
    with pytest.raises(TrainingError, match="pip install tensorboard"):
        train(
            runs.dataset,
            runs.recipes["tiny"],
            tmp_path / "run",
            options=RunOptions(tensorboard=True),
        )
    assert not (tmp_path / "run").exists()


def test_unusable_images_are_named_and_left_out(
    runs: Runs, tmp_path: Path, tiny_head: Recipe
) -> None:
    dataset = tmp_path / "Dataset"
    shutil.copytree(runs.dataset / "Train", dataset / "Train")
    whole = next((dataset / "Train" / "Neutrophil").iterdir()).read_bytes()
    bad = {"S09_1_1.jpg": b"", "S09_2_1.jpg": whole[:700], "S09_3_1.jpg": b"%!PS-Adobe-3.0 EPSF"}
    for name, content in bad.items():
        (dataset / "Train" / "Neutrophil" / name).write_bytes(content)
    said: list[str] = []
    steps: list[tuple[str, int, int]] = []
    options = RunOptions(cache=tmp_path / "cache", save_h5=True)
    done = train(
        dataset, tiny_head, tmp_path / "run", options=options,
        reporter=Reporter(lambda *step: steps.append(step), said.append),
    )  # fmt: skip
    for name, reason in zip(bad, ("empty-file", "truncated", ""), strict=True):
        assert any(f"Neutrophil/{name}" in line and reason in line for line in said), said
    assert "3 of 63 images were rejected." in said
    assert len(Manifest.load(tmp_path / "run" / "manifest.json")) == 60
    assert names(tmp_path / "run") == FILES | {"model.h5"}
    loaded = keras.saving.load_model(tmp_path / "run" / "model.h5", compile=False)
    assert loaded.count_params() == done.bundle.parameters
    stages = list(dict.fromkeys(step[0] for step in steps))
    assert stages == [
        "looking at images", "training features", "validation features", "training",
        "calibrating", "validating",
    ]  # fmt: skip
    assert all(0 < count <= total for _, count, total in steps)


def test_the_published_way_balances_files_and_splits_them_at_random(
    runs: Runs, tmp_path: Path, tiny: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ARCHITECTURES, "cnn", CNN)
    recipe = replace(
        tiny,
        data=DataSettings(split="random-file", balance="files", validation=0.2),
        augment=AugmentSettings("none"),
        train=replace(tiny.train, epochs=1, batch=32, steps=0),
    )
    said: list[str] = []
    first = train(runs.dataset, recipe, tmp_path / "a", reporter=Reporter(say=said.append))
    assert any("reads too high" in line for line in said)
    assert any(NEVER_CHECKED in line for line in said)
    assert NEVER_CHECKED in first.bundle.card
    assert not Trust.of(first.bundle).accepts
    largest = max(read_split(runs.dataset, "train").counts)
    rows = Manifest.load(tmp_path / "a" / "manifest.json")
    assert rows.counts.tolist() == [largest] * 5
    held = [s for s in rows.samples if s.split == "validation"]
    assert len(held) == int(5 * largest * 0.2)
    assert rows.root == Path("Balanced_Train")
    assert (tmp_path / "a" / "Balanced_Train" / held[0].path).is_file()
    assert names(tmp_path / "a") - FILES == {
        "Balanced_Train/balance.json", *(f"Balanced_Train/{s.path}" for s in rows.samples),
    }  # fmt: skip
    assert set(first.seconds) == {"data", "balance", "build", "fit", "export"}
    assert "read too high" in first.bundle.card


def test_what_learned_nothing_says_so(runs: Runs, tiny: Recipe, tmp_path: Path) -> None:
    """Trained for a step, it names one class for everything: nothing of that is accepted."""
    few = replace(tiny, train=replace(tiny.train, epochs=1, steps=1, rate=1e-6))
    said: list[str] = []
    run = train(runs.dataset, few, tmp_path / "run", reporter=Reporter(say=said.append))
    assert run.validation["metrics"]["balanced_accuracy"]["value"] == pytest.approx(0.2, abs=0.06)
    told = [line for line in said if line.startswith("No better than always answering")]
    assert len(told) == 1
    assert f"**{told[0]}**" in run.bundle.card
    assert told[0] in run.validation["warnings"]
    rows = OnnxClassifier(run.bundle).predict(read_split(runs.dataset, "test").files()).rows
    assert {row.reason for row in rows if row.decision == "unsure"} == {"unproven"}
    assert {row.decision for row in rows} <= {"unsure", "unlike-training", "not-a-cell"}


def test_saved_models_hold_no_address_and_no_date(runs: Runs) -> None:
    with zipfile.ZipFile(runs.base / "tiny" / "model.keras") as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        config = archive.read("config.json").decode()
    shared = [part.split(",")[0].split("}")[0] for part in config.split('"shared_object_id": ')[1:]]
    assert {int(number) for number in shared} == set(range(1, len(set(shared)) + 1))
    for path in (runs.base / "tiny").rglob("*"):
        if path.is_file() and path.name != "manifest.json":
            assert str(runs.base).encode() not in path.read_bytes(), path.name


def test_a_teacher_is_learned_from_and_named(runs: Runs, tiny: Recipe, tmp_path: Path) -> None:
    """With nothing but its probabilities to learn, the targets are those probabilities."""
    master = runs.base / "tiny"
    model = ModelBundle.load(master)
    learned: list[np.ndarray] = []
    plain = run_module.Batches

    class Recorded(plain):
        def __init__(self, source: Any, targets: np.ndarray, *rest: Any, **more: Any) -> None:
            learned.append(targets)
            super().__init__(source, targets, *rest, **more)

    settings = replace(
        tiny.train, teacher=str(master), imitation=0.75, epochs=1, monitor="none", patience=0
    )
    recipe = replace(tiny, name="pupil", train=settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "Batches", Recorded)
        pupil = train(runs.dataset, recipe, tmp_path / "pupil")
    rows = Manifest.load(tmp_path / "pupil" / "manifest.json")
    kept = rows.subset([i for i, sample in enumerate(rows.samples) if sample.split == "train"])
    told = OnnxClassifier(model).predict(kept.files()).probabilities
    wanted = 0.75 * told + 0.25 * np.eye(5)[kept.labels]
    np.testing.assert_allclose(learned[0], wanted, atol=1e-6)
    np.testing.assert_array_equal(learned[1].sum(axis=1), 1)
    assert pupil.bundle.provenance["teacher"] == model.digest
    # A teacher's folder is nobody's business; its digest says which it was.
    assert pupil.bundle.provenance["recipe"]["train"]["teacher"] == master.name
    assert f"Taught by {master.name}, digest `{model.digest[:16]}`" in pupil.bundle.card
    assert str(master) not in pupil.bundle.card


def test_a_narrow_network_is_shown_draws_of_its_own_training(
    runs: Runs, tiny: Recipe, tmp_path: Path
) -> None:
    shown: list[np.ndarray] = []

    def narrowed(wide: Any, thin: Any, pixels: np.ndarray, rng: Any) -> float:
        shown.append(pixels)
        return 0.734

    model = replace(tiny.model, architecture="mobilenetv2", weights="leuko", width=0.5)
    settings = replace(tiny.train, epochs=1, monitor="none", patience=0)
    recipe = replace(tiny, name="narrow", model=model, train=settings)
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(architectures, "_wide_backbone", lambda recipe: None)
        patch.setattr(architectures, "prune_channels", narrowed)
        made = train(runs.dataset, recipe, tmp_path / "narrow", reporter=Reporter(say=said.append))
    draws = recipe.train.steps * recipe.train.batch
    assert shown[0].shape == (draws, 64, 64, 3)
    assert 0 <= shown[0].min() < shown[0].max() <= 1
    assert any("73% of the variance" in line for line in said)
    assert made.seconds["build"] > 0
    assert "Initial weights: Leuko's backbone, narrowed by least squares, which" in made.bundle.card
    assert made.bundle.provenance["start"]["seen"] == 0
    assert "head start" not in made.bundle.card


def test_a_run_is_not_continued_with_another_teacher(
    runs: Runs, tiny: Recipe, tmp_path: Path
) -> None:
    settings = replace(tiny.train, teacher=str(tmp_path / "teacher"), epochs=1, monitor="none",
                       patience=0)  # fmt: skip
    recipe = replace(tiny, name="pupil", train=settings)
    with pytest.raises(LeukoError, match="teacher"):
        train(runs.dataset, recipe, tmp_path / "pupil")
    shutil.copytree(runs.base / "tiny" / "bundle", tmp_path / "teacher")
    train(runs.dataset, recipe, tmp_path / "pupil")
    shutil.rmtree(tmp_path / "teacher")
    shutil.copytree(runs.base / "head" / "bundle", tmp_path / "teacher")
    shutil.rmtree(tmp_path / "pupil" / "bundle")
    with pytest.raises(TrainingError, match="another"):
        train(runs.dataset, recipe, tmp_path / "pupil", options=RunOptions(resume=True))
