"""A picture as text: two pixels in each character."""

from __future__ import annotations

from PIL import Image
from rich.color import Color
from rich.style import Style
from rich.text import Text

_UPPER_HALF = "\N{UPPER HALF BLOCK}"


def in_colour(picture: Image.Image, width: int) -> Text:
    """The picture, ``width`` characters wide at most, for a terminal that shows 24-bit colours."""
    small = picture.convert("RGB")
    small.thumbnail((width, 2 * width), Image.Resampling.LANCZOS)
    pixels = small.load()
    assert pixels is not None
    text = Text(no_wrap=True)
    for y in range(0, small.height, 2):
        for x in range(small.width):
            upper = Color.from_rgb(*pixels[x, y])
            lower = Color.from_rgb(*pixels[x, y + 1]) if y + 1 < small.height else None
            text.append(_UPPER_HALF, Style(color=upper, bgcolor=lower))
        text.append("\n")
    return text
