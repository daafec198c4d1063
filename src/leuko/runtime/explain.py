"""Where in a picture an answer comes from: a map of what speaks for a class, and against it.

A network that averages its last maps and weighs the averages with one linear layer says where by
itself: the weighted maps are read in the run that gives the answer, and add up to it exactly. What
a bundle adds by numbers measured on the cell (`Explanation.measured`) stands beside them. Any other
network is asked again with parts of the picture covered.

All maps speak of one quantity, the evidence for a class: the logarithm of its probability minus
the mean of all logarithms. Unlike a logit, the answer determines it: adding the same number
to all logits changes neither.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

import cv2
import numpy as np
import numpy.typing as npt

from leuko.cells.crop import crop_matrix
from leuko.cells.segment import find_cell
from leuko.cells.texture import FirstView, first_view
from leuko.cells.view import prepare
from leuko.errors import ImageError, UsageError
from leuko.imaging.decode import check_size
from leuko.imaging.preprocess import PreprocessSpec
from leuko.prediction import DECIMALS
from leuko.runtime.classifier import OnnxClassifier
from leuko.runtime.network.average import FLOOR, average_views, mean_views, softmax
from leuko.runtime.network.session import BATCH, load_graph
from leuko.runtime.network.wire import expose
from leuko.support.parallel import bounded_map, worker_count

__all__ = ["METHODS", "Explainer", "Explanation", "explain", "placement"]

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Method = Literal["class-activation map", "occlusion"]
_Head = tuple[Doubles, Doubles]

METHODS: Final = ("class-activation map", "occlusion")
"""How a map can be made; see `Explanation.method`."""

_TOLERANCE: Final = 1e-4
"""How far the maps may be from adding up to the answer, as a probability."""

_AXES: Final = {"NCHW": (2, 3), "NHWC": (1, 2)}
_AXIS: Final = {"NCHW": 0, "NHWC": 2}

_GRID: Final = 8
"""Occluding windows along each side. The network is asked 1 + 8 x 8 times for a picture."""

_SPREAD: Final = 0.08
"""Standard deviation of a window, as a share of the input's side."""

