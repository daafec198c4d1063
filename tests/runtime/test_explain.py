"""Maps that add up to the answer, lie where the cell is, and belong to the weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from five import CLASSES
from leuko.bundle import ModelBundle
from leuko.cells.view import prepare
from leuko.data.synth import DrawnCell, draw_cell, draw_slide_style
from leuko.errors import ImageError, UsageError
from leuko.imaging.preprocess import PreprocessSpec
from leuko.runtime.classifier import OnnxClassifier, make_goldens
from leuko.runtime.explain import Explainer, Explanation, explain, placement
from leuko.runtime.zoo import load
from tiny import COLOURS, SIDE, make_onnx, make_pooled_onnx, paint

onnx = pytest.importorskip("onnx", reason="needs the extra 'train'")
helper, numpy_helper = onnx.helper, onnx.numpy_helper

WEIGHTS = 80 * COLOURS.T / 255 / 255
BIAS = -40 * ((COLOURS / 255) ** 2).sum(axis=1)
FOR = WEIGHTS - WEIGHTS.mean(axis=1, keepdims=True)
"""What a colour says for each class over the mean of the classes, (3, 5)."""


def bundle_of(data: bytes, crop: float = 1.0) -> ModelBundle:
    """A graph in a bundle."""
    spec = PreprocessSpec((SIDE, SIDE), crop)
    return ModelBundle(
        name="made",
        onnx=data,
        preprocess=spec,
        card="# Made\n",
        goldens=make_goldens(data, spec),
        parameters=20,
        provenance={"recipe": "none", "seed": 0},
        validation={"metrics": {}},
    )


@pytest.fixture(scope="module")
def made() -> OnnxClassifier:
    """The network whose maps are its pixels."""
    return OnnxClassifier(bundle_of(make_pooled_onnx()), threads=1)


@pytest.fixture(scope="module")
def default() -> OnnxClassifier:
    """The bundled model."""
    return load("default", threads=1)


@pytest.fixture(scope="module")
def explainer(default: OnnxClassifier) -> Explainer:
    """The bundled model's."""
    return Explainer(default, threads=1)


@pytest.fixture(scope="module")
def cells() -> list[DrawnCell]:
    """Fifteen drawn cells on fifteen slides."""
    cells = []
    for number in range(15):
        rng = np.random.default_rng([11, number])
        cells.append(draw_cell(CLASSES[number % 5], rng, draw_slide_style(rng)))
    return cells


def evidence_by_hand(probabilities: np.ndarray) -> np.ndarray:
    """Logarithms minus their mean."""
    logs = np.log(probabilities)
    return logs - logs.mean()


# --------------------------------------------------------------- class-activation maps


def test_the_map_is_the_one_worked_out_by_hand(made: OnnxClassifier) -> None:
    pixels = paint("Monocyte", shape=(SIDE, SIDE))
    pixels[:8, :8] = COLOURS[1]  # an eosinophil's red in the upper left corner
    for label in CLASSES:
        found = explain(made, pixels, label)
        index = CLASSES.index(label)
        assert (found.label, found.method) == (label, "class-activation map")
        np.testing.assert_allclose(found.values, pixels @ FOR[:, index], atol=1e-4)
        assert found.bias == pytest.approx(BIAS[index] - BIAS.mean(), abs=1e-5)


@pytest.mark.slow
def test_the_map_adds_up_to_the_answer(explainer: Explainer, cells: list[DrawnCell]) -> None:
    for cell in cells[:5]:
        found = [explainer.explain(cell.pixels, label) for label in CLASSES]
        wanted = evidence_by_hand(np.array(found[0].probabilities))
        for one, evidence in zip(found, wanted):
            assert one.values.shape == (4, 4)
            assert float(one.values.mean()) + one.bias == pytest.approx(one.evidence, abs=1e-4)
            # Six decimals of a probability are known.
            assert one.evidence == pytest.approx(evidence, abs=2e-3)
        np.testing.assert_allclose(np.sum([one.values for one in found], axis=0), 0, atol=1e-4)


def test_the_answer_is_the_classifiers(
    default: OnnxClassifier, explainer: Explainer, cells: list[DrawnCell]
) -> None:
    for cell in cells[:5]:
        answer, found = default.ask([cell.pixels])[0][0], explainer.explain(cell.pixels)
        np.testing.assert_allclose(found.probabilities, answer, atol=2e-6)
        assert found.label == default.predict_one(cell.pixels).likeliest


