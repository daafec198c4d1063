"""Ask the background test of what a recipe trains on: can the class be told without the cell?

    python experiments/background_of_draws.py Dataset [--recipe flagship] [--draws 6000]

Draws training images as the recipe varies them, takes the outer ring of each (an eighth of the
side, as `leuko data info` does) and lets boosted trees name the class of slides that they have not
seen. Printed for three streams: pictures as they are, views of the cell as they are, and draws.
Chance is 0.2.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from leuko.data.audit.background import BackgroundSkipped, background_test, ring_features
from leuko.data.reading import read_split
from leuko.imaging.decode import read_image
from leuko.recipe import load_recipe
from leuko.support.parallel import bounded_map, worker_count
from leuko.training.pipeline import pixel_source, training_order


def main() -> None:
    """Print balanced accuracy and recall by class for each stream."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--recipe", default="flagship")
    parser.add_argument("--draws", type=int, default=6_000)
    arguments = parser.parse_args()
    recipe = load_recipe(arguments.recipe)
    steps = -(-arguments.draws // recipe.train.batch)
    recipe = replace(recipe, train=replace(recipe.train, steps=steps))
    manifest = read_split(arguments.dataset, "train")
    source = pixel_source(manifest, recipe)
    files = manifest.files()
    rows = training_order(recipe, manifest.labels, manifest.slides)(0)[: arguments.draws]
    streams: dict[str, Callable[[Any], Any]] = {
        "pictures": lambda row: read_image(files[row[0]]).pixels,
        "views": lambda row: source(int(row[0]), -1),
        "draws": lambda row: source(int(row[0]), int(row[1])),
    }
    slides = [manifest.slides[image] for image in rows[:, 0]]
    for name, look in streams.items():

        def ring(row: Any, look: Callable[[Any], Any] = look) -> Any:
            return ring_features(look(row))

        features = np.stack(list(bounded_map(ring, rows, workers=worker_count(None))))
        labels = manifest.labels[rows[:, 0]]
        found = background_test(
            features, labels, slides, ["train"] * len(rows), manifest.scheme.names
        )
        if isinstance(found, BackgroundSkipped):
            raise SystemExit(f"{name}: there is no background test of these cells ({found.code}).")
        recall = ", ".join(f"{k} {v:.2f}" for k, v in found.recall.items())
        print(f"{name}: balanced accuracy {found.balanced_accuracy:.3f} ({recall})", flush=True)


if __name__ == "__main__":
    main()
