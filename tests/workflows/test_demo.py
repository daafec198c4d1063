"""The demo's recipes; `make demo` itself is run by the continuous integration."""

from __future__ import annotations

import pytest

pytest.importorskip("keras", reason="needs the extra 'train'")
pytest.importorskip("matplotlib", reason="needs the extra 'report'")

from leuko.recipe import Recipe, load_recipe
from leuko.workflows.demo import demo_recipes


def test_the_demo_shortens_the_recipes_and_keeps_the_networks() -> None:
    cnn, transfer = demo_recipes(4)
    assert [cnn.name, transfer.name] == ["cnn", "mobilenetv2"]
    assert {cnn.seed, transfer.seed} == {4}
    assert cnn.model == load_recipe("cnn").model
    assert cnn.train.epochs * cnn.train.steps * cnn.train.batch <= 6400
    assert 5 * transfer.data.per_class <= 1000
    for recipe in (cnn, transfer):
        assert recipe.preprocess == load_recipe(recipe.name).preprocess
        assert Recipe.from_dict(recipe.to_dict()) == recipe


def test_the_demo_needs_no_network_and_claims_nothing_published() -> None:
    for recipe in demo_recipes(0):
        assert recipe.model.weights in ("none", "leuko")
        assert recipe.published == {}
