"""What fitting a bundle to a laboratory brings, without labels and with 50.

    python experiments/adapt_laboratories.py default LABORATORY LABORATORY --halves 20

A LABORATORY is a folder with class folders. With ``--home DATASET`` the validation slides of the
bundle's own training are one more, where fitting should change little. For each it prints

- accuracy, and balanced accuracy over the classes with more than one cell, as shipped and fitted to
  the pictures without their labels, and what became of each candidate;
- over random stratified halves, fitted to the pictures of one half and labels of 50 of them: mean
  accuracy and balanced accuracy on the other half. Where the fit is refused, the bundle as shipped
  answers.
- with ``--candidates``, every step by itself, whether or not it would be kept: one scale, the
  weight of the plain look, part and all of the way to the training's mean features, and class
  shares by EM (which `leuko.runtime.adapt` leaves out).

About nine minutes on one busy core for 100 and 300 cells and 20 halves.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from add_trust import validation_rows

from leuko.bundle import ModelBundle
from leuko.cells import shared_micrometre
from leuko.errors import AdaptError
from leuko.manifest import Manifest, read_folder
from leuko.runtime.adapt import Adaptation, features_in_space, fit_adaptation
from leuko.runtime.adapt_check import check
from leuko.runtime.adapt_fit import Head, mean_shift
from leuko.runtime.adapt_views import Picture, show, survey
from leuko.runtime.classifier import OnnxClassifier, load
from leuko.runtime.graph import expose
from leuko.runtime.looks import softmax
from leuko.runtime.sources import file_source
from leuko.runtime.trust import Trust

CELLS = 50


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("laboratories", type=Path, nargs="*")
    parser.add_argument("--home", type=Path, help="As it was given to leuko train.")
    parser.add_argument("--halves", type=int, default=20)
    parser.add_argument("--candidates", action="store_true")
    parser.add_argument("--no-measure", action="store_true", help="Fit the network alone.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    bundle = load(arguments.model).bundle
    print(f"{bundle.name}, digest {bundle.digest[:16]}, styles {bundle.preprocess.styles}")
    rows = {place.name: read_folder(place) for place in arguments.laboratories}
    for name, manifest in rows.items():
        without_labels(name, bundle, manifest, arguments)
        if arguments.candidates:
            candidates(bundle, manifest, arguments)
        if arguments.halves:
            halves(name, bundle, manifest, arguments)
    if arguments.home is not None:
        provenance = bundle.provenance
        manifest = validation_rows(
            arguments.home, provenance["recipe"], provenance["manifest_digest"]
        )
        without_labels("home", bundle, manifest, arguments)


def without_labels(
    name: str, bundle: ModelBundle, manifest: Manifest, arguments: argparse.Namespace
) -> None:
    """One laboratory, as shipped and fitted to its pictures."""
    before = figures(bundle, manifest, arguments.threads)
    found = fitted(bundle, manifest, (), arguments)
    after = figures(found.bundle, manifest, arguments.threads)
    print(f"\n{name}: {len(manifest)} cells")
    print(f"  as shipped   accuracy {before[0]:.3f}  balanced {before[1]:.3f}")
    print(f"  no labels    accuracy {after[0]:.3f}  balanced {after[1]:.3f}")
    for sentence in found.sentences():
        print(f"    {sentence}", flush=True)


def candidates(bundle: ModelBundle, manifest: Manifest, arguments: argparse.Namespace) -> None:
    """Every step by itself, and what the check without labels would say of it."""
    found = survey([file_source(file) for file in manifest.files()], threads=arguments.threads)
    pictures = [one for one in found if isinstance(one, Picture)]
    scale = shared_micrometre(one.finding for one in pictures)
    exposed = expose(bundle.onnx, features=False, maps=False)
    head = Head(exposed.weights.astype(float), exposed.bias.astype(float))
    heat = Trust.of(bundle).temperature
    plain = bundle.preprocess.weights or (1.0,) * len(bundle.preprocess.styles)
    print(f"  {'':<34} accuracy  balanced  unsteady  entropy")
    for micrometre in (bundle.preprocess.micrometre, scale):
        spec = replace(bundle.preprocess, micrometre=micrometre)
        shown = show(bundle, spec, pictures, seed=arguments.seed, threads=arguments.threads)
        for more in (1.0, 2.0)[: len(plain)]:
            weights = (plain[0], *(more * one for one in plain[1:]))
            mean = features_in_space(shown.features, weights, Trust.of(bundle))
            shift = mean_shift(bundle.space, mean, head, temperature=heat)
            answers = softmax(np.average(shown.logits[:, 0], axis=1, weights=weights) / heat)
            steps = {"nothing": 0 * shift, "half the shift": shift / 2, "the shift": shift,
                     "shares by EM": heat * prior(answers)}  # fmt: skip
            for step, bias in steps.items():
                seen = check(shown.logits, weights, bias=bias, temperature=heat)
                moved = np.average(shown.logits[:, 0], axis=1, weights=weights) + bias
                right = scored(moved.argmax(axis=1), manifest.labels)
                told = f"{'one scale' if micrometre else 'own scales'}, 1:{more:g}, {step}"
                print(f"  {told:<34} {right[0]:.3f}     {right[1]:.3f}     {seen.share:.4f}    "
                      f"{seen.entropy:.3f}", flush=True)  # fmt: skip


def prior(answers: np.ndarray) -> np.ndarray:
    """What class shares by EM add to logits: damped towards even shares, at most log 4."""
    shares = np.full(5, 0.2)
    for _ in range(500):
        odds = answers * shares
        odds /= odds.sum(axis=1, keepdims=True)
        shares = (odds.sum(axis=0) + 0.05 * len(odds)) / (1.25 * len(odds))
    return np.clip(np.log(5 * shares), -np.log(4), np.log(4))


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
            found = fitted(bundle, manifest.subset(mine), named, arguments, manifest)
            kinds.append(f"{found.report['labels']['kind']} {found.report['labels']['strength']:g}")
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


def fitted(
    bundle: ModelBundle,
    pictures: Manifest,
    named: object,
    arguments: argparse.Namespace,
    manifest: Manifest | None = None,
) -> Adaptation:
    """Fit to pictures, and to labels of rows of `manifest`."""
    labels = []
    if manifest is not None:
        files = manifest.files()
        labels = [(file_source(files[row]), int(manifest.labels[row])) for row in np.asarray(named)]
    sources = [file_source(file) for file in pictures.files()]
    return fit_adaptation(
        bundle,
        sources,
        labels=labels,
        measure=not arguments.no_measure,
        seed=arguments.seed,
        threads=arguments.threads,
    )


def figures(bundle: ModelBundle, manifest: Manifest, threads: int) -> tuple[float, float]:
    """Accuracy, and balanced accuracy over the classes with more than one cell."""
    table = OnnxClassifier(bundle, threads=threads).predict(manifest.files())
    return scored(table.probabilities.argmax(axis=1), manifest.labels)


def scored(answers: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Accuracy, and balanced accuracy over the classes with more than one cell."""
    right = answers == labels
    shown = np.flatnonzero(np.bincount(labels, minlength=5) > 1)
    return float(right.mean()), float(np.mean([right[labels == one].mean() for one in shown]))


if __name__ == "__main__":
    main()
