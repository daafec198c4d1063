"""A frozen backbone is run once, with the result of running it in every step."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leuko.data.reading import read_split
from leuko.manifest import Manifest
from leuko.recipe import ModelSettings, Recipe
from leuko.support.reporter import Reporter

keras = pytest.importorskip("keras", reason="needs the extra 'train'")

from leuko.training import architectures, features  # noqa: E402
from leuko.training.architectures import build_model  # noqa: E402
from leuko.training.checkpoint import RunFolder  # noqa: E402
from leuko.training.features import FeatureCache, Trunk, head_of  # noqa: E402
from leuko.training.fit import ArrayBatches, Feeds, fit_model  # noqa: E402
from leuko.training.pipeline import fixed_plan, pixel_source  # noqa: E402
from training.killed import use_small_networks  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tiny_head: Recipe) -> Callable[[], Any]:
    """Builds a network with a backbone of one layer, whose features come in shards of sixteen."""
    use_small_networks(monkeypatch.setitem)
    monkeypatch.setattr(features, "_SHARD", 16)
    return lambda: build_model(tiny_head)


def awaken(model: Any, pixels: np.ndarray) -> None:
    """Give random weights the statistics of some images, or every feature is nearly nought."""
    backbone = model.get_layer(architectures.BACKBONE)
    backbone.trainable = True
    norms = [x for x in backbone.layers if isinstance(x, keras.layers.BatchNormalization)]
    for norm in norms:
        norm.momentum = 0.0
    backbone(pixels / 127.5 - 1, training=True)
    backbone.trainable = False


class Counted:
    """A source that counts what it was asked for."""

    def __init__(self, rows: Manifest, recipe: Recipe) -> None:
        self._source = pixel_source(rows, recipe)
        self.spec, self.augment, self.seed = recipe.preprocess, recipe.augment, recipe.seed
        self.calls = 0

    def __call__(self, image: int, draw: int) -> np.ndarray:
        self.calls += 1
        return self._source(image, draw)


def test_features_train_the_head_as_the_whole_network_would(
    drawn: Path, tiny_head: Recipe, tmp_path: Path
) -> None:
    """MobileNetV2 itself: once through ONNX Runtime, and in every step through Keras."""
    recipe = replace(
        tiny_head,
        preprocess=replace(tiny_head.preprocess, size=(32, 32)),
        model=ModelSettings(
            "mobilenetv2", "minus-one-one", "head", "none", hidden=16, norm_momentum=0.5
        ),
        train=replace(tiny_head.train, rate=2e-3, monitor="none"),
    )
    rows = read_split(drawn, "train")
    source = pixel_source(rows, recipe)
    plan = fixed_plan(rows.labels, seed=0, per_class=5)
    targets = np.eye(5, dtype=np.float32)[rows.labels[plan[:, 0]]]
    pixels = np.stack([source(*row) for row in plan.tolist()]).astype(np.float32)
    told = {}
    for way in ("features", "pixels"):
        model = build_model(recipe)
        awaken(model, pixels)
        if way == "features":
            trunk = Trunk(model, FeatureCache(tmp_path), threads=2)
            values = trunk.features(source, plan, images=rows.digest)
            assert values.shape == (25, 1280)
            part, inputs = head_of(model), values
        else:
            part, inputs = model, pixels
        fit_model(
            part,
            recipe,
            Feeds(
                lambda epoch, x=inputs: ArrayBatches(
                    x, targets, batch=5, seed=1, first_epoch=epoch
                ),
                lambda _, x=inputs: ArrayBatches(x, targets, batch=25, seed=None),
            ),
            RunFolder(tmp_path / way, {}),
            resume=False,
        )
        told[way] = np.asarray(model(pixels, training=False))
    np.testing.assert_allclose(told["features"], told["pixels"], atol=1e-3)
    assert np.ptp(told["features"], axis=0).max() > 0.05


def test_shards_are_made_once_and_again_when_damaged(
    drawn: Path, tiny_head: Recipe, tmp_path: Path, small: Callable[[], Any]
) -> None:
    rows = read_split(drawn, "train")
    source = Counted(rows, tiny_head)
    plan = fixed_plan(rows.labels, seed=0, per_class=9)
    trunk = Trunk(small(), FeatureCache(tmp_path), threads=1)
    told: list[tuple[str, int, int]] = []

    def compute() -> np.ndarray:
        return trunk.features(
            source, plan, images=rows.digest, reporter=Reporter(lambda *row: told.append(row))
        )

    first = compute()
    assert first.shape == (45, 12)
    assert source.calls == 45
    assert told == [("features", n, 45) for n in (16, 32, 45)]
    shards = sorted(tmp_path.rglob("*.npz"))
    assert [shard.name for shard in shards] == ["00000.npz", "00001.npz", "00002.npz"]
    times = [shard.stat().st_mtime_ns for shard in shards]

    source.calls = 0
    assert np.array_equal(compute(), first)
    assert source.calls == 0
    assert [shard.stat().st_mtime_ns for shard in shards] == times

    whole = shards[1].read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 4
    wrong = np.zeros((3, 12), np.float32)
    for damage in (whole[:300], bytes(flipped)):
        shards[1].write_bytes(damage)
        source.calls = 0
        assert np.array_equal(compute(), first)
        assert source.calls == 16
        assert shards[1].read_bytes() == whole
    np.savez(shards[2], features=wrong)
    source.calls = 0
    assert np.array_equal(compute(), first)
    assert source.calls == 13

    # Another seed or another crop are other features.
    source.calls, source.seed = 0, 6
    assert not np.array_equal(compute(), first[:, :1])
    assert source.calls == 45
    source.seed, source.spec = tiny_head.seed, replace(tiny_head.preprocess, crop=0.5)
    compute()
    assert source.calls == 90


def test_plain_images_do_not_depend_on_the_variation(
    drawn: Path, tiny_head: Recipe, tmp_path: Path, small: Callable[[], Any]
) -> None:
    rows = read_split(drawn, "test")
    plan = np.column_stack([np.arange(len(rows)), np.full(len(rows), -1)])
    source = Counted(rows, tiny_head)
    model = small()
    cached = Trunk(model, FeatureCache(tmp_path), threads=1)
    first = cached.features(source, plan, images=rows.digest)
    source.seed += 1
    source.augment = replace(tiny_head.augment, stain=0.5)
    assert np.array_equal(cached.features(source, plan, images=rows.digest), first)
    assert source.calls == len(rows)
    pixels = np.stack([source(i, -1) for i in range(len(rows))]).astype(np.float32)
    trunk = keras.Model(model.input, model.get_layer("pool").output)
    np.testing.assert_allclose(first, np.asarray(trunk(pixels, training=False)), atol=1e-5)


def test_the_head_shares_its_weights(small: Callable[[], Any]) -> None:
    model = small()
    head = head_of(model)
    assert [layer.name for layer in head.layers[1:]] == ["hidden", "hidden_norm", "probabilities"]
    head.get_layer("hidden").kernel.assign(np.ones((12, 4)))
    assert np.asarray(model.get_layer("hidden").kernel).min() == 1
    values = np.random.default_rng(0).normal(size=(3, 12)).astype(np.float32)
    assert np.asarray(head(values)).sum() == pytest.approx(3, abs=1e-5)


def test_a_closed_cache_costs_no_training(
    drawn: Path, tiny_head: Recipe, tmp_path: Path, small: Callable[[], Any]
) -> None:
    rows = read_split(drawn, "train")
    source = Counted(rows, tiny_head)
    plan = fixed_plan(rows.labels, seed=0, per_class=9)
    (tmp_path / "features").write_text("in the way")
    said: list[str] = []
    found, kept = (
        Trunk(small(), FeatureCache(folder, Reporter(say=said.append)), threads=1).features(
            source, plan, images=rows.digest
        )
        for folder in (tmp_path, tmp_path / "open")
    )
    assert np.array_equal(found, kept)
    (line,) = said
    assert "not kept for another run" in line
    assert "--cache" in line


def test_what_was_used_longest_ago_makes_room(
    drawn: Path,
    tiny_head: Recipe,
    tmp_path: Path,
    small: Callable[[], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = read_split(drawn, "test")
    plan = np.column_stack([np.arange(len(rows)), np.full(len(rows), -1)])
    trunk, sources = Trunk(small(), FeatureCache(tmp_path), threads=1), {}

    def compute(crop: float) -> Path:
        recipe = replace(tiny_head, preprocess=replace(tiny_head.preprocess, crop=crop))
        sources[crop] = Counted(rows, recipe)
        trunk.features(sources[crop], plan, images=rows.digest)
        return max((tmp_path / "features").iterdir(), key=lambda entry: entry.stat().st_mtime_ns)

    first, second = compute(0.9), compute(0.8)
    for age, folder in ((200, first), (100, second)):
        os.utime(folder, (folder.stat().st_atime, folder.stat().st_mtime - age))
    size = sum(file.stat().st_size for file in first.iterdir())
    monkeypatch.setattr(features, "CACHE_LIMIT", 2 * size)
    assert compute(0.9) == first  # used again, and nothing is written: nothing goes
    assert sources[0.9].calls == 0
    third = compute(0.7)
    assert set((tmp_path / "features").iterdir()) == {first, third}
    monkeypatch.setattr(features, "CACHE_LIMIT", 1)
    assert compute(0.8) == second  # its own features stay, whatever they take
    assert list((tmp_path / "features").iterdir()) == [second]
