"""Keras's fit and callbacks: stopped anywhere and continued, they end where they would have."""

from __future__ import annotations

import json
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leuko.errors import ImageError, OutputError, TrainingError
from leuko.imaging.decode import encode_png
from leuko.recipe import Recipe
from leuko.support.reporter import Reporter

keras = pytest.importorskip("keras", reason="needs the extra 'train'")

from leuko.training.checkpoint import RunFolder  # noqa: E402
from leuko.training.fit import (  # noqa: E402
    ArrayBatches,
    Feeds,
    _keras_callbacks,
    best_epoch,
    fit_model,
)
from leuko.training.pipeline import (  # noqa: E402
    Batches,
    PixelSource,
    evaluation_order,
    one_hot,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

IDENTITY = {"recipe": "r", "data": "d"}


@pytest.fixture(scope="module")
def recipe(tiny: Recipe) -> Recipe:
    """Waits of three epochs for stopping and of one for the rate."""
    train = replace(tiny.train, epochs=9, batch=8, rate=0.05, patience=3, plateau=1)
    return replace(tiny, train=train)


def network() -> Any:
    """A head that takes no time."""
    keras.backend.clear_session()  # as `build_model` does: files hold the names of layers
    seeded = keras.initializers.GlorotUniform(seed=1)
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.BatchNormalization(momentum=0.5),
            keras.layers.Dropout(0.3, seed=2),
            keras.layers.Dense(5, "softmax", kernel_initializer=seeded),
        ]
    )


def rows(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Features that tell a little about a class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, count)
    values = rng.normal(size=(count, 6)) + 0.6 * np.eye(5, 6)[labels]
    return values.astype(np.float32), np.eye(5, dtype=np.float32)[labels]


def fit(run: Path, recipe: Recipe, *, model: Any = None, **settings: Any) -> tuple[Any, list[Any]]:
    model = model or network()
    train, held = rows(0, 40), rows(1, 60)
    history = fit_model(
        model,
        recipe,
        Feeds(
            lambda epoch: ArrayBatches(*train, batch=8, seed=7, first_epoch=epoch),
            lambda _: ArrayBatches(*held, batch=64, seed=None),
        ),
        RunFolder(run, IDENTITY),
        **{"resume": False, **settings},
    )
    return model, history


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, recipe: Recipe
) -> tuple[Path, Any, list[dict[str, float]]]:
    run = tmp_path_factory.mktemp("undisturbed")
    return (run, *fit(run, recipe))


def test_callbacks_are_keras_own(recipe: Recipe, tmp_path: Path) -> None:
    keeper, stopper, plateau = _keras_callbacks(recipe, tmp_path / "{a}.weights.h5")
    assert type(keeper) is keras.callbacks.ModelCheckpoint
    assert type(stopper) is keras.callbacks.EarlyStopping
    assert type(plateau) is keras.callbacks.ReduceLROnPlateau
    assert keeper.save_best_only
    assert (stopper.monitor, stopper.patience) == ("val_loss", 3)
    assert (plateau.monitor, plateau.factor, plateau.patience) == ("val_loss", 0.5, 1)
    assert keeper._get_file_path(0, None, {}) == str(tmp_path / "{a}.weights.h5")
    last = replace(recipe, train=replace(recipe.train, monitor="none", patience=0, plateau=0))
    assert _keras_callbacks(last, tmp_path / "x.weights.h5") == []


def test_the_run_waits_halves_its_rate_and_keeps_the_best(
    undisturbed: tuple[Path, Any, list[dict[str, float]]], recipe: Recipe
) -> None:
    """Counted by hand from the losses, by the rules in Keras's manual."""
    run, model, history = undisturbed
    losses = [row["val_loss"] for row in history]
    best = int(np.argmin(losses))
    assert len(history) == min(recipe.train.epochs, best + 1 + 3)
    assert best_epoch(history, "val_loss") == best + 1
    rate, lowest, rates = 0.05, np.inf, []
    for loss in losses:
        rates.append(rate)
        if loss < lowest:
            lowest = loss
        else:
            rate /= 2
    assert [row["learning_rate"] for row in history] == pytest.approx(rates, rel=1e-6)
    assert min(rates) < 0.05
    values, targets = rows(1, 60)
    told = np.asarray(model(values, training=False))
    loss = -np.log(told[targets == 1]).mean()
    assert loss == pytest.approx(losses[best], rel=1e-5)
    assert sorted(p.name for p in (run / "best").iterdir()) == ["model.weights.h5"]


class Stop(Exception):
    """In place of a kill, at a chosen batch."""


@pytest.mark.parametrize("batch", [3, 13])
def test_stopped_and_continued_it_ends_the_same(
    undisturbed: tuple[Path, Any, list[dict[str, float]]],
    recipe: Recipe,
    tmp_path: Path,
    batch: int,
) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if done == batch:
            raise Stop

    with pytest.raises(Stop):
        fit(tmp_path, recipe, reporter=Reporter(stop))
    run, model, history = undisturbed
    again, continued = fit(tmp_path, recipe, resume=True)
    assert continued == history
    for one, two in zip(model.get_weights(), again.get_weights(), strict=True):
        assert np.array_equal(one, two)
    for name in ("last/state.json", "last/variables.npz", "best/model.weights.h5"):
        assert (tmp_path / name).read_bytes() == (run / name).read_bytes()


