"""A picture as text: two pixels in each character."""

from __future__ import annotations

import numpy as np
from PIL import Image
from rich.color import Color
from rich.style import Style
from rich.text import Text

_UPPER_HALF = "\N{UPPER HALF BLOCK}"


def in_colour(picture: Image.Image, width: int) -> Text:
    """The picture, ``width`` characters wide at most, for a terminal that shows 24-bit colours."""
    small = picture.convert("RGB")
    small.thumbnail((width, 2 * width), Image.Resampling.LANCZOS)
    rows = [[Color.from_rgb(*pixel) for pixel in row] for row in np.asarray(small).tolist()]
    rows.append([Color.default()] * small.width)  # below the last one, where their number is odd
    text = Text(no_wrap=True)
    for upper, lower in zip(rows[:-1:2], rows[1::2], strict=False):
        for above, below in zip(upper, lower, strict=True):
            text.append(_UPPER_HALF, Style(color=above, bgcolor=below))
        text.append("\n")
    return text
