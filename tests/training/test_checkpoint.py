"""Where a run stands: whole, of one run, finite, and restored to the bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leuko.errors import DataError, TrainingError

keras = pytest.importorskip("keras", reason="needs the extra 'train'")

from leuko.training.checkpoint import (  # noqa: E402
    Checkpoint,
    Guard,
    RunFolder,
    all_variables,
    load_state,
    restore_variables,
)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

IDENTITY = {"recipe": "r1", "data": "d1"}


def network() -> Any:
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(4, kernel_initializer=keras.initializers.GlorotUniform(seed=1)),
            layers.BatchNormalization(),
            layers.Dropout(0.5, seed=3),
            layers.Dense(5, "softmax", kernel_initializer=keras.initializers.GlorotUniform(seed=2)),
        ]
    )
    model.compile(keras.optimizers.AdamW(1e-2), "categorical_crossentropy", metrics=["accuracy"])
    return model


def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    targets = np.eye(5, dtype=np.float32)[rng.integers(0, 5, 24)]
    return rng.normal(size=(24, 6)).astype(np.float32), targets


def checkpoint(folder: Path) -> Checkpoint:
    return Checkpoint(RunFolder(folder.parent, IDENTITY), [], None)


def fit(model: Any, callbacks: list[Any], epochs: int = 1) -> None:
    pixels, targets = data()
    model.fit(
        pixels, targets, batch_size=8, epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("run") / "last"
    model = network()
    fit(model, [Guard(folder.parent / ".fresh"), checkpoint(folder)], epochs=2)
    return folder, model


def test_everything_that_decides_what_comes_next_is_kept(saved: tuple[Path, Any]) -> None:
    folder, model = saved
    names = [v.path for v in all_variables(model)]
    assert any("seed_generator_state" in name for name in names)
    assert any("moving_variance" in name for name in names)
    assert any("learning_rate" in name for name in names)
    assert any("iteration" in name for name in names)
    assert any("momentum" in name for name in names)
    assert not any("accuracy" in name for name in names)
    other = network()
    fit(other, [], epochs=1)
    state = load_state(folder, IDENTITY)
    assert state is not None
    restore_variables(other, state)
    for one, two in zip(all_variables(model), all_variables(other), strict=True):
        assert np.array_equal(np.asarray(one), np.asarray(two)), one.path
    fit(model, [])
    fit(other, [])
    for one, two in zip(all_variables(model), all_variables(other), strict=True):
        assert np.array_equal(np.asarray(one), np.asarray(two)), one.path


def test_the_state_says_where_the_run_stands(saved: tuple[Path, Any]) -> None:
    folder, _ = saved
    document = json.loads((folder / "state.json").read_text())
    assert document["schema"] == "leuko.training/1"
    assert document["epoch"] == 2
    assert document["stopped"] is False
    assert [row["epoch"] for row in document["history"]] == [1.0, 2.0]
    assert set(document["history"][0]) == {"epoch", "loss", "accuracy"}
    assert sorted(path.name for path in folder.parent.iterdir()) == ["last"]


def test_no_finished_epoch_is_no_state(tmp_path: Path) -> None:
    assert load_state(tmp_path / "last", IDENTITY) is None


@pytest.mark.parametrize("name", ["recipe", "data"])
def test_another_run_is_refused(saved: tuple[Path, Any], name: str) -> None:
    with pytest.raises(TrainingError, match=f"begun with another {name}"):
        load_state(saved[0], {**IDENTITY, name: "other"})


def copy(saved: tuple[Path, Any], to: Path) -> Path:
    to.mkdir()
    for path in saved[0].iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return to


def test_damage_is_one_sentence(saved: tuple[Path, Any], tmp_path: Path) -> None:
    flipped = copy(saved, tmp_path / "flipped")
    content = bytearray((flipped / "variables.npz").read_bytes())
    content[200] ^= 1
    (flipped / "variables.npz").write_bytes(content)
    half = copy(saved, tmp_path / "half")
    (half / "state.json").write_text((half / "state.json").read_text()[:50])
    missing = copy(saved, tmp_path / "missing")
    (missing / "variables.npz").unlink()
    for folder in (flipped, half, missing):
        with pytest.raises(TrainingError, match="is damaged") as caught:
            load_state(folder, IDENTITY)
        assert "\n" not in str(caught.value)
        assert "another folder" in str(caught.value)


def test_a_newer_state_is_refused(saved: tuple[Path, Any], tmp_path: Path) -> None:
    folder = copy(saved, tmp_path / "newer")
    document = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps({**document, "schema": "leuko.training/2"}))
    with pytest.raises(DataError, match="newer Leuko"):
        load_state(folder, IDENTITY)


def test_a_checkpoint_set_aside_by_a_kill_is_found(saved: tuple[Path, Any], tmp_path: Path) -> None:
    copy(saved, tmp_path / ".leuko-last.old")
    state = load_state(tmp_path / "last", IDENTITY)
    assert state is not None
    assert state["epoch"] == 2


def test_the_best_weights_move_into_place_whole(tmp_path: Path) -> None:
    model = network()
    run = RunFolder(tmp_path, IDENTITY)
    fresh, best = run.fresh, run.best
    best.parent.mkdir()
    keeper = keras.callbacks.ModelCheckpoint(
        str(fresh), monitor="loss", save_best_only=True, save_weights_only=True
    )
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append((fresh.exists(), best.exists()))

    fit(model, [keeper, Watch(), Checkpoint(run, [], None)])
    assert seen == [(True, False)]
    assert not fresh.exists()
    other = keras.models.clone_model(model)
    other.load_weights(best)
    assert np.array_equal(other.get_weights()[0], model.get_weights()[0])


class Poison(keras.callbacks.Callback):
    """Puts one value that is no number into a weight when an epoch ends."""

    def on_epoch_end(self, epoch, logs=None):
        weights = self.model.get_weights()
        weights[0][0, 0] = np.nan
        self.model.set_weights(weights)


def test_weights_that_are_no_numbers_are_never_saved(tmp_path: Path) -> None:
    """Neither by Leuko nor by Keras's ModelCheckpoint, which comes later."""
    best = tmp_path / "best.weights.h5"
    keeper = keras.callbacks.ModelCheckpoint(str(best), monitor="loss", save_weights_only=True)
    with pytest.raises(TrainingError, match="no longer finite after epoch 1") as caught:
        fit(network(), [Poison(), Guard(best), keeper, checkpoint(tmp_path / "last")])
    assert "train.rate" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_is_no_number_stops_at_its_batch(tmp_path: Path) -> None:
    model = network()
    pixels, targets = data()
    pixels[8:16] = np.inf
    with pytest.raises(TrainingError, match="'loss' is nan in epoch 1, batch 2"):
        model.fit(
            pixels, targets, batch_size=8, shuffle=False, verbose=0,
            callbacks=[Guard(tmp_path / "x"), checkpoint(tmp_path / "last")],
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []
