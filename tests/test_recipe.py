"""Recipes: whatever is not understood is refused, with the way out."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

import pytest

from leuko.errors import RecipeError
from leuko.recipe import Recipe, list_recipes, load_recipe

SMALLEST: dict[str, Any] = {
    "name": "mine",
    "title": "Mine",
    "preprocess": {"size": [64, 64]},
    "train": {"steps": 10},
}


def with_change(section: str, key: str, value: Any) -> dict[str, Any]:
    document = {**SMALLEST, section: dict(SMALLEST.get(section, {}))}
    document[section][key] = value
    return document


def test_the_promised_recipes_are_there() -> None:
    wanted = {
        "published-cnn",
        "published-mobilenetv2",
        "cnn",
        "mobilenetv2",
        "mobilenetv2-finetuned",
    }
    assert wanted <= set(list_recipes())
    assert list_recipes() == sorted(list_recipes())


@pytest.mark.parametrize("name", list_recipes())
def test_bundled_recipes_round_trip(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    (tmp_path / "again.toml").write_text(recipe.to_toml())
    again = load_recipe(tmp_path / "again.toml")
    assert again == recipe
    assert again.digest == recipe.digest
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    other = recipe.with_seed(recipe.seed + 1)
    assert other.digest != recipe.digest
    assert dataclasses.replace(other, seed=recipe.seed) == recipe


def test_defaults_are_filled_in() -> None:
    recipe = Recipe.from_dict(SMALLEST)
    assert (recipe.seed, recipe.preprocess.crop, recipe.train.steps) == (0, 1.0, 10)
    assert recipe.data.split == "slide"
    assert load_recipe("cnn").data.split == "slide"


def test_awkward_text_round_trips(tmp_path: Path) -> None:
    title = 'A "quoted" \\ title\nof two lines\twith \x00 \x1f \x7f and ä 😀'
    published = {"accuracy": 0.94, "macro f1": 1, "a.b": 0.5, 'q"': 2}
    recipe = Recipe.from_dict({**SMALLEST, "title": title, "published": published})
    (tmp_path / "r.toml").write_text(recipe.to_toml(), encoding="utf-8")
    assert load_recipe(tmp_path / "r.toml") == recipe
    assert tomllib.loads(recipe.to_toml())["published"] == published


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({**SMALLEST, "sede": 3}, "unknown key 'sede'. Did you mean 'seed'?"),
        ({**SMALLEST, "zebra": 3}, "unknown key 'zebra'. Known: name, title, seed"),
        (with_change("train", "epoch", 3), "'train.epoch'. Did you mean 'epochs'?"),
        (with_change("model", "drop", 0.1), "'model.drop'. Did you mean 'dropout'?"),
        (with_change("preprocess", "sise", 3), "'preprocess.sise'. Did you mean 'size'?"),
        (with_change("preprocess", "resize", "area"), "'preprocess.resize'"),
    ],
)
def test_an_unknown_key_is_an_error_with_the_nearest(document: Any, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.from_dict(document)
    assert message in str(caught.value)


def test_a_title_may_be_left_out() -> None:
    document = {name: value for name, value in SMALLEST.items() if name != "title"}
    assert Recipe.from_dict(document).title == document["name"]


@pytest.mark.parametrize("key", ["name", "preprocess"])
def test_what_must_be_there(key: str) -> None:
    document = {name: value for name, value in SMALLEST.items() if name != key}
    with pytest.raises(RecipeError, match=f"lacks '{key}'"):
        Recipe.from_dict(document)


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("train", "epochs", "ten", "train.epochs must be int, received 'ten'"),
        ("train", "epochs", 2.5, "must be int"),
        ("train", "epochs", True, "must be int"),
        ("train", "rate", "fast", "train.rate must be float"),
        ("train", "rate", False, "must be float"),
        ("data", "split", 3, "data.split must be str"),
        ("data", "split", "slides", "must be one of slide, random-file; received 'slides'"),
        ("model", "architecture", "resnet", "must be one of cnn, mobilenetv2"),
        ("train", "epochs", 0, r"must lie in \[1, 10000\], received 0"),
        ("train", "batch", -1, "must lie in"),
        ("train", "rate", float("nan"), "must lie in"),
        ("train", "rate", float("inf"), "must lie in"),
        ("train", "rate", 10**400, "must lie in"),
        ("data", "validation", 1.0, "must lie in"),
        ("data", "evenness", 1.1, "must lie in"),
        ("model", "dropout", -0.1, "must lie in"),
        ("preprocess", "size", [8, 8], "numbers from 16 to 2048"),
        ("preprocess", "size", [64.5, 64], "whole numbers"),
        ("preprocess", "size", "64", "whole numbers"),
        ("preprocess", "crop", 0.0, "crop must lie in"),
        ("preprocess", "crop", "half", "crop, width and pixels_per_micrometre numbers"),
        ("published", "accuracy", "high", "must be a table of numbers"),
        ("published", "accuracy", float("nan"), "must be a table of numbers"),
    ],
)
def test_wrong_values(section: str, key: str, value: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Recipe.from_dict(with_change(section, key, value))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": -1}, "seed must be a whole number from 0"),
        ({"seed": 2**31}, "to 2147483647, received 2147483648"),
        ({"seed": 1.0}, "seed must be"),
        ({"seed": True}, "seed must be"),
        ({"name": 3}, "name must be text"),
        ({"name": ""}, "name must be letters"),
        ({"name": "../elsewhere"}, "name must be letters"),
        ({"name": "a/b"}, "name must be letters"),
        ({"name": ".hidden"}, "name must be letters"),
        ({"name": "a\n"}, "name must be letters"),
        ({"title": None}, "title must be text"),
        ({"train": 3}, r"\[train\] must be a table"),
        ({"published": [1]}, r"\[published\] must be a table"),
        ({"preprocess": [64, 64]}, r"\[preprocess\] must be a table"),
    ],
)
def test_wrong_tables(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Recipe.from_dict({**SMALLEST, **change})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"split": "random-file"}}, "belong together"),
        ({"data": {"balance": "files"}}, "belong together"),
        ({"data": {"split": "random-file", "balance": "files"}}, "shown as they are"),
        ({"data": {"balance": "none"}, "train": {"steps": 3}}, "belongs to 'sampled'"),
        ({"model": {"train": "head"}}, "cnn has none"),
        ({"model": {"architecture": "mobilenetv2", "train": "head"}}, "run once over a fixed set"),
        ({"model": {"weights": "imagenet"}}, "starts from nothing"),
        ({"train": {"steps": 1, "monitor": "none", "patience": 2}}, "needs a train.monitor"),
        ({"train": {"steps": 1, "schedule": "cosine", "plateau": 2}}, "'constant'"),
    ],
)
def test_settings_at_odds(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Recipe.from_dict({**SMALLEST, **changes})


def test_names_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match=r"no recipe 'mobilnetv2'.*Did you mean 'mobilenetv2'?"):
        load_recipe("mobilnetv2")
    with pytest.raises(RecipeError, match=r"there are .*cnn"):
        load_recipe("")
    for path in (tmp_path / "nothing.toml", tmp_path, "./nothing", "~/no/such.toml", "a\0/b"):
        with pytest.raises(RecipeError, match="cannot be read"):
            load_recipe(path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.toml").write_text(Recipe.from_dict(SMALLEST).to_toml())
    assert load_recipe("~/mine.toml").name == "mine"


@pytest.mark.parametrize(
    "data", [b"name = ", b"\xff", b"[train\n", b"name = 1\nname = 2", b"a = " + b"[" * 5000]
)
def test_what_is_no_toml(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_bytes(data)
    with pytest.raises(RecipeError, match="is not TOML"):
        load_recipe(tmp_path / "r.toml")


@pytest.mark.parametrize("seed", [-1, 2**31])
def test_with_seed_gives_no_recipe_that_cannot_be_read_back(seed: int) -> None:
    with pytest.raises(RecipeError, match="seed must be a whole number"):
        load_recipe("cnn").with_seed(seed)


def test_styles_cannot_take_more_than_all_draws() -> None:
    document = load_recipe("flagship").to_dict()
    document["augment"].update(flat=0.7, soft=0.4)
    with pytest.raises(RecipeError, match=r"augment\.flat and augment\.soft"):
        Recipe.from_dict(document)


def test_files_of_before_are_read_and_say_what_is_called_otherwise_now() -> None:
    document = load_recipe("flagship").to_dict()
    assert load_recipe("flagship").remarks == ()
    document["augment"]["kind"] = "travel"
    document["preprocess"]["micrometre"] = 10.0
    read = Recipe.from_dict(document)
    assert read.augment.kind == "domain-randomisation"
    assert read.preprocess.pixels_per_micrometre == 10.0
    assert read.remarks == (
        "[preprocess] micrometre = 10.0 is pixels_per_micrometre = 10.0 now.",
        "[augment] kind = 'travel' is kind = 'domain-randomisation' now.",
    )
    assert read == Recipe.from_dict(read.to_dict())
