"""An ONNX graph made ready for other precisions and other runtimes; the answers stay the same.

A Keras network arrives with its batch normalisations as a product and a sum behind each
depthwise convolution, and with paddings of their own. Left there, each of them would be rounded
to eight bits on its own. Here they become part of the convolution that they belong to.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from leuko.errors import BundleError
from leuko.runtime.network.session import load_graph
from leuko.support.packages import import_extra

__all__ = ["Graph", "clean_graph", "open_session", "to_float16"]

Array = npt.NDArray[Any]

_LINEAR: Final = ("MatMul", "Gemm")

_SMALL: Final = 4096
"""Layers of fewer weights stay 32 bits wide: they weigh little, and the first ones of a
MobileNetV2 hold differences of large numbers."""


class Graph:
    """An ONNX graph opened for changes: nodes in order, constants as arrays.

    Parameters
    ----------
    onnx : bytes
        A serialized model.

    Raises
    ------
    BundleError
        When the bytes are no ONNX model.
    MissingExtraError
        When the package ``onnx`` is not installed.

    Attributes
    ----------
    nodes : list of onnx.NodeProto
        In order of computation; free to change.
    constants : dict of str to ndarray
        By name; free to change.
    """

    def __init__(self, onnx: bytes) -> None:
        self._onnx = import_extra("onnx")
        try:
            self._model = self._onnx.load_model_from_string(onnx)
        except Exception as error:  # protobuf raises its own kinds
            raise BundleError(f"The network is not a well-formed ONNX file: {error}.") from error
        graph = self._model.graph
        read = self._onnx.numpy_helper.to_array
        self.constants: dict[str, Array] = {item.name: read(item) for item in graph.initializer}
        self.nodes: list[Any] = list(graph.node)

    @property
    def input(self) -> str:
        """Name of the only input."""
        return str(self._model.graph.input[0].name)

    @property
    def output(self) -> str:
        """Name of the only output."""
        return str(self._model.graph.output[0].name)

    def users(self, name: str) -> list[Any]:
        """Nodes that read a tensor.

        Parameters
        ----------
        name : str
            The tensor.

        Returns
        -------
        list of onnx.NodeProto
            In order.
        """
        return [node for node in self.nodes if name in node.input]

    def only_user(self, name: str) -> Any | None:
        """The node that reads a tensor, when there is just one and it is no output.

        Parameters
        ----------
        name : str
            The tensor.

        Returns
        -------
        onnx.NodeProto or None
            That node.
        """
        users = self.users(name)
        return users[0] if len(users) == 1 and name != self.output else None

    def maker(self, name: str) -> Any | None:
        """The node that writes a tensor.

        Parameters
        ----------
        name : str
            The tensor.

        Returns
        -------
        onnx.NodeProto or None
            None for inputs and constants.
        """
        return next((node for node in self.nodes if name in node.output), None)

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> Any:
        """Make a node.

        Parameters
        ----------
        kind : str
            Its operator.
        inputs : list of str
            What it reads.
        output : str
            What it writes.
        **attributes
            Its attributes.

        Returns
        -------
        onnx.NodeProto
            Not in the graph yet.
        """
        return self._onnx.helper.make_node(kind, inputs, [output], **attributes)

    def attribute(self, node: Any, name: str, default: Any = None) -> Any:
        """Value of a node's attribute.

        Parameters
        ----------
        node : onnx.NodeProto
            The node.
        name : str
            The attribute.
        default : object
            Where it has none.

        Returns
        -------
        object
            A number, text, bytes or a list.
        """
        for item in node.attribute:
            if item.name == name:
                return self._onnx.helper.get_attribute_value(item)
        return default

    def set_attribute(self, node: Any, name: str, value: Any) -> None:
        """Give a node an attribute, in place of an older value.

        Parameters
        ----------
        node : onnx.NodeProto
            Changed in place.
        name : str
            The attribute.
        value : object
            Its value.
        """
        kept = [item for item in node.attribute if item.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, self._onnx.helper.make_attribute(name, value)])

    def to_bytes(self, *, also: tuple[str, ...] = ()) -> bytes:
        """Serialize: names in order of use, no constant that is not used.

        Parameters
        ----------
        also : tuple of str
            Maps (N, C, h, w) that become outputs too, float32; then nothing is renamed.

        Returns
        -------
        bytes
            Equal graphs give equal bytes.

        Raises
        ------
        BundleError
            When the graph is not valid.
        """
        onnx = self._onnx
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        graph = model.graph
        names: dict[str, str] = {"": ""}
        used: dict[str, Array] = {}
        nodes = []
        for number, node in enumerate(self.nodes):
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            for place, name in enumerate(node.input):
                if name in self.constants:
                    names.setdefault(name, name if also else f"w{len(used)}")
                    used[names[name]] = self.constants[name]
                copy.input[place] = names.get(name, name)
            for place, name in enumerate(node.output):
                kept = also or name == self.output
                names.setdefault(name, name if kept else f"t{number}_{place}")
                copy.output[place] = names[name]
            copy.name = f"n{number}"
            nodes.append(copy)
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(nodes)
        graph.initializer.extend(
            onnx.numpy_helper.from_array(np.asarray(array, order="C"), name)
            for name, array in used.items()
        )
        known = {item.name for item in graph.output}
        graph.output.extend(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None] * 4)
            for name in also
            if name not in known
        )
        try:
            onnx.checker.check_model(model, full_check=True)
        except Exception as error:  # the checker raises its own kinds
            raise BundleError(f"The converted network is not valid ONNX: {error}.") from error
        return bytes(model.SerializeToString(deterministic=True))


def clean_graph(onnx: bytes) -> Graph:
    """Open a graph and merge into its convolutions whatever is only a part of them.

    Parameters
    ----------
    onnx : bytes
        A serialized model.

    Returns
    -------
    Graph
        Weights of 16 bits are 32 bits wide again, of the same values. Paddings with zeros, and
        products and sums by channel behind a convolution, are gone; products and sums by channel
        that stand elsewhere in the maps are depthwise convolutions of one pixel. Every
        convolution has a bias.

    Raises
    ------
    BundleError, MissingExtraError
        See `Graph`.
    """
    graph = Graph(onnx)
    _widen(graph)
    for node in list(graph.nodes):
        if node.op_type == "Pad":
            _merge_pad(graph, node)
    for node in list(graph.nodes):
        if node.op_type == "Conv":
            _give_bias(graph, node)
            while _merge_scale(graph, node):
                pass
    for node in list(graph.nodes):
        if node.op_type == "Mul" and node in graph.nodes:
            _make_depthwise(graph, node)
    return graph


def _widen(graph: Graph) -> None:
    """Take out what `to_float16` put in."""
    for node in list(graph.nodes):
        narrow = graph.constants.get(node.input[0]) if node.op_type == "Cast" else None
        if narrow is not None and narrow.dtype == np.float16 and graph.attribute(node, "to") == 1:
            graph.constants[node.output[0]] = narrow.astype(np.float32)
            graph.nodes.remove(node)


def to_float16(onnx: bytes) -> bytes:
    """Keep the weights of large layers in 16 bits.

    The runtime widens them once, when it opens the graph; input, output and all arithmetic stay
    32 bits wide. Layers of fewer than 4,096 weights and the last linear layer keep their 32 bits.

    Parameters
    ----------
    onnx : bytes
        A serialized model of 32 bits; one of 16 comes out as it was.

    Returns
    -------
    bytes
        About half as long as with 32 bits.

    Raises
    ------
    BundleError
        When a weight does not fit into 16 bits, or every layer is small.
    """
    graph = clean_graph(onnx)
    linear = [node for node in graph.nodes if node.op_type in _LINEAR]
    narrowed: dict[str, str] = {}
    nodes = []
    for node in graph.nodes:
        if node.op_type == "Conv" or (node.op_type in _LINEAR and node is not linear[-1]):
            name = node.input[1]
            weights = graph.constants.get(name)
            if weights is not None and weights.dtype == np.float32 and weights.size >= _SMALL:
                with np.errstate(over="ignore"):
                    graph.constants[f"{name}_half"] = weights.astype(np.float16)
                if not np.isfinite(graph.constants[f"{name}_half"]).all():
                    raise BundleError(
                        "The network has weights that float16 cannot hold (beyond 65,504); export "
                        "it as float32 or int8."
                    )
                nodes.append(graph.node("Cast", [f"{name}_half"], f"{name}_wide", to=1))
                narrowed[name] = f"{name}_wide"
            if name in narrowed:
                node.input[1] = narrowed[name]
        nodes.append(node)
    if not narrowed:
        raise BundleError(
            f"No layer of the network has {_SMALL:,} weights or more: float16 would save nothing. "
            "Export it as it is."
        )
    graph.nodes = nodes
    return graph.to_bytes()


def open_session(onnx: bytes) -> Any:
    """Open a graph with ONNX Runtime, see `leuko.runtime.network.session.load_graph`.

    Parameters
    ----------
    onnx : bytes
        A serialized model without external data.

    Returns
    -------
    onnxruntime.InferenceSession
        Ready.

    Raises
    ------
    BundleError
        When it cannot be opened.
    """
    return load_graph(onnx, "The converted network cannot be opened")


def _merge_pad(graph: Graph, pad: Any) -> None:
    """Turn a padding with zeros before a convolution into the convolution's own."""
    conv = graph.only_user(pad.output[0])
    amounts = graph.constants.get(pad.input[1]) if len(pad.input) > 1 else None
    value = graph.constants.get(pad.input[2]) if len(pad.input) > 2 and pad.input[2] else 0
    fits = (
        conv is not None
        and conv.op_type == "Conv"
        and conv.input[0] == pad.output[0]
        and amounts is not None
        and len(amounts) == 8
        and not amounts[[0, 1, 4, 5]].any()
        and amounts.min() >= 0
        and value is not None
        and not np.any(value)
        and graph.attribute(pad, "mode", b"constant") == b"constant"
        and len(pad.input) < 4
    )
    if not fits or graph.attribute(conv, "auto_pad", b"NOTSET") != b"NOTSET":
        return
    assert amounts is not None and conv is not None  # noqa: PT018, S101  (for the type checker)
    old = list(graph.attribute(conv, "pads", [0, 0, 0, 0]))
    more = [int(amounts[place]) for place in (2, 3, 6, 7)]
    graph.set_attribute(conv, "pads", [a + b for a, b in zip(old, more, strict=True)])
    conv.input[0] = pad.input[0]
    graph.nodes.remove(pad)


