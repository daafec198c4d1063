"""Which image stands where, how often, and that nothing but seed and epoch decides it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from leuko.data.reading import read_split
from leuko.errors import ImageError
from leuko.imaging.decode import decode_image, encode_jpeg, encode_png, read_image
from leuko.imaging.preprocess import PreprocessSpec
from leuko.recipe import AugmentSettings, DataSettings, Recipe

keras = pytest.importorskip("keras", reason="needs the extra 'train'")

from leuko.training.pipeline import (  # noqa: E402
    Batches,
    PixelSource,
    evaluation_order,
    fixed_plan,
    one_hot,
    pixel_source,
    training_order,
)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

COUNTS = (4, 16, 64, 16, 256)
LABELS = np.repeat(np.arange(5), COUNTS)


def ordered(tiny: Recipe, balance: str, *, seed: int = 3, steps: int = 4, **data: float) -> Recipe:
    settings = DataSettings(balance=balance, **data)
    return replace(tiny, seed=seed, data=settings, train=replace(tiny.train, steps=steps))


@pytest.mark.parametrize(
    ("evenness", "weights"),
    [(1.0, (1, 1, 1, 1, 1)), (0.5, (2, 4, 8, 4, 16)), (0.0, COUNTS)],
)
def test_classes_come_as_often_as_evenness_says(
    tiny: Recipe, evenness: float, weights: tuple[int, ...]
) -> None:
    order = training_order(ordered(tiny, "sampled", evenness=evenness, steps=2500), LABELS)
    rows = order(0)
    assert rows.shape == (2500 * 8, 2)
    shares = np.bincount(LABELS[rows[:, 0]], minlength=5) / len(rows)
    wanted = np.array(weights) / sum(weights)
    assert np.abs(shares - wanted).max() < 4 * np.sqrt(0.25 / len(rows))
    within = np.bincount(rows[:, 0], minlength=len(LABELS))[LABELS == 0]
    assert within.max() < 1.3 * within.mean()


def test_no_slide_stands_for_its_class_when_slides_are_even(tiny: Recipe) -> None:
    labels = np.array([0] * 16 + [1] * 20)
    slides = ["a"] * 12 + ["b"] * 3 + [""] + ["a"] * 10 + ["c"] * 10
    recipe = ordered(tiny, "sampled", evenness=1.0, slide_evenness=1.0, steps=2500)
    drawn = training_order(recipe, labels, slides)(0)[:, 0]
    shares = Counter((int(labels[row]), slides[row]) for row in drawn)
    for (label, _), count in shares.items():
        groups = {0: 3, 1: 2}[label]
        assert count / len(drawn) == pytest.approx(1 / 2 / groups, abs=0.015)


def test_without_steps_as_many_are_drawn_as_there_are_rows(tiny: Recipe) -> None:
    rows = training_order(ordered(tiny, "sampled", steps=0), LABELS)(1)
    assert len(rows) == 8 * -(-len(LABELS) // 8)
    assert rows[0, 1] == len(rows)  # the second epoch goes on with fresh draws


def test_a_missing_class_is_never_sampled(tiny: Recipe) -> None:
    labels = LABELS[LABELS != 2]
    rows = training_order(ordered(tiny, "sampled", evenness=1.0, steps=100), labels)(0)
    shares = np.bincount(labels[rows[:, 0]], minlength=5) / len(rows)
    assert shares[2] == 0
    assert shares[[0, 1, 3, 4]] == pytest.approx([0.25] * 4, abs=0.08)


@pytest.mark.parametrize("balance", ["sampled", "fixed", "none"])
def test_seed_and_epoch_decide_the_order(tiny: Recipe, balance: str) -> None:
    order = training_order(ordered(tiny, balance), LABELS)
    again = training_order(ordered(tiny, balance), LABELS)
    other = training_order(ordered(tiny, balance, seed=4), LABELS)
    assert np.array_equal(order(5), again(5))
    assert np.array_equal(order(0), again(0))
    assert not np.array_equal(order(0), order(1))
    assert not np.array_equal(order(0), other(0))


def test_no_variation_is_drawn_twice(tiny: Recipe) -> None:
    order = training_order(ordered(tiny, "sampled"), LABELS)
    draws = np.concatenate([order(epoch)[:, 1] for epoch in range(4)])
    assert sorted(draws) == list(range(4 * 4 * 8))


@pytest.mark.parametrize(("per_class", "size"), [(0, 256), (10, 10)])
def test_a_fixed_plan_is_balanced_and_begins_with_originals(per_class: int, size: int) -> None:
    plan = fixed_plan(LABELS, seed=1, per_class=per_class)
    assert np.bincount(LABELS[plan[:, 0]]).tolist() == [size] * 5
    assert len({tuple(row) for row in plan}) == len(plan)
    shown = Counter(plan[:, 0].tolist())
    for image, times in shown.items():
        assert plan[plan[:, 0] == image, 1].tolist() == list(range(-1, times - 1))
    for label in range(5):
        often = [shown[i] for i in np.flatnonzero(label == LABELS) if shown[i]]
        assert max(often) - min(often) <= 1
    assert np.array_equal(plan, fixed_plan(LABELS, seed=1, per_class=per_class))


def test_epochs_shuffle_one_fixed_plan(tiny: Recipe) -> None:
    recipe = ordered(tiny, "fixed", per_class=12)
    order = training_order(recipe, LABELS)
    plan = fixed_plan(LABELS, seed=recipe.seed, per_class=12)
    for epoch in range(3):
        rows = order(epoch)
        assert np.array_equal(rows[np.lexsort((rows[:, 1], rows[:, 0]))], plan)


def test_unbalanced_training_shows_every_original_once(tiny: Recipe) -> None:
    rows = training_order(ordered(tiny, "none"), LABELS)(2)
    assert sorted(rows[:, 0]) == list(range(len(LABELS)))
    assert set(rows[:, 1]) == {2}  # varied, in every epoch in another way
    as_they_are = replace(ordered(tiny, "none"), augment=AugmentSettings("none"))
    assert set(training_order(as_they_are, LABELS)(2)[:, 1]) == {-1}
    assert evaluation_order(3)(7).tolist() == [[0, -1], [1, -1], [2, -1]]


def test_pixels_follow_from_image_and_draw_alone(drawn: Path, tiny: Recipe) -> None:
    source = pixel_source(read_split(drawn, "train"), tiny)
    plain = read_image(source.files[3]).pixels
    assert np.array_equal(source(3, -1), tiny.preprocess.apply(plain))
    first, other = source(3, 12), source(3, 13)
    source(4, 12)
    assert np.array_equal(source(3, 12), first)
    assert not np.array_equal(first, other)
    assert not np.array_equal(replace(source, seed=2)(3, 12), first)


class Recorder:
    """A source whose pictures are blank and whose calls are kept."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []
        self._lock = threading.Lock()

    def __call__(self, image: int, draw: int) -> np.ndarray:
        with self._lock:
            self.calls.append((image, draw))
        return np.full((2, 2, 3), image % 256, np.uint8)


