"""The registry of architectures: what its entries promise, and how one is found."""

from __future__ import annotations

import pytest

from leuko.architectures import ARCHITECTURES, PIXELS, find_architecture
from leuko.errors import RecipeError
from leuko.recipe import ModelSettings


def test_an_unknown_name_lists_what_is_registered() -> None:
    with pytest.raises(RecipeError, match=r"cnn, mobilenetv2, .*received 'vgg15'.*mean 'vgg16'\?"):
        find_architecture("vgg15")
    assert find_architecture("vgg16").title == "VGG16"


def test_every_entry_is_made_for_a_scaling_that_there_is() -> None:
    assert {entry.pixels for entry in ARCHITECTURES.values()} <= set(PIXELS)
    assert not any("/" in entry.bundled for entry in ARCHITECTURES.values())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_recipe_that_names_no_scaling_gets_the_networks_own(name: str) -> None:
    assert ModelSettings(name).pixels == ARCHITECTURES[name].pixels


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"architecture": "resnet"}, "must be one of cnn"),
        ({"train": "head"}, "needs a backbone; cnn has none"),
        ({"weights": "imagenet"}, "cnn starts from nothing"),
        ({"architecture": "vgg16", "weights": "leuko"}, "no weights of its own for vgg16"),
        ({"architecture": "densenet121", "width": 0.5}, "densenet121 has one width"),
    ],
)
def test_settings_that_a_network_cannot_have(settings: dict[str, object], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        ModelSettings(**settings)


def test_what_each_network_can_do() -> None:
    able = {name: (e.has_backbone, e.has_widths, bool(e.bundled)) for name, e in
            ARCHITECTURES.items()}  # fmt: skip
    assert able == {
        "cnn": (False, False, False),
        "mobilenetv2": (True, True, True),
        "mobilenetv3small": (True, True, False),
        "vgg16": (True, False, False),
        "densenet121": (True, False, False),
        "efficientnetv2b0": (True, False, False),
    }
