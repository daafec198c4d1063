"""What differs from slide to slide in a drawn smear: stain, light, focus, camera, crowding.

Colours are made as a microscope makes them. Every pixel holds amounts of four absorbers; each
absorber has an optical density in red, green and blue; densities add, and the light that is
left is ``illuminant * 10 ** -density``. A slide varies the absorbers and the lamp, and never
paints a colour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

__all__ = ["Colour", "SlideStyle", "draw_slide_style"]

Colour = tuple[float, float, float]
"""Red, green, blue."""

# Optical density per unit of each absorber, measured on Raabin-WBC crops as the density of a
# region over that of the empty background, scaled so that the largest entry is 1.
_CHROMATIN: Final = (0.28, 1.00, 0.20)  # azure B with eosin on DNA, hematoxylin-like: purple
_EOSIN: Final = (0.26, 1.00, 0.52)  # eosin on basic proteins: orange to pink
_AZURE: Final = (1.00, 0.88, 0.26)  # azure and methylene blue on RNA: blue
_HAEMOGLOBIN: Final = (0.62, 1.00, 0.47)  # haemoglobin with its eosin


@dataclass(frozen=True, slots=True)
class SlideStyle:
    """One slide and the microscope that looked at it.

    Attributes
    ----------
    illuminant : tuple of 3 floats
        Colour of the empty background, 0 to 255, after the camera's white balance.
    chromatin, eosin, azure, haemoglobin : tuple of 3 floats
        Optical density in red, green and blue of one unit of each absorber.
    chromatin_strength, eosin_strength, azure_strength, red_strength : float
        How much of each absorber the slide took up; 1 is usual.
    red_density : float
        Share of the area that red cells are meant to cover, 0 to 1.
    red_overlap : float
        Share of red cells that may lie over one another, 0 to 1.
    red_radius : float
        Mean radius of a red cell, in micrometres.
    red_pallor : float
        Depth of the pale centre of red cells, 0 (none) to 1.
    red_irregularity : float
        How far red cells are from round; 1 is usual.
    platelet_density : float
        Platelets in 1000 square micrometres.
    debris : float
        Specks of dye in 1000 square micrometres.
    gradient : tuple of 2 floats
        Relative change of the light per 100 micrometres along the rows and the columns.
    blur : float
        Standard deviation of the defocus, in micrometres.
    sharpening : float
        Strength of the camera's own sharpening (it leaves bright rims round dark cells).
    aberration : float
        Shift between the red and the blue image, in micrometres.
    noise : float
        Standard deviation of the camera's noise, in grey levels of 0 to 255.
    contrast : float
        Exponent of the camera's tone curve; 1 is linear.
    jpeg_quality : int
        JPEG quality of the camera, 1 to 100.
    jpeg_subsampling : str
        ``"444"`` or ``"420"``.
    """

    illuminant: Colour
    chromatin: Colour
    eosin: Colour
    azure: Colour
    haemoglobin: Colour
    chromatin_strength: float
    eosin_strength: float
    azure_strength: float
    red_strength: float
    red_density: float
    red_overlap: float
    red_radius: float
    red_pallor: float
    red_irregularity: float
    platelet_density: float
    debris: float
    gradient: tuple[float, float]
    blur: float
    sharpening: float
    aberration: float
    noise: float
    contrast: float
    jpeg_quality: int
    jpeg_subsampling: str


def draw_slide_style(rng: np.random.Generator) -> SlideStyle:
    """Draw the look of one slide.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness; it moves on by a fixed number of draws.

    Returns
    -------
    SlideStyle
        Most slides look like Raabin-WBC's; about one in six was seen by another camera under
        a cooler lamp.

    Examples
    --------
    >>> style = draw_slide_style(np.random.default_rng(0))
    >>> style == draw_slide_style(np.random.default_rng(0))
    True
    """
    cool = rng.random() < 0.16
    base = np.array([203.0, 190.0, 166.0]) if cool else np.array([224.0, 190.0, 177.0])
    base = base * np.exp(rng.normal(0.0, 0.022)) + rng.normal(0.0, [4.0, 3.5, 5.0])
    # One number tilts the whole slide: an acid buffer reddens, an alkaline one turns it blue.
    alkaline = rng.normal(0.0, 1.0) + (0.8 if cool else 0.0)
    chromatin = np.array(_CHROMATIN) * [1.0 + 0.10 * alkaline, 1.0, 1.0 - 0.05 * alkaline]
    azure = np.array(_AZURE) * np.exp(rng.normal(0.0, 0.05, 3))
    eosin = np.array(_EOSIN) * np.exp(rng.normal(0.0, [0.08, 0.02, 0.06]))
    red = np.array(_HAEMOGLOBIN) * [1.0 + 0.13 * alkaline, 1.0, 1.0 - 0.05 * alkaline]
    red = red * np.exp(rng.normal(0.0, [0.12, 0.02, 0.07]))
    chromatin = chromatin * np.exp(rng.normal(0.0, [0.05, 0.01, 0.06]))
    angle = rng.uniform(0.0, 2.0 * np.pi)
    slope = rng.gamma(2.0, 0.04)
    sharp = rng.random()
    return SlideStyle(
        illuminant=_colour(np.clip(base, 120.0, 252.0)),
        chromatin=_colour(chromatin),
        eosin=_colour(eosin),
        azure=_colour(azure),
        haemoglobin=_colour(red),
        chromatin_strength=float(np.exp(rng.normal(0.0, 0.10))),
        eosin_strength=float(np.exp(rng.normal(0.0, 0.14))),
        azure_strength=float(np.exp(rng.normal(0.0, 0.20))),
        red_strength=float(np.exp(rng.normal(0.0, 0.15))),
        red_density=float(rng.uniform(0.34, 0.66)),
        red_overlap=float(rng.beta(1.6, 4.0)),
        red_radius=float(rng.normal(3.5, 0.15)),
        red_pallor=float(np.clip(rng.normal(0.66, 0.20), 0.08, 0.95)),
        red_irregularity=float(rng.gamma(5.0, 0.2)),
        platelet_density=float(rng.gamma(2.0, 0.45)),
        debris=float(rng.gamma(1.0, 0.35)),
        gradient=(float(slope * np.sin(angle)), float(slope * np.cos(angle))),
        blur=float(0.135 + 0.08 * (1.0 - sharp) ** 2),
        sharpening=float(rng.uniform(0.0, 0.55)),
        aberration=float(abs(rng.normal(0.0, 0.05)) + (0.06 if cool else 0.0)),
        noise=float(rng.uniform(0.8, 2.6)),
        contrast=float(np.exp(rng.normal(0.0, 0.04))),
        jpeg_quality=int(rng.integers(78, 96)),
        jpeg_subsampling="420" if rng.random() < 0.7 else "444",
    )


def _colour(values: np.ndarray) -> Colour:
    """Three plain floats."""
    red, green, blue = (float(value) for value in values)
    return (red, green, blue)
