"""A narrow network starts from what a wide one has learned."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import keras
import numpy as np
import pytest

from leuko.errors import TrainingError
from leuko.recipe import load_recipe
from leuko.training.architectures import BACKBONE, build_model
from leuko.training.pruning import prune_channels

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

SIDE = 64
RNG = partial(np.random.default_rng, 0)


def backbone(width: float) -> keras.Model:
    return keras.applications.MobileNetV2(
        include_top=False, weights=None, input_shape=(SIDE, SIDE, 3), alpha=width
    )


def pictures(count: int, seed: int) -> np.ndarray:
    """Discs of many colours and sizes, in [-1, 1]."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    made = np.empty((count, SIDE, SIDE, 3), np.float32)
    for picture in made:
        picture[:] = rng.uniform(-1, 1, 3)
        for _ in range(3):
            row, column, radius = rng.uniform(4, SIDE - 4, 3)
            inside = np.hypot(rows - row, columns - column) < radius / 3
            picture[inside] = rng.uniform(-1, 1, 3)
    return made


@pytest.fixture(scope="module")
def wide() -> keras.Model:
    """The backbone in the package."""
    recipe = load_recipe("mobilenetv2-finetuned")
    model = replace(recipe.model, weights="leuko")
    preprocess = replace(recipe.preprocess, size=(SIDE, SIDE))
    return build_model(replace(recipe, model=model, preprocess=preprocess)).get_layer(BACKBONE)


def kept(given: np.ndarray, wanted: np.ndarray) -> float:
    """Share of the variance that is kept."""
    mean = wanted.mean(axis=(0, 1, 2))
    return 1 - float(np.square(given - wanted).sum() / np.square(wanted - mean).sum())


def test_a_network_of_the_same_width_answers_as_before(
    wide: keras.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leuko.training.pruning._RIDGE", 1e-9)
    same = backbone(1.0)
    assert prune_channels(wide, same, pictures(128, seed=2), RNG()) > 0.99


def test_a_narrow_network_keeps_most_of_an_answer_to_pictures_it_has_not_met(
    wide: keras.Model,
) -> None:
    thin, untouched = backbone(0.35), backbone(0.35)
    said = prune_channels(wide, thin, pictures(128, seed=2), RNG())
    new = pictures(32, seed=3)
    wanted = np.asarray(wide(new))
    reached = kept(np.asarray(thin(new)), wanted)
    assert 0.15 < reached < said < 1
    assert kept(np.asarray(untouched(new)), wanted) < 0


@pytest.mark.parametrize("width", [0.15, 0.25])
def test_every_width_that_keras_rounds_in_its_own_way_is_filled(
    wide: keras.Model, width: float
) -> None:
    """At 0.25 and below the first blocks have as many channels as they are given, and add."""
    thin, shown = backbone(width), pictures(40, seed=4)
    before = [np.asarray(weight) for weight in thin.weights]
    share = prune_channels(wide, thin, shown, RNG())
    assert 0.2 < share < 1
    changed = [not np.array_equal(a, b) for a, b in zip(before, thin.weights, strict=True)]
    assert all(changed)


def test_what_it_gives_depends_on_nothing_but_its_inputs(wide: keras.Model) -> None:
    shown = pictures(16, seed=2)
    answers = []
    for _ in range(2):
        thin = backbone(0.35)
        prune_channels(wide, thin, shown, RNG())
        answers.append(np.asarray(thin(shown)))
    np.testing.assert_array_equal(*answers)


def test_a_network_is_not_made_wider() -> None:
    with pytest.raises(TrainingError, match="only to fewer channels"):
        prune_channels(backbone(0.35), backbone(1.0), pictures(2, seed=0), RNG())


def test_something_else_is_not_narrowed() -> None:
    inputs = keras.Input((SIDE, SIDE, 3))
    other = keras.Model(inputs, keras.layers.Conv2D(4, 1)(inputs))
    with pytest.raises(TrainingError, match="Only a MobileNetV2"):
        prune_channels(other, backbone(0.35), pictures(2, seed=0), RNG())


def test_a_narrow_recipe_starts_from_the_bundled_backbone_and_needs_examples(
    wide: keras.Model,
) -> None:
    recipe = load_recipe("small")
    recipe = replace(recipe, preprocess=replace(recipe.preprocess, size=(SIDE, SIDE)))
    shown = ((pictures(24, seed=5) + 1) * 127.5).astype(np.uint8)
    assert recipe.model.weights == "leuko"
    one = build_model(recipe, examples=lambda: shown).get_layer(BACKBONE)
    scaled = shown.astype(np.float32) / 127.5 - 1
    wanted = np.asarray(wide(scaled))
    assert kept(np.asarray(one(scaled)), wanted) > 0.3
    with pytest.raises(TrainingError, match="training images"):
        build_model(recipe)


@pytest.mark.parametrize("change", [{"width": 1.4}, {"train": "head"}])
def test_what_cannot_be_narrowed_is_said_before_any_image_is_asked_for(
    change: dict[str, object],
) -> None:
    recipe = load_recipe("small")

    def never() -> np.ndarray:
        raise AssertionError("asked for images")

    with pytest.raises(TrainingError, match="only be made narrower"):
        build_model(replace(recipe, model=replace(recipe.model, **change)), examples=never)
