"""How far the running statistics of a network lag behind it, at the end of its training.

    leuko train Dataset --recipe published-cnn --out runs/published-cnn
    python experiments/running_statistics.py runs/published-cnn Dataset

Batch normalisation sees the batch while it trains, and afterwards a running mean of what the last
few hundred batches showed. This takes the weights as they stood after the last epoch, not the
best, and asks them with the running statistics, and with statistics that are measured again over
training pictures as they are. Prints the accuracy of both, on other pictures of the balanced
training folder and on Test-A, and how far the two are apart in each layer; docs/decisions/0021 has
what came of it. Nothing is chosen here.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from leuko.data.reading import read_folder
from leuko.imaging.decode import read_image
from leuko.manifest import Manifest
from leuko.recipe import Recipe, load_recipe
from leuko.support.parallel import bounded_map, worker_count
from leuko.training.architectures import build_model, compile_model
from leuko.training.checkpoint import load_state, restore_variables

Pixels = npt.NDArray[np.uint8]
BATCH = 32


def main() -> None:
    """Ask twice and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path, help="Run folder of a recipe that balances on disk.")
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--measure", type=int, default=2_500, help="Pictures to measure on.")
    parser.add_argument("--ask", type=int, default=1_500, help="Further pictures to ask.")
    arguments = parser.parse_args()
    recipe = load_recipe(arguments.run / "recipe.toml")
    balanced, test = read_folder(arguments.run / "Balanced_Train"), arguments.dataset / "Test"
    rows = np.random.default_rng(0).permutation(len(balanced.samples))
    measured, _ = pictures(balanced, rows[: arguments.measure], recipe)
    asked = rows[arguments.measure : arguments.measure + arguments.ask]
    sets = {
        "balanced training folder": pictures(balanced, asked, recipe),
        "Test": pictures(read_folder(test), None, recipe),
    }
    model = build_model(recipe)
    compile_model(model, recipe, steps=1)
    state = load_state(arguments.run / "last", {})
    if state is None:
        raise SystemExit(f"{arguments.run} has finished no epoch.")
    restore_variables(model, state)
    print(f"After epoch {state['epoch']}.\n")
    print("| statistics | " + " | ".join(sets) + " |\n|---|" + "---|" * len(sets))
    print(line("running", model, sets), flush=True)
    apart = measure_again(model, measured)
    print(line("measured again", model, sets))
    print("\n| layer | running mean off by, deviations | running variance, times |\n|---|---|---|")
    print("\n".join(apart))


def pictures(
    manifest: Manifest, rows: npt.NDArray[np.int64] | None, recipe: Recipe
) -> tuple[Pixels, npt.NDArray[np.int64]]:
    """Network inputs of some rows, and their labels."""
    files, labels = manifest.files(), np.asarray(manifest.labels)
    chosen = np.arange(len(files)) if rows is None else rows

    def cut(row: int) -> Pixels:
        return recipe.preprocess.apply(read_image(files[row]).pixels)

    return np.stack([*bounded_map(cut, chosen, workers=worker_count(None))]), labels[chosen]


def measure_again(model: Any, inputs: Pixels) -> list[str]:
    """Put means over batches in the place of running statistics; tell how far these were off."""
    layers = [layer for layer in model.layers if hasattr(layer, "moving_variance")]
    momenta = [layer.momentum for layer in layers]
    before = [
        (np.asarray(layer.moving_mean) + 0, np.asarray(layer.moving_variance) + 0)
        for layer in layers
    ]
    sums: list[Any] = [(0.0, 0.0) for _ in layers]
    count = len(inputs) // BATCH
    for layer in layers:
        layer.momentum = 0.0  # the statistics of a batch are then its own
    for number in range(count):
        model(inputs[number * BATCH : (number + 1) * BATCH].astype(np.float32), training=True)
        sums = [
            (mean + np.asarray(layer.moving_mean), variance + np.asarray(layer.moving_variance))
            for (mean, variance), layer in zip(sums, layers, strict=True)
        ]
    for layer, momentum, (mean, variance) in zip(layers, momenta, sums, strict=True):
        layer.moving_mean.assign(mean / count)
        layer.moving_variance.assign(variance / count)
        layer.momentum = momentum
    apart = []
    for layer, old in zip(layers, before, strict=True):
        # As the layer sees them: with what it adds to every variance.
        now = np.asarray(layer.moving_variance) + layer.epsilon
        off = np.abs(old[0] - np.asarray(layer.moving_mean)) / np.sqrt(now)
        times = (old[1] + layer.epsilon) / now
        apart.append(f"| {layer.name} | {off.max():.2f} | {times.min():.2f} to {times.max():.2f} |")
    return apart


def line(name: str, model: Any, sets: dict[str, tuple[Pixels, npt.NDArray[np.int64]]]) -> str:
    """Accuracy on each set, as a row of a table."""
    right = [
        float((model.predict(inputs, batch_size=BATCH, verbose=0).argmax(axis=1) == labels).mean())
        for inputs, labels in sets.values()
    ]
    return f"| {name} | " + " | ".join(f"{share:.3f}" for share in right) + " |"


if __name__ == "__main__":
    main()