_RING: Final = 12
"""The ring whose median colour stands for "nothing here" is a twelfth of the side wide."""


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """Where the evidence for a class lies in a picture.

    Attributes
    ----------
    values : (h, w) float32
        What speaks for the class (positive) and against it (negative), in natural logarithms, on
        an even grid over what the network saw. For a class-activation map, the mean of the values
        plus `bias` and `measured` is `evidence`. For occlusion, each is the evidence lost by
        covering its surroundings.
    label : str
        The class that is explained.
    method : {"class-activation map", "occlusion"}
        How the map was made.
    evidence : float
        Logarithm of the class's probability minus the mean of all logarithms.
    bias : float
        The part of the evidence that comes from nowhere in the picture; 0 for occlusion.
    probabilities : tuple of K floats
        The answer of the same run, in class order, before any calibration.
    window : (2, 3) float64
        Takes (down, across, 1), both 0 to 1 over what the network saw, to a row and a column of
        the picture, counted from the upper left corner of its first pixel.
    shape : (int, int)
        Rows and columns of the picture.
    measured : float
        The part of the evidence that comes from numbers measured on the cell, which no map shows;
        0 where the bundle measures none.
    """

    values: Floats
    label: str
    method: Method
    evidence: float
    bias: float
    probabilities: tuple[float, ...]
    window: Doubles
    shape: tuple[int, int]
    measured: float = 0.0

    def on_picture(self, shape: tuple[int, int] | None = None) -> Floats:
        """Lay the values over the picture, bilinear between their places.

        Parameters
        ----------
        shape : (int, int), optional
            Rows and columns to give instead of the picture's own, for a picture drawn larger or
            smaller.

        Returns
        -------
        (H, W) float32
            Not a number where the network did not look.
        """
        rows, columns = shape or self.shape
        scale = np.array([[self.shape[0] / rows], [self.shape[1] / columns]])
        inverse = np.linalg.inv(np.vstack([self.window / scale, [0.0, 0.0, 1.0]]))[:2]
        down = np.arange(rows)[:, None] + 0.5
        across = np.arange(columns)[None, :] + 0.5
        places = [row[0] * down + row[1] * across + row[2] for row in inverse]
        height, width = self.values.shape
        spread = cv2.remap(
            self.values,
            (places[1] * width - 0.5).astype(np.float32),
            (places[0] * height - 0.5).astype(np.float32),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        seen = np.logical_and.reduce([(place >= 0) & (place <= 1) for place in places])
        return np.where(seen, spread, np.float32(np.nan)).astype(np.float32)

    def outline(self) -> Doubles:
        """Corners of what the network saw.

        Returns
        -------
        (4, 2) float64
            Row and column of each in the picture, going round.
        """
        corners = np.array([[0, 0, 1], [0, 1, 1], [1, 1, 1], [1, 0, 1]], np.float64)
        return np.asarray(corners @ self.window.T)


class Explainer:
    """Explains a classifier's answers.

    Parameters
    ----------
    classifier : OnnxClassifier
        Its network is opened a second time, with its maps among the outputs.
    threads : int, optional
        For the many runs that one occlusion takes; as many as this process has cores when None.
        Maps do not depend on it.
    method : {"class-activation map", "occlusion"}, optional
        The first where the network allows it, when None.

    Attributes
    ----------
    method : str
        How the maps are made.
    preprocess : PreprocessSpec
        The classifier's.

    Raises
    ------
    UsageError
        When a method is asked for that is unknown, or that the network does not allow.

    References
    ----------
    Zhou, Khosla, Lapedriza, Oliva and Torralba, "Learning deep features for discriminative
    localization", CVPR 2016. Zeiler and Fergus, "Visualizing and understanding convolutional
    networks", ECCV 2014, for occlusion.
    """

    def __init__(
        self,
        classifier: OnnxClassifier,
        *,
        threads: int | None = None,
        method: Method | None = None,
    ) -> None:
        if method is not None and method not in METHODS:
            raise UsageError(f"The method must be {' or '.join(METHODS)}, received {method!r}.")
        bundle = classifier.bundle
        self.preprocess = bundle.preprocess
        self._names = bundle.scheme.names
        self._again = classifier.trust.again
        self._measured = bundle.measured
        self._threads = worker_count(threads)
        self._graph = expose(bundle.onnx, maps=True)
        self._session = load_graph(self._graph.onnx, "The network cannot be opened to be explained")
        self._input: str = self._session.get_inputs()[0].name
        self._answer: str = self._session.get_outputs()[0].name
        inputs = np.stack(
            [prepare(picture, self.preprocess) for picture in bundle.goldens.pictures]
        )
        self._head = self._find_head(inputs)
        has_maps = self._head is not None and self._adds_up(inputs, self._head, maps=True)
        if method == "class-activation map" and not has_maps:
            raise UsageError(
                f"{classifier.name} has no class-activation maps: its network does not end in a "
                "global average pooling and one linear layer. Use occlusion."
            )
        self.method: Method = method or ("class-activation map" if has_maps else "occlusion")

    def explain(self, pixels: Pixels, label: str | None = None) -> Explanation:
        """Explain one answer.

        Parameters
        ----------
        pixels : (H, W, 3) uint8, RGB
            A decoded picture.
        label : str, optional
            The class to explain; the most probable one when None.

        Returns
        -------
        Explanation
            The same for the same pixels, whatever was explained before.

        Raises
        ------
        UsageError
            When the class is unknown.
        ImageError
            When the pixels are no picture of a size that can be used.
        """
        names = self._names
        if label is not None and label not in names:
            raise UsageError(f"The class must be one of {', '.join(names)}; received {label!r}.")
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
            raise ImageError(
                "not-an-image",
                f"Expected (H, W, 3) uint8 RGB, received {pixels.shape} {pixels.dtype}.",
            )
        check_size(*pixels.shape[:2])
        seen = first_view(pixels, self.preprocess)
        inputs = self._views(seen)
        probabilities, logits, maps = self._run(inputs[None])
        plain = _centred(logits)
        added = np.zeros_like(plain)
        if self._measured is not None:
            added = _centred(self._measured.logits([seen.measures()]))
            probabilities = softmax(plain + added)
        rounded = np.round(probabilities[0], DECIMALS)
        index = int(np.argmax(rounded)) if label is None else names.index(label)
        if self._head is not None and self.method == "class-activation map":
            values, bias = _weigh(maps[0], self._head, index, self._graph.layout)
        else:
            values, bias = self._occlude(inputs, index, float(plain[0, index])), 0.0
        return Explanation(
            values=values,
            label=names[index],
            method=self.method,
            evidence=float((plain + added)[0, index]),
            bias=bias,
            probabilities=tuple(rounded.tolist()),
            window=placement(self.preprocess, pixels),
            shape=(pixels.shape[0], pixels.shape[1]),
            measured=float(added[0, index]),
        )

    def _views(self, seen: FirstView) -> Pixels:
        """The views that answer for a picture, (K, h, w, 3): the first alone, or all of them."""
        first = seen.pixels[None]
        again, features = self._again, self._graph.features
        if again is not None and features is not None:
            given = {self._input: first.astype(np.float32)}
            if not again(self._session.run([features], given)[0].astype(np.float64))[0]:
                return first
        return np.stack([seen.pixels, *seen.others()])

    def _run(self, inputs: npt.NDArray[Any]) -> tuple[Doubles, Doubles, Floats]:
        """Run the network on (N, K, h, w, 3): probabilities (N, C), logits (N, C), maps (N, ...).

        Each is the mean over the K views.
        """
        graph, names = self._graph, [self._answer]
        weights = self.preprocess.weights
        names += [name for name in (graph.features, graph.maps) if name is not None]
        count, flat = inputs.shape[1], inputs.reshape(-1, *inputs.shape[2:])
        received = self._session.run(names, {self._input: flat.astype(np.float32)})
        found = dict(zip(names, received, strict=True))
        probabilities = average_views(found[self._answer], count, weights)
        if graph.features is None or self._head is None:
            logits = np.log(np.maximum(probabilities, FLOOR))
        else:
            logits = _logits(mean_views(found[graph.features], count, weights), self._head)
        maps = found.get(graph.maps or "")
        means = np.zeros(0) if maps is None else mean_views(maps, count, weights)
        return probabilities, logits, means.astype(np.float32)

    def _find_head(self, inputs: Pixels) -> _Head | None:
        """The last layer's weights and bias, where it is the layer that it seems to be."""
        weights, bias = self._graph.weights, self._graph.bias
        if weights is None or bias is None or weights.shape[1] != len(self._names):
            return None
        head = (weights.astype(np.float64), bias.astype(np.float64))
        return head if self._adds_up(inputs, head, maps=False) else None

    def _adds_up(self, inputs: Pixels, head: _Head, *, maps: bool) -> bool:
        """Whether the graph's features, or its maps' means, give the answers that it gives."""
        name = self._graph.maps if maps else self._graph.features
        if name is None:
            return False
        given = {self._input: inputs.astype(np.float32)}
        answers, found = self._session.run([self._answer, name], given)
        if found.ndim != (4 if maps else 2):
            return False
        means = found.mean(axis=_AXES[self._graph.layout], dtype=np.float64) if maps else found
        if means.shape != (len(inputs), len(head[0])):
            return False
        odds = np.exp(_centred(_logits(means, head)))
        return bool(np.abs(odds / odds.sum(axis=1, keepdims=True) - answers).max() <= _TOLERANCE)

    def _occlude(self, inputs: Pixels, index: int, evidence: float) -> Floats:
        """Cover the views bit by bit and see how much evidence each part takes away."""
        windows = _windows()
        plain = np.stack([_background(one) for one in inputs])[:, None, None].astype(np.float32)
        picture = inputs.astype(np.float32)

        def ask(part: Floats) -> Doubles:
            covers = np.stack([_cover(one, inputs.shape[1:3]) for one in part])[:, None, ..., None]
            _, logits, _ = self._run(picture * (1 - covers) + plain * covers)
            return evidence - _centred(logits)[:, index]

        parts = _parts(windows, BATCH)
        many = self._threads > 1
        answers = bounded_map(ask, parts, workers=self._threads) if many else map(ask, parts)
        lost = np.concatenate(list(answers))
        total = np.tensordot(lost, windows.astype(np.float64), axes=1)
        return np.asarray(total / windows.sum(axis=0, dtype=np.float64), np.float32)


def explain(
    classifier: OnnxClassifier,
    pixels: Pixels,
    label: str | None = None,
    *,
    method: Method | None = None,
) -> Explanation:
    """Explain one answer; keep an `Explainer` for many.

    Parameters
    ----------
    classifier : OnnxClassifier
        Whose answer.
    pixels : (H, W, 3) uint8, RGB
        A decoded picture.
    label : str, optional
        The class to explain; the most probable one when None.
    method : {"class-activation map", "occlusion"}, optional
        See `Explainer`.

    Returns
    -------
    Explanation
        Where the evidence lies.

    Raises
    ------
    UsageError
        When the class or the method is unknown, or the network does not allow the method.
    """
    return Explainer(classifier, method=method).explain(pixels, label)


def placement(spec: PreprocessSpec, pixels: Pixels) -> Doubles:
    """Where in a picture the network looks: the one place here that knows how `prepare` cuts.

    Parameters
    ----------
    spec : PreprocessSpec
        The network's preprocessing.
    pixels : (H, W, 3) uint8, RGB
        A decoded picture.

    Returns
    -------
    (2, 3) float64
        See `Explanation.window`.

    Examples
    --------
    >>> spec = PreprocessSpec(size=(64, 64), crop=0.5)
    >>> placement(spec, np.zeros((300, 360, 3), np.uint8)).tolist()
    [[150.0, 0.0, 75.0], [0.0, 150.0, 105.0]]
    """
    rows, columns = pixels.shape[:2]
    if spec.view == "centre":
        side = max(1, round(spec.crop * min(rows, columns)))
        return np.array(
            [[side, 0, (rows - side) // 2], [0, side, (columns - side) // 2]], dtype=np.float64
        )
    # OpenCV's matrices take (column, row), counted from the middle of the first pixel.
    matrix = crop_matrix(find_cell(pixels), spec)
    turn, shift = np.hsplit(np.asarray(cv2.invertAffineTransform(matrix), np.float64), [2])
    corner = shift[:, 0] + 0.5 - 0.5 * turn.sum(axis=1)
    return np.column_stack([spec.size[0] * turn[::-1, ::-1], corner[::-1]])


def _weigh(
    maps: Floats, head: _Head, index: int, layout: Literal["NCHW", "NHWC"]
) -> tuple[Floats, float]:
    """Weigh one picture's maps by what the last layer makes of them: (values, bias)."""
    weights, bias = head
    chosen = weights[:, index] - weights.mean(axis=1)
    values = np.tensordot(maps.astype(np.float64), chosen, axes=(_AXIS[layout], 0))
    return values.astype(np.float32), float(bias[index] - bias.mean())


def _logits(features: npt.NDArray[Any], head: _Head) -> Doubles:
    """The last layer, in double precision."""
    return np.asarray(features.astype(np.float64) @ head[0] + head[1])


def _centred(logits: Doubles) -> Doubles:
    """Evidence for each class, from logits or logarithms of probabilities."""
    return np.asarray(logits - logits.mean(axis=1, keepdims=True))


def _windows() -> Floats:
    """Occluding windows on a coarse square, (64, 32, 32), each 1 in its middle or nearly so."""
    side = 4 * _GRID
    middles = (np.arange(_GRID) + 0.5) / _GRID
    places = (np.arange(side) + 0.5) / side
    bump = np.exp(-0.5 * np.square((places - middles[:, None]) / _SPREAD))
    flat = np.minimum(1.0, 1.6 * bump)
    product = flat[:, None, :, None] * flat[None, :, None, :]
    return product.reshape(_GRID * _GRID, side, side).astype(np.float32)


def _cover(window: Floats, size: tuple[int, ...]) -> Floats:
    """A window on the network's input."""
    smooth = cv2.resize(window, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(smooth, np.float32)


def _background(inputs: Pixels) -> Doubles:
    """The median colour of the outer ring, which seldom shows the cell."""
    width = max(1, min(inputs.shape[:2]) // _RING)
    inner = np.zeros(inputs.shape[:2], bool)
    inner[width:-width, width:-width] = True
    return np.asarray(np.median(inputs[~inner], axis=0), np.float64)


def _parts(windows: Floats, size: int) -> Iterator[Floats]:
    """Deal windows out, a few at a time."""
    for start in range(0, len(windows), size):
        yield windows[start : start + size]
