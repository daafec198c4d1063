"""How many files of the package a comparison enters, and how many of them its data set enters.

A file counts when one of its functions is called, not when it is imported; the data set enters it
when such a call has its place, a `Dataset` or a `Manifest` among its arguments and locals.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from types import FrameType

import leuko
from leuko.data.synth import SmearPlan, draw_dataset
from leuko.recipe import Recipe, load_recipe
from leuko.workflows.compare import compare

_PACKAGE = str(Path(leuko.__file__).parent) + os.sep
_OURS = re.compile(re.escape(_PACKAGE) + r".*\.py")
_IN_A_FUNCTION = 1  # CPython's CO_OPTIMIZED: modules and bodies of classes lack it


def main() -> None:
    """Compare two small recipes on drawn cells under a profile hook, and list the files."""
    entered: dict[str, bool] = {}
    with tempfile.TemporaryDirectory() as folder:
        dataset = Path(folder) / "Dataset"
        draw_dataset(dataset, SmearPlan(train=60, test=30, size=64))

        def is_data(value: object) -> bool:
            if isinstance(value, str | Path):
                return str(value) == str(dataset)
            return type(value).__name__ in ("Dataset", "Manifest")

        def hook(frame: FrameType, event: str, _: object) -> None:
            name, flags = frame.f_code.co_filename, frame.f_code.co_flags
            if event == "return" and _OURS.fullmatch(name) and flags & _IN_A_FUNCTION:
                entered[name] = entered.get(name) or any(map(is_data, frame.f_locals.values()))

        threading.setprofile(hook)
        sys.setprofile(hook)
        compare(dataset, [_small("cnn"), _small("mobilenetv2")], Path(folder) / "out")
        sys.setprofile(None)
    for name in sorted(entered):
        print("data" if entered[name] else "    ", name.removeprefix(_PACKAGE))
    print(f"{len(entered)} files are entered, {sum(entered.values())} of them by the data set")


def _small(name: str) -> Recipe:
    """A recipe of a few small batches."""
    recipe = load_recipe(name)
    return replace(
        recipe,
        preprocess=replace(recipe.preprocess, size=(64, 64)),
        data=replace(recipe.data, per_class=4),
        model=replace(recipe.model, weights="none"),
        train=replace(recipe.train, epochs=1, steps=2),
    )


if __name__ == "__main__":
    main()
