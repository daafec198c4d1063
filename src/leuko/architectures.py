"""The registry of architectures: what a recipe, a plan and a builder must know of a network.

One entry registers a network, and any image classifier of `keras.applications` that can be told to
leave pixels as they are (all but EfficientNet's first version). Pixels are scaled in front of it.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from leuko.errors import RecipeError

__all__ = [
    "ARCHITECTURES",
    "PIXELS",
    "Architecture",
    "PixelScaling",
    "find_architecture",
]


@dataclass(frozen=True, slots=True)
class PixelScaling:
    """How RGB 0-255 is brought to what a network reads: ``scale * pixels + offset``.

    Attributes
    ----------
    scale, offset : float or tuple of float
        One number, or one for each channel as the network reads them.
    blue_first : bool
        Whether the network reads blue, green, red.
    """

    scale: float | tuple[float, ...] = 1.0
    offset: float | tuple[float, ...] = 0.0
    blue_first: bool = False


_MEAN: Final = (0.485, 0.456, 0.406)
_SPREAD: Final = (0.229, 0.224, 0.225)

PIXELS: Final[Mapping[str, PixelScaling]] = {
    "zero-one": PixelScaling(1 / 255),
    "minus-one-one": PixelScaling(1 / 127.5, -1.0),
    "imagenet-rgb": PixelScaling(
        tuple(1 / 255 / spread for spread in _SPREAD),
        tuple(-mean / spread for mean, spread in zip(_MEAN, _SPREAD, strict=True)),
    ),
    "imagenet-bgr": PixelScaling(1.0, (-103.939, -116.779, -123.68), blue_first=True),
    "divided-twice": PixelScaling(1 / 255 / 255),
}
"""Scalings by name. Keras calls the second "tf", the third "torch" and the fourth "caffe"."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """A network that recipes can name.

    Attributes
    ----------
    builder : str
        ``module:function``. With ImageNet's weights: a function of `keras.applications`, or one of
        its signature. Without: takes scaled pixels and the momentum of normalisations, gives the
        features.
    parameters : int
        What the network holds below its head, at width 1.
    pixels : str
        Scaling that it was made for, a name of `PIXELS`; what recipes take that name none.
    imagenet : str
        File of its ImageNet weights without top, below Keras's own address, with ``{width}`` where
        there is one for each width; empty where it has no pretrained backbone.
    bundled : str
        File of Leuko's own weights for it, in the package; empty where there are none.
    smallest : int
        Least side of its input in pixels.
    """

    builder: str
    parameters: int
    pixels: str
    imagenet: str = ""
    bundled: str = ""
    smallest: int = 32

    @property
    def title(self) -> str:
        """What the literature calls it."""
        return self.builder.partition(":")[2]

    @property
    def has_backbone(self) -> bool:
        """Whether there is a part with pretrained weights, which can be kept as it is."""
        return bool(self.imagenet)

    @property
    def has_widths(self) -> bool:
        """Whether its layers can have more or fewer channels."""
        return "{width}" in self.imagenet


_KERNELS: Final = "weights_tf_dim_ordering_tf_kernels"

# fmt: off
ARCHITECTURES: Final[dict[str, Architecture]] = {
    "cnn": Architecture(
        "leuko.training.architectures:small_cnn", 25_208, "zero-one", smallest=16),
    "mobilenetv2": Architecture(
        "keras.applications:MobileNetV2", 2_257_984, "minus-one-one",
        f"mobilenet_v2/mobilenet_v2_{_KERNELS}_{{width}}_224_no_top.h5", "mobilenetv2-leuko.npz"),
    "mobilenetv3small": Architecture(
        "keras.applications:MobileNetV3Small", 939_120, "minus-one-one",
        "mobilenet_v3/weights_mobilenet_v3_small_224_{width}_float_no_top_v2.h5"),
    "vgg16": Architecture(
        "keras.applications:VGG16", 14_714_688, "imagenet-bgr", f"vgg16/vgg16_{_KERNELS}_notop.h5"),
    "densenet121": Architecture(
        "keras.applications:DenseNet121", 7_037_504, "imagenet-rgb",
        f"densenet/densenet121_{_KERNELS}_notop.h5"),
    "efficientnetv2b0": Architecture(
        "keras.applications:EfficientNetV2B0", 5_919_312, "imagenet-rgb",
        "efficientnet_v2/efficientnetv2-b0_notop.h5"),
}
# fmt: on
"""Networks by the name that recipes give them."""


def find_architecture(name: str) -> Architecture:
    """Open an entry of the registry.

    Parameters
    ----------
    name : str
        As recipes give it.

    Returns
    -------
    Architecture
        Of that name.

    Raises
    ------
    RecipeError
        When none is registered under it; the message lists those that are.

    Examples
    --------
    >>> find_architecture("densenet121").title
    'DenseNet121'
    """
    if name not in ARCHITECTURES:
        close = difflib.get_close_matches(name, ARCHITECTURES, 1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise RecipeError(
            f"model.architecture must be one of {', '.join(ARCHITECTURES)}; received "
            f"{name!r}.{hint}"
        )
    return ARCHITECTURES[name]
