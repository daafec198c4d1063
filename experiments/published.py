"""How a comparison stands against the published experiment.

    python experiments/published.py OUT/comparison.json

Reads what ``leuko compare`` wrote, with the recipes in its run folders, and prints one sentence.
Only the published recipes and their corrected versions count, by their settings and whatever they
are called.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

from leuko.evaluation.comparison import ComparisonReport
from leuko.evaluation.paired import decide
from leuko.recipe import Recipe, load_recipe
from leuko.support.artifacts import read_json
from leuko.support.text import listed

CLAIM: Final = (
    'The conclusion "transfer learning is not always superior" of the published experiment (a '
    "custom CNN and a frozen MobileNetV2 on Raabin-WBC, accuracy 0.932 and 0.891 on Test-A)"
)
EXPERIMENT: Final = (
    "published-cnn",
    "published-mobilenetv2",
    "cnn",
    "mobilenetv2",
    "mobilenetv2-finetuned",
)
"""The published experiment, and what Leuko corrects of it."""


def is_of_experiment(recipe: Recipe) -> bool:
    """Whether a recipe is of the experiment, by its settings.

    Weights from a file are taken for those of ImageNet: without a network they come from there.
    """
    if recipe.model.architecture != "cnn" and recipe.model.weights in ("none", "leuko"):
        return False
    return settings(recipe) in [settings(load_recipe(name)) for name in EXPERIMENT]


def settings(recipe: Recipe) -> dict[str, Any]:
    """What is trained, without what it is called, its seed and where its weights lie."""
    document = recipe.to_dict()
    for key in ("name", "title", "seed", "published"):
        del document[key]
    del document["model"]["weights"]
    return document


def standing(report: ComparisonReport, transfer: dict[str, bool], set_name: str = "test") -> str:
    """What becomes of the conclusion, by whether each recipe of the experiment is a transfer."""
    titles = report.titles
    of_both = [
        one
        for one in decide(report.paired, set_name)
        if {transfer.get(one.a), transfer.get(one.b)} == {True, False}
    ]
    if not of_both:
        return "No network trained from scratch was compared with a transferred one of that kind."
    wins = [(one.winner, one.loser) for one in of_both if one.winner and one.loser]
    beats = [f"{titles[winner]} beats {titles[loser]}" for winner, loser in wins]
    kinds = {transfer[winner] for winner, _ in wins}
    if kinds == {True, False}:
        return f"{CLAIM} holds on {set_name}, but it depends on which transfer: {listed(beats)}."
    if kinds == {False}:
        return f"{CLAIM} holds on {set_name}: {listed(beats)}."
    if kinds == {True}:
        some = "" if len(wins) == len(of_both) else ", and the other pairs are not separated"
        return (
            f"{CLAIM} finds no support on {set_name}: {listed(beats)}{some}; one set cannot "
            'refute a "not always".'
        )
    return (
        f"{CLAIM} can be neither claimed nor denied from {set_name}: no network trained from "
        "scratch is separated from a transferred one."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("comparison", type=Path)
    path = parser.parse_args().comparison
    report = ComparisonReport.from_dict(read_json(path, "comparison"))
    recipes = {
        model.recipe: load_recipe(path.parent / model.runs[0].run / "recipe.toml")
        for model in report.models
    }
    transfer = {
        name: recipe.model.architecture != "cnn"
        for name, recipe in recipes.items()
        if is_of_experiment(recipe)
    }
    print(standing(report, transfer))


if __name__ == "__main__":
    main()
