"""Measure what explanations are worth: do they lie on the cell, and do they belong to the weights?

    python experiments/explain_sanity.py [--model M] [--cells 40] [--images FOLDER] [--shuffles 8]

On cells drawn from a seed, whose masks are known:

* inside: the share of the evidence for the class that lies in the cell, beside the cell's share of
  the area that the network saw;
* aside: how far the middle of that evidence lies below and right of the cell's, in percent of the
  side of what the network saw (each cell once as drawn, once upside down and mirrored);
* other weights: Spearman's rank correlation of maps with those of the same network whose last
  layer, or every layer, has its weights shuffled (Adebayo et al. 2018), needs the package onnx;
* deletion: the evidence lost when the fifth of the input that a map ranks first takes the colour of
  the border, for the class-activation map, for occlusion (65 runs of the network), and for RISE
  (Petsiuk et al. 2018) with as many and with 257 random masks. `--images` does this for the files
  of a folder instead, read in order, at even steps.

Two minutes on one core of 2020 for the bundled model.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from leuko.bundle import ModelBundle
from leuko.cells.view import prepare
from leuko.data.synth import DrawnCell, draw_cell, draw_slide_style
from leuko.imaging.decode import IMAGE_SUFFIXES, read_image
from leuko.runtime.classifier import OnnxClassifier, make_goldens
from leuko.runtime.explain import Explainer, Explanation
from leuko.runtime.trust.calibrate import without_trust
from leuko.runtime.zoo import load
from leuko.scheme import load_scheme

CLASSES = load_scheme("differential-5").names


def drawn(count: int) -> list[DrawnCell]:
    """Cells of every class, each on a slide of its own."""
    cells = []
    for number in range(count):
        rng = np.random.default_rng([11, number])
        cells.append(draw_cell(CLASSES[number % len(CLASSES)], rng, draw_slide_style(rng)))
    return cells


def positive(found: Explanation) -> tuple[np.ndarray, np.ndarray]:
    """Evidence for the class on the picture, and where the network looked."""
    laid = found.on_picture()
    return np.maximum(np.nan_to_num(laid), 0), ~np.isnan(laid)


def inside(explainer: Explainer, cells: list[DrawnCell]) -> str:
    """Share of the evidence in the cell against the cell's share of the area."""
    shares = []
    for cell in cells:
        energy, seen = positive(explainer.explain(cell.pixels))
        shares.append((energy[cell.cell].sum() / energy.sum(), cell.cell[seen].mean()))
    energy, area = np.array(shares).T
    return (
        f"{energy.mean():.2f} of the evidence on {area.mean():.2f} of the area, "
        f"more than by area in {(energy > area).sum()} of {len(cells)}"
    )


def aside(explainer: Explainer, cells: list[DrawnCell]) -> np.ndarray:
    """Mean distance (down, right) from the cell's middle to the map's."""
    found = []
    for cell in cells:
        for step in (1, -1):
            pixels = np.ascontiguousarray(cell.pixels[::step, ::step])
            one = explainer.explain(pixels)
            energy, _ = positive(one)
            mask = cell.cell[::step, ::step]
            places = np.mgrid[: mask.shape[0], : mask.shape[1]]
            middles = [
                (places * weight).sum(axis=(1, 2)) / weight.sum() for weight in (energy, mask)
            ]
            found.append((middles[0] - middles[1]) / one.window[0, 0])
    return np.mean(found, axis=0)


def ranks(values: np.ndarray) -> np.ndarray:
    """Place of each number in order."""
    return values.ravel().argsort().argsort().astype(float)


def shuffled(bundle: ModelBundle, *, everything: bool, seed: int) -> ModelBundle:
    """The network with the weights of its last layer, or of all layers, in another order."""
    import onnx

    rng = np.random.default_rng([7, seed])
    model = onnx.load_model_from_string(bundle.onnx)
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        last = values.ndim == 2 and values.shape[1] == len(CLASSES)
        if values.dtype == np.float32 and (everything or last):
            other = rng.permutation(values.ravel()).reshape(values.shape)
            tensor.CopyFrom(onnx.numpy_helper.from_array(other, tensor.name))
    data = bytes(model.SerializeToString())
    return replace(
        bundle, onnx=data, goldens=make_goldens(data, bundle.preprocess, bundle.measured)
    )


def other_weights(
    classifier: OnnxClassifier, cells: list[DrawnCell], *, everything: bool, shuffles: int
) -> str:
    """Rank correlation with the maps of shuffled weights."""
    explainer = Explainer(classifier)
    before = [explainer.explain(cell.pixels) for cell in cells]
    found = []
    for seed in range(shuffles):
        other = Explainer(
            OnnxClassifier(shuffled(classifier.bundle, everything=everything, seed=seed))
        )
        for cell, one in zip(cells, before, strict=True):
            again = other.explain(cell.pixels, one.label)
            found.append(np.corrcoef(ranks(one.values), ranks(again.values))[0, 1])
    return f"{np.mean(found):+.2f}, without its sign {np.abs(found).mean():.2f}"


