"""Untrusted bytes -> pixels, safely.

Everything here takes bytes that a stranger uploaded. What cannot or must not be decoded raises
:class:`wdsfilter.errors.BadImage`, with one of these reasons:

    image_empty       no bytes
    image_format      not one of :data:`FORMATS`: HTML, SVG or EPS named ``.jpg``, ...
    image_too_large   more pixels than ``max_pixels``, as its header says, before anything is decoded
    image_too_complex more segments, chunks or scans than images have (:mod:`wdsfilter.image_parts`)
    image_truncated   ends before its pixels do
    image_broken      anything else that its decoder objects to

A MemoryError passes through: it tells of this machine, not of the image.

Pillow's decoders are called one by one, by signature, and never through ``Image.open``: a plugin that
is not named here is not even imported, and Pillow's own pixel limit, which is global and warns
before it refuses, stays out of the way.
"""

from __future__ import annotations

import io
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from PIL import Image, ImageChops, ImageFile, features
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from wdsfilter import image_parts
from wdsfilter.canvas import Canvas
from wdsfilter.errors import BadImage
from wdsfilter.jpeg_size import jpeg_size

MAX_PIXELS = 64_000_000

_OPENERS: dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    "JPEG": JpegImageFile,  # an MPO is read as the JPEG that it starts with
    "PNG": PngImageFile,
    "GIF": GifImageFile,
    "BMP": BmpImageFile,
}
if features.check("webp"):
    _OPENERS["WEBP"] = WebPImageFile
if "avif" in features.modules and features.check("avif"):
    from PIL.AvifImagePlugin import AvifImageFile

    _OPENERS["AVIF"] = AvifImageFile

FORMATS = tuple(_OPENERS)
"""The allow-list: WEBP and AVIF only where the installed Pillow reads them."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_WHITE = (255, 255, 255)
_AT_A_TIME = 1 << 24
"""Bytes that a decoder gets: by Pillow's 64 KB, a JPEG's falls back to slow steps at the end of each."""

_one_at_a_time = threading.Lock()


@dataclass(frozen=True, slots=True)
class Header:
    """What an image says of itself: ``format`` from :data:`FORMATS`, ``width`` and ``height`` upright."""

    format: str
    width: int
    height: int


def header(data: bytes | memoryview, *, max_pixels: int = MAX_PIXELS) -> Header:
    """Format and upright size of an image, without decoding its pixels. Raises BadImage.

    A rotation that a PNG states behind its pixels is not seen here, but is by :func:`decode`.
    """
    if (size := jpeg_size(data)) is not None and size[0] * size[1] <= max_pixels:
        return Header("JPEG", *size)
    with _opened(data, max_pixels) as (format, image):
        width, height = image.size
        if _orientation(image.info.get("exif")) >= 5:
            width, height = height, width
        return Header(format, width, height)


def decode(
    data: bytes | memoryview,
    *,
    max_pixels: int = MAX_PIXELS,
    at_least: Callable[[int, int], tuple[int, int]] | None = None,
    canvas: Canvas | None = None,
) -> Image.Image:
    """The first frame of an image as RGB, as a person would see it on a white page. Raises BadImage.

    A JPEG is decoded at a half, a quarter or an eighth of its size where that still is ``at_least`` what that
    function of width and height gives. A JPEG that needs no turning lies on ``canvas`` afterwards.

    Turned upright by its EXIF; transparent parts are white; 16 bits are scaled to 8. Colour
    profiles are left unused: models are trained on pixels read that way, and a profile is one more
    thing from a stranger to interpret.
    """
    with _opened(data, max_pixels) as (format, image):
        if at_least is not None:
            image.draft("RGB", at_least(*image.size))
        # A JPEG's decoder writes every pixel or fails; without a tile there is none, and what lay there would be seen.
        if canvas is not None and format == "JPEG" and image.mode == "RGB" and image.tile:
            image.im = canvas.spread(image.size)
        frame = _first_frame(image)
        method = _UPRIGHT.get(_orientation(image.info.get("exif")))
        pixels = _rgb(frame)
        del frame  # not beside the turned ones
        return pixels if method is None else pixels.transpose(method)


def dhash(image: Image.Image) -> str:
    """64-bit difference hash, 16 hex characters: near for images that look alike.

    Of 8 rows of 9 grey cells, bit by bit: is a cell brighter than its left neighbour?
    """
    cells = image.convert("L").resize((9, 8), Image.Resampling.BOX).tobytes()
    bits = 0
    for row in range(0, 72, 9):
        for left, right in zip(cells[row : row + 8], cells[row + 1 : row + 9], strict=True):
            bits = bits << 1 | (right > left)
    return f"{bits:016x}"


@contextmanager
def _opened(data: bytes | memoryview, max_pixels: int) -> Iterator[tuple[str, ImageFile.ImageFile]]:
    """An image whose header was read and whose size is allowed; what its decoder raises becomes BadImage.

    Pillow warns of every oddity that it survives (broken EXIF, odd APNG). That is noise here, and must
    not turn into a lost sample under ``-W error``, so warnings are off meanwhile. Their filters belong to
    the whole process, hence one image at a time: two threads could put them back in the wrong order.
    """
    format = _sniff(data)
    image_parts.check(format, data)
    with _one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with _OPENERS[format](io.BytesIO(data)) as image:
                width, height = image.size
                if width * height > max_pixels:
                    raise BadImage("image_too_large", f"{width} x {height}, accepted are {max_pixels} pixels")
                yield format, image
        except (BadImage, MemoryError):
            raise
        except Image.DecompressionBombError as error:  # of a WEBP or GIF, past Pillow's own limit
            raise BadImage("image_too_large", str(error)) from error
        except Exception as error:  # decoders of hostile bytes raise whatever they run into
            reason = "image_truncated" if _is_cut(format, data, error) else "image_broken"
            raise BadImage(reason, f"{format}: {error or type(error).__name__}"[:200]) from error


def _sniff(data: bytes | memoryview) -> str:
    """The format that the first bytes announce, whatever the file was called."""
    start = bytes(data[:64])
    if not start:
        raise BadImage("image_empty", "no bytes")
    found = ""
    if start.startswith(b"\xff\xd8\xff"):
        found = "JPEG"
    elif start.startswith(b"\x89PNG\r\n\x1a\n"):
        found = "PNG"
    elif start.startswith((b"GIF87a", b"GIF89a")):
        found = "GIF"
    elif start.startswith(b"BM"):
        found = "BMP"
    elif start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        found = "WEBP"
    elif start[4:8] == b"ftyp" and (b"avif" in start or b"avis" in start):
        found = "AVIF"
    if found not in _OPENERS:
        raise BadImage("image_format", f"starts with {start[:12]!r}, accepted are {', '.join(FORMATS)}")
    return found


def _is_cut(format: str, data: bytes | memoryview, error: Exception) -> bool:
    """Whether bytes are missing at the end, rather than wrong."""
    if format == "WEBP":  # its decoder does not say, its first chunk does
        return len(data) < 12 or len(data) < 8 + struct.unpack_from("<I", data, 4)[0]
    ran_out = any(isinstance(e, (EOFError, IndexError, struct.error)) for e in (error, error.__cause__))
    return ran_out or "truncated" in str(error).lower()


def _orientation(exif: object) -> int:
    """The orientation, 1 to 8, in the first directory of an EXIF block; 1 where there is none to be read.

    By hand, because Pillow reads every entry of the block to get at this one, and a block that is
    broken elsewhere must not cost the sample.
    """
    if not isinstance(exif, bytes):
        return 1
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(f"{order}I", exif, 4)
        (entries,) = struct.unpack_from(f"{order}H", exif, directory)
        for at in range(directory + 2, directory + 2 + 12 * entries, 12):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", exif, at)
            if tag == 0x0112:
                return value if value in range(1, 9) else 1
    except struct.error:
        pass
    return 1


def _first_frame(image: ImageFile.ImageFile) -> Image.Image:
    """The image, loaded.

    A WEBP's decoder holds two canvases, and Pillow copies what it gives twice: five times the picture, of which
    three are not needed here.
    """
    if not isinstance(image, WebPImageFile):
        image.decodermaxblock = _AT_A_TIME
        image.load()
        return image
    frame = image._decoder.get_next()
    if frame is None:
        raise EOFError("no first frame")
    del image._decoder
    return Image.frombuffer(image.mode, image.size, frame[0], "raw", image.rawmode, 0, 1)


def _rgb(image: Image.Image) -> Image.Image:
    """RGB pixels of a loaded image, on white, without its metadata."""
    transparent = image.info.get("transparency")
    if image.mode.startswith("I"):
        return _rgb_of_16_bits(image, transparent)
    if image.mode == "RGB" and transparent and max(transparent) > 255:  # 16 bits, read as 8
        image.info["transparency"] = tuple(channel >> 8 for channel in transparent)
    alpha = None
    if image.has_transparency_data:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        alpha = image.getchannel("A")
    pixels = image if image.mode == "RGB" else image.convert("RGB")  # which would copy them
    if alpha is not None:
        pixels.paste(_WHITE, mask=ImageChops.invert(alpha))
    pixels.info.clear()
    return pixels


def _rgb_of_16_bits(image: Image.Image, transparent: object) -> Image.Image:
    """RGB pixels of 16-bit grey: the high byte, as for 16-bit colour. Pillow's conversion would clip."""
    stored = image.convert("I;16").tobytes()
    high, low = (Image.frombytes("L", image.size, stored[byte::2]) for byte in (1, 0))
    pixels = high.convert("RGB")
    if isinstance(transparent, int):
        same = [
            channel.point([255 * (value == wanted) for value in range(256)])
            for channel, wanted in ((high, transparent >> 8), (low, transparent & 255))
        ]
        pixels.paste(_WHITE, mask=ImageChops.darker(*same))
    return pixels
