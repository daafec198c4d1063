"""Training steps with their batches, where freed memory goes back to the system and where it stays.

    python benchmarks/bench_memory.py [--steps 60] [--rounds 3]

Prints milliseconds and page faults a step of the custom CNN (324 px, batches of 32 drawn cells of
288 pixels, varied as its recipe says); every timing in a process of its own, in turn; medians and
their ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

PICTURES, SIDE, BATCH = 200, 288, 32


def draw(folder: Path) -> None:
    """Write drawn cells, a slide for each."""
    import numpy as np

    from leuko.data.synth import draw_cell, draw_slide_style
    from leuko.imaging import encode_jpeg
    from leuko.taxonomy import CLASSES

    for number in range(PICTURES):
        rng = np.random.default_rng(number)
        kind = CLASSES[number % len(CLASSES)]
        cell = draw_cell(kind, rng, draw_slide_style(rng), size=SIDE)
        (folder / f"{number}.jpg").write_bytes(encode_jpeg(cell.pixels))


def measure(folder: Path, steps: int, keep: bool) -> dict[str, float]:
    """Train for a while: milliseconds and page faults a step, the first epoch left out."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import cv2
    import numpy as np

    from leuko.memory import keep_freed_memory
    from leuko.recipe import load_recipe
    from leuko.training.architectures import build_model, compile_model
    from leuko.training.fused import fused_normalisation
    from leuko.training.pipeline import Batches, PixelSource, one_hot, training_order

    cv2.setNumThreads(1)  # as the commands do
    if keep:
        keep_freed_memory()
    recipe = load_recipe("cnn")
    recipe = replace(recipe, train=replace(recipe.train, steps=steps))
    labels = np.arange(PICTURES) % 5
    files = [folder / f"{number}.jpg" for number in range(PICTURES)]
    source = PixelSource(files, recipe.preprocess, recipe.augment, recipe.seed)
    order = training_order(recipe, labels, [file.name for file in files])
    batches = Batches(source, one_hot(labels), order, batch=BATCH)
    model = build_model(recipe)
    compile_model(model, recipe, steps=2 * steps)
    with fused_normalisation(model):
        model.fit(batches, epochs=1, verbose=0)
        started, faults = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        model.fit(batches, epochs=2, initial_epoch=1, verbose=0)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    batches.close()
    return {"ms": (time.perf_counter() - started) / steps * 1e3, "faults": faults / steps}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=2, metavar=("FOLDER", "KEEP"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        folder, keep = arguments.one
        print(json.dumps(measure(Path(folder), arguments.steps, keep == "kept")))
        return
    found: dict[str, list[dict[str, float]]] = {"given back": [], "kept": []}
    with tempfile.TemporaryDirectory(prefix="leuko-bench-") as name:
        draw(Path(name))
        for _ in range(arguments.rounds):
            for keep, timings in found.items():
                command = [sys.executable, __file__, "--one", name, keep]
                command += ["--steps", str(arguments.steps)]
                lines = subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL)
                timings.append(json.loads(lines.splitlines()[-1]))
    figures = {
        keep: {kind: median(one[kind] for one in timings) for kind in ("ms", "faults")}
        for keep, timings in found.items()
    }
    for keep, figure in figures.items():
        print(f"{keep}: {figure['ms']:.1f} ms and {figure['faults']:,.0f} page faults a step")
    print(f"ratio {figures['given back']['ms'] / figures['kept']['ms']:.2f}")


if __name__ == "__main__":
    main()