def evidence(classifier: OnnxClassifier, inputs: np.ndarray) -> np.ndarray:
    """Logarithms of the answers minus their mean, (N, 5)."""
    logs = np.log(np.maximum(classifier.predict_views(inputs), 1e-6))
    return logs - logs.mean(axis=1, keepdims=True)


def background(inputs: np.ndarray) -> np.ndarray:
    """Median colour of the outer ring."""
    width = min(inputs.shape[:2]) // 12
    ring = np.ones(inputs.shape[:2], bool)
    ring[width:-width, width:-width] = False
    return np.median(inputs[ring], axis=0)


def rise(classifier: OnnxClassifier, inputs: np.ndarray, index: int, masks: int) -> np.ndarray:
    """Covariance of random smooth masks, 7 x 7, with the evidence that they leave."""
    rng = np.random.default_rng(3)
    rows, columns = inputs.shape[:2]
    step = (-(-rows // 7), -(-columns // 7))
    kept = []
    for _ in range(masks):
        coarse = (rng.random((8, 8)) < 0.5).astype(np.float32)
        large = cv2.resize(coarse, (8 * step[1], 8 * step[0]), interpolation=cv2.INTER_LINEAR)
        top, left = rng.integers(0, step[0]), rng.integers(0, step[1])
        kept.append(large[top : top + rows, left : left + columns])
    cover, plain = np.array(kept), background(inputs)
    pictures = inputs * cover[..., None] + plain * (1 - cover[..., None])
    left = evidence(classifier, np.round(pictures).astype(np.uint8))[:, index]
    return np.tensordot(left - left.mean(), cover - cover.mean(axis=0), axes=1)


def plainly(classifier: OnnxClassifier) -> OnnxClassifier:
    """The same network with the plain look alone, whose input can be covered."""
    bundle = without_trust(classifier.bundle)
    spec = replace(bundle.preprocess, styles=("plain",), weights=())
    made = replace(
        bundle, preprocess=spec, goldens=make_goldens(bundle.onnx, spec, bundle.measured)
    )
    return OnnxClassifier(made)


def deletion(classifier: OnnxClassifier, pictures: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Evidence lost with the fifth of the input that each method ranks first, by picture."""
    classifier = plainly(classifier)
    spec = classifier.bundle.preprocess
    explainers = {"occlusion, 65 runs": Explainer(classifier, method="occlusion")}
    if Explainer(classifier).method == "class-activation map":
        explainers["class-activation map, 1 run"] = Explainer(classifier)
    lost: dict[str, list[float]] = {}
    for pixels in pictures:
        inputs = prepare(pixels, spec)
        before = evidence(classifier, inputs[None])[0]
        index = int(before.argmax())
        maps = {}
        for name, explainer in explainers.items():
            found = replace(explainer.explain(pixels), window=np.eye(2, 3), shape=(1, 1))
            maps[name] = found.on_picture(spec.size)
        for masks in (65, 257):
            maps[f"RISE, {masks} runs"] = rise(classifier, inputs, index, masks)
        for name, values in maps.items():
            without = inputs.copy()
            without[values >= np.quantile(values, 0.8)] = np.round(background(inputs))
            after = evidence(classifier, without[None])[0]
            lost.setdefault(name, []).append(float(before[index] - after[index]))
    return {name: np.array(values) for name, values in lost.items()}


def main() -> None:
    """Print the measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="default")
    parser.add_argument("--cells", type=int, default=40)
    parser.add_argument("--images", type=Path, help="pictures to measure deletion on instead")
    parser.add_argument("--shuffles", type=int, default=8)
    chosen = parser.parse_args()
    classifier = load(chosen.model)
    print(f"{classifier.name}, digest {classifier.digest[:12]}")
    if chosen.images is not None:
        files = sorted(f for f in chosen.images.rglob("*") if f.suffix.lower() in IMAGE_SUFFIXES)
        files = files[:: max(1, len(files) // chosen.cells)][: chosen.cells]
        pictures = [read_image(file).pixels for file in files]
    else:
        cells = drawn(chosen.cells)
        pictures = [cell.pixels for cell in cells]
        explainer = Explainer(classifier)
        print(f"{explainer.method}: {inside(explainer, cells)}")
        down, right = 100 * aside(explainer, cells)
        print(f"aside: {down:+.1f}% down, {right:+.1f}% right")
        if explainer.method != "occlusion":
            few = Explainer(classifier, method="occlusion")
            print(f"occlusion: {inside(few, cells)}")
            for everything in (False, True):
                text = other_weights(
                    classifier, cells[:20], everything=everything, shuffles=chosen.shuffles
                )
                print(f"{'every layer' if everything else 'last layer'} shuffled: {text}")
    print(f"deletion, {len(pictures)} pictures:")
    lost = deletion(classifier, pictures)
    for name, values in sorted(lost.items()):
        more = values - lost["occlusion, 65 runs"]
        error = more.std(ddof=1) / len(more) ** 0.5
        print(f"  {name}: {values.mean():.2f}, {more.mean():+.2f} ({error:.2f}) than occlusion")


if __name__ == "__main__":
    sys.exit(main())