def _give_bias(graph: Graph, conv: Any) -> None:
    """Let a convolution with constant weights have a bias, and both under names of their own."""
    weights = graph.constants.get(conv.input[1])
    if weights is None or (len(conv.input) > 2 and conv.input[2] not in graph.constants):
        return
    stem = conv.output[0]
    bias = graph.constants[conv.input[2]] if len(conv.input) > 2 else np.zeros(len(weights))
    graph.constants[f"{stem}_weights"] = weights
    graph.constants[f"{stem}_bias"] = bias.astype(np.float32)
    source = conv.input[0]
    del conv.input[:]
    conv.input.extend([source, f"{stem}_weights", f"{stem}_bias"])


def _merge_scale(graph: Graph, conv: Any) -> bool:
    """Merge the product or sum behind a convolution into it; whether there was one."""
    after = graph.only_user(conv.output[0])
    if after is None or after.op_type not in ("Mul", "Add") or len(conv.input) < 3:
        return False
    weights_name, bias_name = conv.input[1], conv.input[2]
    if weights_name not in graph.constants or bias_name not in graph.constants:
        return False
    weights = graph.constants[weights_name].astype(np.float64)
    bias = graph.constants[bias_name].astype(np.float64)
    factor = _by_channel(graph, after, conv.output[0], len(weights))
    if factor is None:
        return False
    if after.op_type == "Mul":
        weights, bias = weights * factor[:, None, None, None], bias * factor
    else:
        bias = bias + factor
    graph.constants[weights_name] = weights.astype(np.float32)
    graph.constants[bias_name] = bias.astype(np.float32)
    conv.output[0] = after.output[0]
    graph.nodes.remove(after)
    return True


