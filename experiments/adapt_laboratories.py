"""What fitting a bundle to a laboratory brings with 50 labels.

    python experiments/adapt_laboratories.py default LABORATORY LABORATORY --halves 20

A LABORATORY is a folder with class folders. For each it prints mean accuracy, and balanced accuracy
over the classes with more than one cell, over random stratified halves: fitted to labels of 50
cells of one half, on the other half. Where the fit is refused, the bundle as shipped answers.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from leuko.bundle import ModelBundle
from leuko.data.reading import read_folder
from leuko.errors import AdaptError
from leuko.manifest import Manifest
from leuko.runtime.adapt.adapt import fit_adaptation
from leuko.runtime.classifier import OnnxClassifier
from leuko.runtime.zoo import load
from leuko.source import file_source

CELLS = 50


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("laboratories", type=Path, nargs="+")
    parser.add_argument("--halves", type=int, default=20)
    parser.add_argument("--no-measure", action="store_true", help="Fit the network alone.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    bundle = load(arguments.model).bundle
    print(f"{bundle.name}, digest {bundle.digest[:16]}, styles {bundle.preprocess.styles}")
    for place in arguments.laboratories:
        halves(place.name, bundle, read_folder(place), arguments)


def halves(
    name: str, bundle: ModelBundle, manifest: Manifest, arguments: argparse.Namespace
) -> None:
    """Random halves of one laboratory, one with labels of `CELLS` cells."""
    shipped, reached, kinds = [], [], []
    for number in range(arguments.halves):
        rng = np.random.default_rng([arguments.seed, number])
        labels = manifest.labels
        mine = stratified(labels, len(labels) // 2, rng)
        named = mine[stratified(labels[mine], CELLS, rng)]
        others = np.setdiff1d(np.arange(len(labels)), mine)
        test = manifest.subset(others)
        shipped.append(figures(bundle, test, arguments.threads))
        try:
            files = manifest.files()
            found = fit_adaptation(
                bundle,
                [(file_source(files[row]), int(labels[row])) for row in named],
                measure=not arguments.no_measure,
                seed=arguments.seed,
                threads=arguments.threads,
            )
            kinds.append(f"{found.labels.kind} {found.labels.strength:g}")
            reached.append(figures(found.bundle, test, arguments.threads))
        except AdaptError:
            kinds.append("refused")
            reached.append(shipped[-1])
    for what, values in (("as shipped", shipped), (f"{CELLS} labels", reached)):
        mean, spread = np.mean(values, axis=0), np.std(values, axis=0)
        print(
            f"  {what:<12} accuracy {mean[0]:.3f} ± {spread[0]:.3f}  balanced {mean[1]:.3f} "
            f"± {spread[1]:.3f}  on the other half of {name}, {len(values)} times"
        )
    print(f"    fits: {', '.join(kinds)}", flush=True)


def stratified(labels: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` rows with each class in proportion; a class of one cell is on either side."""
    order = rng.permutation(len(labels))
    rank = np.empty(len(labels))
    for label in np.unique(labels):
        rows = order[labels[order] == label]
        rank[rows] = (np.arange(len(rows)) + rng.uniform()) / len(rows)
    return np.sort(np.argsort(rank, kind="stable")[:count])


def figures(bundle: ModelBundle, manifest: Manifest, threads: int) -> tuple[float, float]:
    """Accuracy, and balanced accuracy over the classes with more than one cell."""
    table = OnnxClassifier(bundle, threads=threads).predict(manifest.files())
    labels = manifest.labels
    right = table.probabilities.argmax(axis=1) == labels
    shown = np.flatnonzero(np.bincount(labels, minlength=5) > 1)
    return float(right.mean()), float(np.mean([right[labels == one].mean() for one in shown]))


if __name__ == "__main__":
    main()