def test_maps_that_do_not_add_up_are_not_used() -> None:
    """Means cut down to whole numbers look like means in the graph, and are not."""
    classifier = OnnxClassifier(bundle_of(make_pooled_onnx(("INT32", "FLOAT"))), threads=1)
    assert Explainer(classifier).method == "occlusion"
    halves = OnnxClassifier(bundle_of(make_pooled_onnx(("DOUBLE", "FLOAT"))), threads=1)
    assert Explainer(halves).method == "class-activation map"


# ------------------------------------------------------------------------- occlusion


def test_covering_is_the_one_worked_out_by_hand(tiny_classifier: OnnxClassifier) -> None:
    """Linear in the mean colour, so each window's loss is a product."""
    pixels = np.full((SIDE, SIDE, 3), 200, np.uint8)
    pixels[4:9, 12:18] = COLOURS[0]
    explainer = Explainer(tiny_classifier, threads=1)
    assert explainer.method == "occlusion"
    found = explainer.explain(pixels, "Basophil")
    places, middles = (np.arange(32) + 0.5) / 32, (np.arange(8) + 0.5) / 8
    flat = np.minimum(1, 1.6 * np.exp(-((places - middles[:, None]) ** 2) / (2 * 0.08**2)))
    windows = np.einsum("ar,bc->abrc", flat, flat).reshape(64, 32, 32)
    # The network's side is 24 of the windows' 32: linear between their middles.
    reach = np.interp((np.arange(SIDE) + 0.5) / SIDE, places, np.arange(32))
    low, part = reach.astype(int), reach % 1
    narrow = flat[:, low] * (1 - part) + flat[:, np.minimum(low + 1, 31)] * part
    covers = np.einsum("ar,bc->abrc", narrow, narrow).reshape(64, SIDE, SIDE)
    says = (pixels.astype(float) - 200) @ FOR[:, 0]  # over the background, which is 200
    lost = (covers * says).sum(axis=(1, 2)) / SIDE**2
    wanted = np.tensordot(lost, windows, axes=1) / windows.sum(axis=0)
    np.testing.assert_allclose(found.values, wanted, atol=1e-4)
    assert found.bias == 0
    mean = pixels.reshape(-1, 3).mean(axis=0)
    assert found.evidence == pytest.approx(mean @ FOR[:, 0] + BIAS[0] - BIAS.mean(), abs=1e-4)


def test_a_network_that_keeps_its_logits_to_itself() -> None:
    """A sigmoid divided by its sum: only the answers can be asked."""
    model = onnx.load_model_from_string(make_onnx())
    del model.graph.node[-1:]
    model.graph.initializer.append(numpy_helper.from_array(np.array([1]), "axis"))
    model.graph.node.extend([
        helper.make_node("Exp", ["logits"], ["odds"]),
        helper.make_node("ReduceSum", ["odds", "axis"], ["total"]),
        helper.make_node("Div", ["odds", "total"], ["probabilities"]),
    ])  # fmt: skip
    opaque = OnnxClassifier(bundle_of(bytes(model.SerializeToString())), threads=1)
    plain = OnnxClassifier(bundle_of(make_onnx()), threads=1)
    # Colours between two classes: no probability is near nothing.
    pixels = np.full((SIDE, SIDE, 3), (140, 120, 180), np.uint8)
    pixels[4:12, 4:12] = (150, 125, 175)
    found, wanted = explain(opaque, pixels), explain(plain, pixels)
    assert found.method == "occlusion"
    assert found.evidence == pytest.approx(wanted.evidence, abs=1e-3)
    np.testing.assert_allclose(found.values, wanted.values, atol=1e-4)


def test_threads_and_neighbours_do_not_matter(
    tiny_classifier: OnnxClassifier, made: OnnxClassifier
) -> None:
    pictures = [paint(name, seed=3) for name in CLASSES[:3]]
    for classifier in (tiny_classifier, made):
        one, many = Explainer(classifier, threads=1), Explainer(classifier, threads=4)
        first = [one.explain(picture) for picture in pictures]
        again = [many.explain(picture) for picture in reversed(pictures)][::-1]
        for a, b in zip(first, again):
            np.testing.assert_array_equal(a.values, b.values)
            assert (a.label, a.evidence) == (b.label, b.evidence)


# ------------------------------------------------------------------- in the picture


