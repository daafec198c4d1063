"""Train the detector of white cells that ships, or one that has not seen a fold of the fields.

    python experiments/train_detector.py DATA --drawn DRAWN --out runs/detector
    python experiments/train_detector.py DATA --drawn DRAWN --out runs/fold-0 --fold 0

DATA holds ``chula-fields``, ``fields``, ``pbc-240`` and ``weights``; DRAWN is filled with drawn
fields when it is empty. Writes ``white-cells.onnx``. The same command takes up a run that was
broken off, and ends as it would have. `experiments/evaluate_detector.py` measures the folds.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from detector_pictures import KEPT, read_pictures
from detector_samples import Sampler, Targets

WEIGHTS = "weights/mobilenet_v2_imagenet_1.0_224_no_top.weights.h5"
BATCH = 16
AHEAD = 3
"""Batches that are made while one is learned from."""

_sampler: Sampler


def main() -> None:
    """Train and write the network."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--drawn", type=Path, required=True, help="Folder of drawn fields.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--fold", type=int, help="The fold that is left out; none when absent.")
    parser.add_argument("--folds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2500)
    arguments = parser.parse_args()
    pictures = read_pictures(arguments.data, arguments.drawn, arguments.folds)
    pictures = [one for one in pictures if one.fold not in (KEPT, arguments.fold)]
    print(dict(Counter(one.source for one in pictures)), flush=True)
    seed = 0 if arguments.fold is None else 1000 * (arguments.fold + 1)
    # Processes are forked before TensorFlow starts its threads.
    with get_context("fork").Pool(2, _start, [Sampler(pictures, seed)]) as pool:
        from detector_network import Training, to_onnx

        training = Training(arguments.data / WEIGHTS, arguments.steps, arguments.out / "ck")
        learn(training, batches(pool, training.done, arguments.steps), arguments.steps)
    (arguments.out / "white-cells.onnx").write_bytes(to_onnx(training.finish()))


def learn(training, made: Iterator[tuple[np.ndarray, Targets]], steps: int) -> None:
    """Make the steps that are left, with checkpoints."""
    losses, started = [], time.perf_counter()
    for pixels, targets in made:
        losses.append(training.step(pixels, targets))
        if training.done % 50 == 0:
            scores, sides = np.mean(losses[-50:], axis=0)
            seconds = (time.perf_counter() - started) / len(losses)
            print(f"{training.done} {scores:.4f} {sides:.4f} {seconds:.2f} s a step", flush=True)
        if training.done % 250 == 0 or training.done == steps:
            training.checkpoints.save()


def batches(pool, first: int, last: int) -> Iterator[tuple[np.ndarray, Targets]]:
    """The batches of the steps from `first` to `last`."""
    asked = []
    for step in range(first, last + AHEAD):
        if step < last:
            numbers = range(step * BATCH, (step + 1) * BATCH)
            asked.append(pool.map_async(_sample, numbers, chunksize=BATCH // 2))
        if step >= first + AHEAD:
            pixels, targets = zip(*asked.pop(0).get(), strict=True)
            yield np.float32(pixels), tuple(map(np.stack, zip(*targets, strict=True)))


def _start(sampler: Sampler) -> None:
    global _sampler
    _sampler = sampler
    cv2.setNumThreads(1)


def _sample(number: int) -> tuple[np.ndarray, Targets]:
    return _sampler(number)


if __name__ == "__main__":
    main()
