"""Training steps with their batches: as Leuko trains, and without what decision 20 found.

    python benchmarks/bench_step.py [--steps 60] [--rounds 3]

Prints milliseconds and page faults a step of the custom CNN (324 px, batches of 32 drawn cells of
288 pixels, varied as its recipe says): as it is; where batches are made when they are asked for;
and where freed memory goes back to the system. Every timing is in a process of its own, in turn;
medians, and how often the first goes into each.
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
WAYS = ("as it is", "batches on demand", "memory given back")


def draw(folder: Path) -> None:
    """Write drawn cells, a slide for each."""
    import numpy as np

    from leuko.data.synth import draw_cell, draw_slide_style
    from leuko.imaging.decode import encode_jpeg
    from leuko.scheme import load_scheme

    for number in range(PICTURES):
        rng = np.random.default_rng(number)
        kind = load_scheme("differential-5").names[
            number % len(load_scheme("differential-5").names)
        ]
        cell = draw_cell(kind, rng, draw_slide_style(rng), size=SIDE)
        (folder / f"{number}.jpg").write_bytes(encode_jpeg(cell.pixels))


def measure(folder: Path, steps: int, way: str) -> dict[str, float]:
    """Train for a while: milliseconds and page faults a step, the first epoch left out."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import cv2
    import numpy as np
    import tensorflow as tf

    from leuko.recipe import load_recipe
    from leuko.support.memory import keep_freed_memory
    from leuko.training import pipeline
    from leuko.training.architectures import build_model, compile_model
    from leuko.training.fused import fused_normalisation
    from leuko.training.pipeline import Batches, PixelSource, one_hot, training_order

    cv2.setNumThreads(1)  # as the commands do
    tf.config.experimental.enable_op_determinism()  # as `train` does
    if way != "memory given back":
        keep_freed_memory()
    if way == "batches on demand":
        pipeline._AHEAD = 0
    recipe = load_recipe("cnn")
    recipe = replace(recipe, train=replace(recipe.train, steps=steps))
    labels = np.arange(PICTURES) % 5
    files = [folder / f"{number}.jpg" for number in range(PICTURES)]
    source = PixelSource(files, recipe.preprocess, recipe.augment, recipe.seed)
    order = training_order(recipe, labels, [file.name for file in files])
    batches = Batches(source, one_hot(labels, 5), order, batch=BATCH)
    model = build_model(recipe)
    compile_model(model, recipe, steps=2 * steps)
    with fused_normalisation(model):
        model.fit(batches, epochs=1, shuffle=False, verbose=0)
        started, faults = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        model.fit(batches, epochs=2, initial_epoch=1, shuffle=False, verbose=0)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    batches.close()
    return {"ms": (time.perf_counter() - started) / steps * 1e3, "faults": faults / steps}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=2, metavar=("FOLDER", "WAY"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        folder, way = arguments.one
        print(json.dumps(measure(Path(folder), arguments.steps, way)))
        return
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory(prefix="leuko-bench-") as name:
        draw(Path(name))
        for _ in range(arguments.rounds):
            for way, timings in found.items():
                command = [sys.executable, __file__, "--one", name, way]
                command += ["--steps", str(arguments.steps)]
                lines = subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL)
                timings.append(json.loads(lines.splitlines()[-1]))
    best = median(one["ms"] for one in found[WAYS[0]])
    for way, timings in found.items():
        ms, faults = (median(one[kind] for one in timings) for kind in ("ms", "faults"))
        print(f"{way}: {ms:.1f} ms and {faults:,.0f} page faults a step, {ms / best:.2f}")


if __name__ == "__main__":
    main()