SHAPES = [(24, 24), (96, 96), (300, 360), (361, 301), (575, 575), (48, 200)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("crop", [1.0, 0.6, 0.33])
def test_the_place_is_where_the_preprocessing_looks(shape: tuple[int, int], crop: float) -> None:
    """Pixels that tell their own row and column, cut and read again."""
    spec = PreprocessSpec((SIDE, SIDE), crop)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    pixels = np.stack([rows * 255 / shape[0], columns * 255 / shape[1], 0 * rows], axis=2)
    seen = spec.apply(np.round(pixels).astype(np.uint8)).astype(float)
    window = placement(spec, pixels)
    middles = (np.arange(SIDE) + 0.5) / SIDE
    down, across = np.meshgrid(middles, middles, indexing="ij")
    places = np.stack([down, across, np.ones_like(down)], axis=2) @ window.T
    # A pixel's number is its place less a half; the borders of an enlarged picture are flat.
    inner = slice(2, -2)
    for axis in (0, 1):
        received = (seen[..., axis] * shape[axis] / 255 + 0.5)[inner, inner]
        tolerance = 1.0 + shape[axis] / 255
        np.testing.assert_allclose(received, places[inner, inner, axis], atol=tolerance)


@pytest.mark.parametrize("view", ["cell", "cell-alone"])
def test_the_place_is_where_a_view_of_the_cell_looks(view: str, cells: list[DrawnCell]) -> None:
    """The network's input, laid over the picture, is the picture."""
    spec = PreprocessSpec((96, 96), view=view, width=18.0)
    for cell in cells[:5]:
        # Off the middle, so that a wrong corner or a swap of rows and columns is seen.
        pixels, mask = (np.roll(one, (-40, 25), (0, 1)) for one in (cell.pixels, cell.cell))
        seen = prepare(pixels, spec)
        window = placement(spec, pixels)
        laid = []
        for channel in (0, 1):
            one = Explanation(
                values=seen[..., channel].astype(np.float32),
                label=cell.label,
                method="occlusion",
                evidence=0.0,
                bias=0.0,
                probabilities=(0.2,) * 5,
                window=window,
                shape=pixels.shape[:2],
            )
            laid.append(one.on_picture())
        where = ~np.isnan(laid[0])
        assert where[mask].mean() > 0.95  # the cell was seen
        for channel in (0, 1):
            # The view brightens the slide's ground; what is dark stays in its place.
            both = (laid[channel][where & mask], pixels[..., channel][where & mask])
            assert np.corrcoef(*both)[0, 1] > (0.99 if view == "cell" else 0.97)


def test_a_spot_is_found_where_it_is(made: OnnxClassifier) -> None:
    classifier = OnnxClassifier(bundle_of(made.bundle.onnx, crop=0.5), threads=1)
    pixels = np.full((200, 240, 3), 255, np.uint8)
    pixels[80:96, 130:150] = COLOURS[0]
    found = explain(classifier, pixels, "Basophil")
    laid = found.on_picture()
    assert laid.shape == (200, 240)
    assert np.isnan(laid).sum() == 200 * 240 - 100 * 100
    assert not np.isnan(laid[50:150, 70:170]).any()
    weight = np.nan_to_num(laid - np.nanmin(laid))
    where = [(axis * weight).sum() / weight.sum() for axis in np.mgrid[:200, :240]]
    np.testing.assert_allclose(where, [87.5, 139.5], atol=0.6)
    np.testing.assert_allclose(found.outline(), [[50, 70], [50, 170], [150, 170], [150, 70]])
    # The same, drawn twice as large.
    large = found.on_picture((400, 480))
    quarters = large[100:300, 140:340].reshape(100, 2, 100, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(quarters, laid[50:150, 70:170], atol=1.5)
    assert np.isnan(large).sum() == 4 * np.isnan(laid).sum()


def test_a_turned_window_is_laid_as_it_lies() -> None:
    """A quarter turn, given by hand: down the map runs to the left in the picture."""
    values = np.zeros((4, 4), np.float32)
    values[0, 3] = 1.0
    found = Explanation(
        values=values,
        label="Monocyte",
        method="class-activation map",
        evidence=0.0,
        bias=0.0,
        probabilities=(0.2,) * 5,
        window=np.array([[0.0, 40.0, 10.0], [-40.0, 0.0, 60.0]]),
        shape=(64, 64),
    )
    laid = found.on_picture()
    peak = np.unravel_index(np.nanargmax(laid), laid.shape)
    # Middle of the first place down, the last across: row 10 + 35, column 60 - 5.
    assert abs(peak[0] + 0.5 - 45) <= 1
    assert abs(peak[1] + 0.5 - 55) <= 1
    assert np.isnan(laid[5]).all()
    np.testing.assert_allclose(found.outline(), [[10, 60], [50, 60], [50, 20], [10, 20]])


# -------------------------------------------------------------------- wrong questions


@pytest.mark.parametrize(
    ("ask", "error", "words"),
    [
        (lambda c, p: explain(c, p, "Blast"), UsageError, "received 'Blast'"),
        (lambda c, p: explain(c, p, method="magic"), UsageError, "received 'magic'"),
        (lambda c, p: explain(c, p, method="class-activation map"), UsageError, "Use occlusion"),
        (lambda c, p: explain(c, p[..., 0]), ImageError, "Expected"),
        (lambda c, p: explain(c, p[:4]), ImageError, "at least 16"),
    ],
)
def test_wrong_questions(
    ask: Callable[[OnnxClassifier, np.ndarray], Explanation],
    error: type[Exception],
    words: str,
    tiny_classifier: OnnxClassifier,
) -> None:
    with pytest.raises(error, match=words):
        ask(tiny_classifier, paint("Basophil"))


# ------------------------------------------------------------------------ sanity


def energy(found: Explanation, cell: np.ndarray) -> tuple[float, float]:
    """Share of the evidence for the class that lies in the cell, and the cell's share of area."""
    laid = found.on_picture()
    seen = ~np.isnan(laid)
    positive = np.maximum(np.nan_to_num(laid), 0)
    return float(positive[cell].sum() / positive.sum()), float(cell[seen].mean())


def test_the_map_lies_on_the_cell(explainer: Explainer, cells: list[DrawnCell]) -> None:
    """0.49 of the evidence on 0.36 of the area, when this was written."""
    shares = np.array([energy(explainer.explain(cell.pixels), cell.cell) for cell in cells])
    inside, area = shares.mean(axis=0)
    assert area < 0.5
    assert inside > 1.25 * area
    assert (shares[:, 0] > shares[:, 1]).mean() >= 0.9


@pytest.mark.slow
def test_covering_the_cell_costs_the_most(default: OnnxClassifier, cells: list[DrawnCell]) -> None:
    occluder = Explainer(default, method="occlusion")
    shares = np.array([energy(occluder.explain(c.pixels), c.cell) for c in cells[1:3]])
    inside, area = shares.mean(axis=0)
    assert inside > 1.2 * area


def ranks(values: np.ndarray) -> np.ndarray:
    """Place of each number in order."""
    return values.ravel().argsort().argsort().astype(float)


def shuffled(bundle: ModelBundle, *, everything: bool, seed: int) -> ModelBundle:
    """The same network with the weights of its last layer, or of all layers, in another order."""
    rng = np.random.default_rng([7, seed])
    model = onnx.load_model_from_string(bundle.onnx)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and (everything or values.shape == (1280, 5)):
            other = rng.permutation(values.ravel()).reshape(values.shape)
            tensor.CopyFrom(numpy_helper.from_array(other, tensor.name))
    data = bytes(model.SerializeToString())
    plain = {"calibration": {"method": "none"}, "thresholds": {}, "space": None}
    return replace(bundle, onnx=data, goldens=make_goldens(data, bundle.preprocess), **plain)


@pytest.mark.slow
@pytest.mark.parametrize("everything", [False, True])
def test_other_weights_give_other_maps(
    everything: bool, default: OnnxClassifier, explainer: Explainer, cells: list[DrawnCell]
) -> None:
    """Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018: rank correlations."""
    chosen = cells[:4]
    before = [explainer.explain(cell.pixels) for cell in chosen]
    found = []
    for seed in range(3):
        bundle = shuffled(default.bundle, everything=everything, seed=seed)
        other = Explainer(OnnxClassifier(bundle, threads=1), threads=1)
        assert other.method == "class-activation map"
        for cell, one in zip(chosen, before):
            again = other.explain(cell.pixels, one.label)
            found.append(np.corrcoef(ranks(one.values), ranks(again.values))[0, 1])
    assert abs(np.mean(found)) < 0.3
    assert max(found) < 0.98


def test_another_class_has_another_map(explainer: Explainer, cells: list[DrawnCell]) -> None:
    """What speaks for the answer speaks against the other classes, on the whole."""
    found = []
    for cell in cells[:5]:
        best = explainer.explain(cell.pixels)
        for label in CLASSES:
            if label != best.label:
                other = explainer.explain(cell.pixels, label)
                found.append(np.corrcoef(ranks(best.values), ranks(other.values))[0, 1])
    assert np.mean(found) < 0