def test_counters_stand_in_the_state(
    undisturbed: tuple[Path, Any, list[dict[str, float]]],
) -> None:
    run, _, history = undisturbed
    keeper, stopper, plateau = json.loads((run / "last/state.json").read_text())["callbacks"]
    lowest = min(row["val_loss"] for row in history)
    assert keeper["best"] == stopper["best"] == plateau["best"] == lowest
    assert stopper["wait"] == 3
    assert stopper["best_epoch"] == best_epoch(history, "val_loss") - 1


def test_a_run_that_stopped_early_trains_no_more(
    undisturbed: tuple[Path, Any, list[dict[str, float]]], recipe: Recipe
) -> None:
    run, model, history = undisturbed
    assert len(history) < recipe.train.epochs

    def never(stage: str, done: int, total: int) -> None:
        raise AssertionError

    again, same = fit(run, recipe, resume=True, reporter=Reporter(never))
    assert same == history
    assert np.array_equal(again.get_weights()[0], model.get_weights()[0])


def test_without_a_monitor_the_last_weights_stay(recipe: Recipe, tmp_path: Path) -> None:
    plain = replace(
        recipe, train=replace(recipe.train, monitor="none", patience=0, plateau=0, epochs=2)
    )
    _, history = fit(tmp_path, plain)
    assert best_epoch(history, "none") == 2
    assert [len(history), list((tmp_path / "best").iterdir())] == [2, []]


def test_a_rate_far_too_high_ends_with_a_sentence(recipe: Recipe, tmp_path: Path) -> None:
    """Linear units without end: their values leave what float32 can hold."""
    model = keras.Sequential(
        [
            keras.Input((6,)),
            *(keras.layers.Dense(64) for _ in range(8)),
            keras.layers.Dense(5, "softmax"),
        ]
    )
    wild = replace(recipe, train=replace(recipe.train, rate=10.0, epochs=20))
    with pytest.raises(TrainingError, match=r"is (nan|-?inf)|no longer finite") as caught:
        fit(tmp_path, wild, model=model)
    assert "Lower train.rate" in str(caught.value)
    for path in tmp_path.rglob("*.npz"):
        with np.load(path) as arrays:
            assert all(np.isfinite(arrays[name]).all() for name in arrays.files)
    for path in tmp_path.rglob("*.h5"):
        model.load_weights(path)
        assert all(np.isfinite(weight).all() for weight in model.get_weights())


def test_a_full_disk_keeps_what_was_finished(
    undisturbed: tuple[Path, Any, list[dict[str, float]]], recipe: Recipe, tmp_path: Path
) -> None:
    run, _, history = undisturbed
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(stage: str, done: int, total: int) -> None:
        if done == 6:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1500, hard))

    try:
        with pytest.raises(OutputError, match="cannot be written"):
            fit(tmp_path, recipe, reporter=Reporter(fill))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    names = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file())
    assert names == ["best/model.weights.h5", "last/state.json", "last/variables.npz"]
    network().load_weights(tmp_path / "best/model.weights.h5")
    assert fit(tmp_path, recipe, resume=True)[1] == history
    assert (tmp_path / names[0]).read_bytes() == (run / names[0]).read_bytes()


def test_best_weights_that_are_gone_are_one_sentence(recipe: Recipe, tmp_path: Path) -> None:
    short = replace(recipe, train=replace(recipe.train, epochs=1))
    fit(tmp_path, short)
    (tmp_path / "best/model.weights.h5").write_bytes(b"half")
    with pytest.raises(TrainingError, match="cannot be read"):
        fit(tmp_path, short, resume=True)


def test_a_picture_that_vanished_is_named_not_traced(tiny: Recipe, tmp_path: Path) -> None:
    files = [tmp_path / f"{i}.png" for i in range(8)]
    for file in files[:-1]:
        file.write_bytes(encode_png(np.full((32, 32, 3), 9, np.uint8)))
    source = PixelSource(files, tiny.preprocess, tiny.augment, 0)
    labels = np.arange(8) % 5

    def batches(_: int) -> Batches:
        return Batches(source, one_hot(labels, 5), evaluation_order(8), batch=2)

    model = keras.Sequential(
        [keras.Input((64, 64, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(5)]
    )
    with pytest.raises(ImageError):
        fit_model(
            model, tiny, Feeds(batches, batches), RunFolder(tmp_path / "run", IDENTITY),
            resume=False,
        )  # fmt: skip


def test_arrays_come_in_the_order_of_their_epoch() -> None:
    values, targets = rows(0, 10)
    feed = ArrayBatches(values, targets, batch=4, seed=1)
    assert feed.num_batches == 3
    first = np.concatenate([feed[i][0] for i in range(3)])
    assert not np.array_equal(first, values)
    assert np.array_equal(np.sort(first, axis=0), np.sort(values, axis=0))
    feed.on_epoch_end()
    second = np.concatenate([feed[i][0] for i in range(3)])
    later = ArrayBatches(values, targets, batch=4, seed=1, first_epoch=1)
    assert np.array_equal(second, np.concatenate([later[i][0] for i in range(3)]))
    plain = ArrayBatches(values, targets, batch=4, seed=None)
    assert np.array_equal(np.concatenate([plain[i][0] for i in range(3)]), values)
