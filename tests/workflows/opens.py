"""Begins a comparison and prints how often each image was opened before the first batch.

Started as a program of its own by `test_compare.py`, as an audit hook cannot be taken away.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path


class Begun(Exception):
    """The first batch would be made now."""


def main() -> None:
    from leuko.architectures import ARCHITECTURES
    from leuko.recipe import ModelSettings, load_recipe
    from leuko.training import run
    from leuko.training.options import RunOptions
    from leuko.workflows.compare import compare
    from training.killed import use_small_networks

    dataset, unseen, out = (Path(place) for place in sys.argv[1:])
    opened: Counter[str] = Counter()

    def count(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and str(arguments[0]).startswith(str(dataset.parent)):
            opened[str(arguments[0])] += 1

    def begin(*_: object, **__: object) -> None:
        raise Begun

    with_weights = ARCHITECTURES["mobilenetv2"]
    use_small_networks()
    ARCHITECTURES["mobilenetv2"] = with_weights
    run.fit_model = begin
    cnn = load_recipe("cnn")
    cnn = replace(cnn, preprocess=replace(cnn.preprocess, size=(32, 32)))
    known = ModelSettings("mobilenetv2", "minus-one-one", "head", "leuko")
    recipes = [cnn, replace(cnn, name="known", model=known)]
    sys.addaudithook(count)
    try:
        compare(dataset, recipes, out, unseen=[unseen], options=RunOptions(workers=2))
    except Begun:
        images = (*dataset.rglob("*.jpg"), *unseen.rglob("*.jpg"))
        print(json.dumps([opened[str(file)] for file in images]))


if __name__ == "__main__":
    main()