def shown(rows: list[np.ndarray], first: int, last: int) -> dict[int, list[tuple[int, int]]]:
    """What Keras's fit took from the batches in each epoch."""
    source, starts = Recorder(), {}
    batches = Batches(
        source, one_hot(LABELS, 5), lambda epoch: rows[epoch], batch=4, first_epoch=first, threads=2
    )
    assert batches.num_batches == 6

    class Watch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            starts[epoch] = len(source.calls)

    layers = keras.layers
    model = keras.Sequential([keras.Input((2, 2, 3)), layers.Flatten(), layers.Dense(5)])
    model.compile(loss="mse")
    model.fit(
        batches, epochs=last, initial_epoch=first, callbacks=[Watch()], shuffle=False, verbose=0
    )
    batches.close()
    ends = [*list(starts.values())[1:], len(source.calls)]
    return {
        epoch: sorted(source.calls[start:end])
        for (epoch, start), end in zip(starts.items(), ends, strict=True)
    }


def test_a_continued_fit_sees_the_images_it_would_have_seen() -> None:
    """Keras's fit says that an epoch has ended once before the first, so it begins at the next."""
    rng = np.random.default_rng(0)
    rows = [np.column_stack([rng.integers(0, 356, 22), np.arange(22)]) for _ in range(7)]
    whole, continued = shown(rows, 0, 5), shown(rows, 2, 5)
    assert list(continued) == [2, 3, 4]
    for epoch, seen in whole.items():
        assert seen == sorted(map(tuple, rows[epoch + 1].tolist())), epoch
        assert continued.get(epoch, seen) == seen, epoch


def test_batches_are_made_ahead_of_the_one_that_is_asked_for() -> None:
    """TensorFlow makes none ahead when it is deterministic: the network would wait for pictures."""
    order = evaluation_order(22)
    source = Recorder()
    batches = Batches(source, one_hot(LABELS[:22], 5), order, batch=4)
    for index, begun in enumerate((12, 16, 20, 22, 22, 22)):
        pixels, _ = batches[index]
        assert pixels[:, 0, 0, 0].tolist() == [i for i in range(22) if i // 4 == index]
        until = time.monotonic() + 10
        while len(source.calls) < begun and time.monotonic() < until:
            time.sleep(0.001)
        assert sorted(source.calls) == [(i, -1) for i in range(begun)], index
    batches.on_epoch_end()
    batches.close()


def test_batches_stack_pixels_and_labels() -> None:
    order = evaluation_order(len(LABELS))
    batches = Batches(Recorder(), one_hot(LABELS, 5), order, batch=100)
    pixels, targets = batches[3]
    assert batches.num_batches == 4
    assert pixels.shape == (56, 2, 2, 3)
    assert pixels.dtype == np.uint8
    assert pixels[:, 0, 0, 0].tolist() == [i % 256 for i in range(300, 356)]
    assert targets.argmax(axis=1).tolist() == LABELS[300:356].tolist()
    assert targets.sum() == 56
    batches.close()


def test_a_picture_that_vanished_is_remembered(tmp_path: Path, tiny: Recipe) -> None:
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    files[0].write_bytes(encode_png(np.full((32, 32, 3), 9, np.uint8)))
    source = PixelSource(files, tiny.preprocess, tiny.augment, 0)
    batches = Batches(source, one_hot(np.array([0, 1]), 5), evaluation_order(2), batch=2)
    with pytest.raises(ImageError):
        batches[0]
    assert isinstance(batches.fault, ImageError)
    batches.close()


def test_scaled_decoding_is_the_same_in_training_and_prediction(
    tiny: Recipe, tmp_path: Path
) -> None:
    rng = np.random.default_rng(3)
    file = tmp_path / "cell.jpg"
    file.write_bytes(encode_jpeg(rng.integers(0, 256, (300, 300, 3)).astype(np.uint8)))
    spec = PreprocessSpec((64, 64), 0.8, scaled=True)
    received = PixelSource([file], spec, tiny.augment, seed=0)(0, -1)
    small = decode_image(file.read_bytes(), spec=spec).pixels
    assert small.shape == (150, 150, 3)  # 240 of 300, and 120 of 150 are still enough for 64
    np.testing.assert_array_equal(received, spec.apply(small))
    assert PixelSource([file], spec, tiny.augment, seed=0)(0, 5).shape == (64, 64, 3)