def _by_channel(graph: Graph, node: Any, name: str, channels: int) -> Array | None:
    """The constant of a product or sum, one number a channel of a map (N, C, h, w), or None."""
    others = [item for item in node.input if item != name]
    if len(others) != 1 or others[0] not in graph.constants:
        return None
    constant = graph.constants[others[0]]
    if constant.size == 1 and constant.ndim <= 4:
        return np.full(channels, constant.reshape(-1)[0], np.float64)
    shape = (1,) * (4 - constant.ndim) + constant.shape
    if len(shape) != 4 or shape[0] != 1 or shape[2:] != (1, 1) or shape[1] != channels:
        return None
    return constant.reshape(-1).astype(np.float64)


def _make_depthwise(graph: Graph, product: Any) -> None:
    """Turn a product and a sum by channel in the middle of the maps into one convolution.

    A batch normalisation behind an activation arrives like that. As a convolution it can be
    rounded to eight bits as a whole.
    """
    total = graph.only_user(product.output[0])
    constants = [item for item in product.input if item in graph.constants]
    if total is None or total.op_type != "Add" or len(constants) != 1:
        return
    shape = graph.constants[constants[0]].shape
    if len(shape) not in (3, 4) or shape[-2:] != (1, 1) or shape[-3] < 2:
        return
    channels = shape[-3]
    source = next(item for item in product.input if item not in graph.constants)
    factor = _by_channel(graph, product, source, channels)
    offset = _by_channel(graph, total, product.output[0], channels)
    if factor is None or offset is None:
        return
    stem = total.output[0]
    graph.constants[f"{stem}_weights"] = factor.astype(np.float32).reshape(channels, 1, 1, 1)
    graph.constants[f"{stem}_bias"] = offset.astype(np.float32)
    graph.nodes[graph.nodes.index(total)] = graph.node(
        "Conv",
        [source, f"{stem}_weights", f"{stem}_bias"],
        stem,
        group=channels,
        kernel_shape=[1, 1],
        pads=[0, 0, 0, 0],
    )
    graph.nodes.remove(product)
