"""What all figures share: colours that colour-blind eyes tell apart, names that fit, and a figure as pixels."""

from __future__ import annotations

from textwrap import wrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

# Okabe and Ito's palette, its yellow darkened so that it can be seen on white.
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PINK = PALETTE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#B8A900", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
GREY = "#9A9A9A"
_MARKERS = ("o", "^", "s", "D")
MOST_CLASSES = len(PALETTE) * len(_MARKERS)
"""Classes that can be told apart in one drawing, by colour and marker."""


def class_style(number: int) -> tuple[str, str]:
    """Colour and marker of the class with this number in a drawing; they repeat after :data:`MOST_CLASSES`.

    Both change from class to class, so that colours that are alike to some eyes have markers that are not.

    Example:
        >>> class_style(1), class_style(4), class_style(9)
        (('#E69F00', '^'), ('#B8A900', 'o'), ('#E69F00', 's'))
    """
    return PALETTE[number % len(PALETTE)], _MARKERS[(number + number // len(PALETTE)) % len(_MARKERS)]


def shorten(text: str, length: int) -> str:
    """A text of at most `length` characters.

    Example:
        >>> shorten("put on headphone", 10)
        'put on he…'
    """
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def class_name(names: tuple[str, ...], label: int) -> str:
    """Name of a class, or its number where it has none; `unlabelled` for -1.

    Example:
        >>> class_name(("bow",), 0), class_name((), 3), class_name((), -1)
        ('bow', 'class 3', 'unlabelled')
    """
    if label < 0:
        return "unlabelled"
    return names[label] if label < len(names) else f"class {label}"


def heading(figure: Figure, text: str, size: float = 12) -> None:
    """Write a title above the whole drawing, in as many lines as it needs."""
    width = int(figure.get_figwidth() / (0.0085 * size))  # characters
    figure.suptitle("\n".join(wrap(text, width)), fontsize=size, parse_math=False)


def remark(figure: Figure, text: str) -> None:
    """Write what a reader has to know below the drawing; nothing where there is nothing to say."""
    if text:
        width = int(figure.get_figwidth() / 0.066)  # characters of this size
        lines = [part for line in text.split("\n") for part in wrap(line, width)]
        figure.supxlabel("\n".join(lines), fontsize=8, color="0.35", parse_math=False)


def open_frame(axes: Axes) -> None:
    """Leave out the lines above and on the right of a chart."""
    axes.spines[["top", "right"]].set_visible(False)


def pixels(figure: Figure) -> NDArray[np.uint8]:
    """The figure as an image, (H, W, 4)."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())
