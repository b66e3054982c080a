"""Images: broken, lying, huge, of formats that nobody asked for; and odd ones that are sound all the same."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from PIL import Image

from tests.corpus import Case, beside_others
from wdsfilter import images

SIDE = 64


def cases() -> Iterator[Case]:
    """All of them."""
    for name, data in _sound():
        yield _case(f"sound/{name}", data)
    for name, data, reason in _bad():
        yield _case(f"bad/{name}", data, reason)


def heavy() -> Iterator[Case]:
    """The largest that are accepted, of the modes that cost the most; they take seconds."""
    yield _case("heavy/16-bit", lambda: png_of(8000, 8000, 16, 0, zeros(16001 * 8000)))
    yield _case("heavy/alpha", lambda: png_of(8000, 8000, 8, 6, zeros(32001 * 8000)))
    yield _case("heavy/grey-alpha", lambda: png_of(8000, 8000, 8, 4, zeros(16001 * 8000)))
    picture = Image.new("RGBA", (8000, 8000), (9, 99, 200, 128))
    for format in {"WEBP", "AVIF"} & {*images.FORMATS}:
        options = {"method": 0, "lossless": True} if format == "WEBP" else {"speed": 10}
        yield _case(f"heavy/alpha-{format.lower()}", partial(saved, picture, format, **options, exif=exif(6)))
    progressive = {"progressive": True, "quality": 30}
    yield _case("heavy/progressive", lambda: saved(Image.new("CMYK", (8000, 8000)), "JPEG", **progressive))
    yield _case("heavy/scans", lambda: scans(20, 8000))


def _case(name: str, data: bytes | Callable[[], bytes], reason: str = "") -> Case:
    def members() -> list[tuple[str, bytes]]:
        return [("case.jpg", data() if callable(data) else data), ("case.txt", b"A picture of a red car.")]

    return beside_others(f"image/{name}", members, reason)


# --- making them ------------------------------------------------------------------------------


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    """An image file."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def picture(width: int = 48, height: int = 32) -> Image.Image:
    """Smooth noise: no two corners alike, and it survives JPEG."""
    noise = Image.frombytes("RGB", (6, 4), random.Random(0).randbytes(72))
    return noise.resize((width, height), Image.Resampling.BICUBIC)


def exif(orientation: int) -> bytes:
    """An EXIF block that says nothing but how to turn the picture."""
    block = Image.Exif()
    block[0x0112] = orientation
    return block.tobytes()


def chunk(name: bytes, data: bytes) -> bytes:
    """A chunk of a PNG, with the right checksum."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(
    width: int, height: int, depth: int, colour: int, rows: bytes, *, before: bytes = b"", after: bytes = b""
) -> bytes:
    """A PNG by hand. ``rows``: filter byte and pixels of each; chunks go before and after the pixels."""
    return png_of(width, height, depth, colour, zlib.compress(rows), before=before, after=after)


def png_of(
    width: int,
    height: int,
    depth: int,
    colour: int,
    packed: bytes,
    *,
    before: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """A PNG by hand, of rows that are compressed already."""
    start = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    end = chunk(b"IDAT", packed) + after + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + start + before + end


def zeros(count: int) -> bytes:
    """``count`` zero bytes as a zlib stream, made without holding them."""
    squeeze = zlib.compressobj(9)
    parts = [squeeze.compress(bytes(min(1 << 20, count - at))) for at in range(0, count, 1 << 20)]
    return b"".join(parts) + squeeze.flush()


def with_size(format: str, width: int, height: int) -> bytes:
    """A small file whose header claims another size."""
    data = bytearray(saved(Image.new("L", (1, 1)), format, **({"exif": exif(1)} if format == "WEBP" else {})))
    if format == "PNG":
        return png(width, height, 8, 0, b"\0\0")
    if format == "JPEG":
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", height, width)
    elif format == "GIF":
        data[6:10] = struct.pack("<HH", width, height)
    elif format == "BMP":
        data[18:26] = struct.pack("<ii", width, height)
    elif format == "WEBP":
        at = data.index(b"VP8X") + 12
        data[at : at + 6] = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    elif format == "AVIF":
        at = data.index(b"ispe") + 8
        data[at : at + 8] = struct.pack(">II", width, height)
    return bytes(data)


def scans(count: int, side: int = SIDE) -> bytes:
    """A progressive JPEG whose last scan is there ``count`` times: each costs a pass over all its pixels."""
    data = saved(Image.new("L", (side, side), 200), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * count + data[-2:]


# --- sound ones -------------------------------------------------------------------------------


def _sound() -> Iterator[tuple[str, bytes | Callable[[], bytes]]]:
    for format in images.FORMATS:
        yield f"{format.lower()}", saved(picture(), format)
        yield f"{format.lower()}-1x1", saved(picture(1, 1), format)
        yield f"{format.lower()}-and-garbage", saved(picture(), format) + b"garbage" * 99
    for orientation in range(1, 9):
        yield f"exif-{orientation}", saved(picture(), "JPEG", exif=exif(orientation))
    yield "exif-99", saved(picture(), "JPEG", exif=exif(99))
    yield "exif-noise", saved(picture(), "JPEG", exif=b"Exif\0\0" + random.Random(0).randbytes(500))
    for mode in ("L", "CMYK"):
        yield f"jpeg-{mode}", saved(picture().convert(mode), "JPEG")
    for mode in ("1", "L", "LA", "P", "RGBA", "I;16"):
        image = Image.new(mode, (9, 9)) if mode == "I;16" else picture().convert(mode)
        yield f"png-{mode}", saved(image, "PNG")
    yield "png-16-bit-colour", png(2, 1, 16, 2, b"\0" + bytes(12))
    yield "png-transparent-index", saved(picture().convert("P"), "PNG", transparency=1)
    yield "png-interlaced-claim", png(1, 1, 8, 0, b"\0\0")
    yield "jpeg-progressive", saved(picture(), "JPEG", progressive=True)
    yield "jpeg-of-40-scans", scans(40)
    for format in ("GIF", "PNG", "WEBP"):
        yield (
            f"animated-{format.lower()}",
            saved(picture(), format, save_all=True, append_images=[picture().rotate(90)] * 3),
        )
    yield "jpeg-of-several", saved(picture(), "MPO", save_all=True, append_images=[picture(9, 9)])
    for name, profile in (
        ("noise", random.Random(1).randbytes(3000)),
        ("empty", b""),
        ("huge", bytes(1 << 20)),
    ):
        yield f"profile-{name}", saved(picture(), "JPEG", icc_profile=profile)
    yield "png-of-too-few-rows", png(9, 9, 8, 0, bytes(10))  # the rest is black, as every viewer shows it
    yield "gif-of-0x0", with_size("GIF", 0, 0)  # its frame has a size of its own
    yield "very-wide", saved(picture(199, 1), "PNG")
    yield "64-megapixels", lambda: png_of(8000, 8000, 8, 0, zeros(8001 * 8000))


_EXIF = b"\xff\xe1\xff\xff" + b"Exif\0\0" + bytes(65_527)


# --- bad ones ---------------------------------------------------------------------------------


def _bad() -> Iterator[tuple[str, bytes | Callable[[], bytes], str]]:
    yield "empty", b"", "image_empty"
    for name, data in (
        ("html", b"<!DOCTYPE html><html><body>404</body></html>"),
        ("svg", b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'),
        (
            "svg-with-prolog",
            b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg/>',
        ),
        ("eps", saved(picture(), "EPS")),
        ("postscript", b"%!PS-Adobe-3.0\n(/tmp/owned) (w) file closefile\n"),
        ("pdf", saved(picture(), "PDF")),
        ("tiff", saved(picture(), "TIFF")),
        ("ico", saved(picture(), "ICO")),
        ("ppm", saved(picture(), "PPM")),
        ("tga", saved(picture(), "TGA")),
        ("pcx", saved(picture(), "PCX")),
        ("sgi", saved(picture(), "SGI")),
        ("dds", saved(picture(), "DDS")),
        ("icns", b"icns\0\0\0\x08"),
        ("psd", b"8BPS\0\1" + bytes(99)),
        ("jpeg-2000", b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(99)),
        ("jpeg-xl", b"\xff\x0a" + bytes(99)),
        ("heic", b"\0\0\0\x18ftypheic" + bytes(99)),
        ("mp4", b"\0\0\0\x18ftypmp42" + bytes(99)),
        ("wav", b"RIFF\x24\0\0\0WAVEfmt "),
        ("zeros", bytes(999)),
        ("one-byte", b"\xff"),
        ("pickle", b"\x80\x04\x8c\x05posix\x8c\x06system\x93."),
        ("base64", b"data:image/png;base64,iVBORw0KGgo="),
        ("url", b"https://example.org/a.jpg"),
        ("gzip", b"\x1f\x8b\x08" + bytes(99)),
        ("byte-order-mark-and-png", b"\xef\xbb\xbf" + saved(picture(), "PNG")),
        ("blank-and-jpeg", b"\n" + saved(picture(), "JPEG")),
    ):
        yield f"format/{name}", data, "image_format"
    for format in images.FORMATS:
        whole = saved(picture(480, 320), format)
        for share in (0.1, 0.5, 0.95):
            reason = "image_broken" if format == "AVIF" and share < 0.9 else "image_truncated"
            yield f"cut/{format.lower()}-{share:.0%}", whole[: int(share * len(whole))], reason
    for format in ("JPEG", "PNG", "GIF", "BMP"):
        for width, height in ((8001, 8000), (30_000, 30_000)):
            yield (
                f"size/{format.lower()}-{width}x{height}",
                with_size(format, width, height),
                "image_too_large",
            )
    yield (
        "size/png-of-20-KB-and-700-MB",
        lambda: png_of(15_275, 15_275, 8, 2, zeros(20 << 20)),
        "image_too_large",
    )
    yield "size/gif-65535", with_size("GIF", 65_535, 65_535), "image_too_large"
    yield "size/png-2^31", with_size("PNG", 2**31 - 1, 2**31 - 1), "image_too_large"
    yield "size/jpeg-of-10-thousand-scans", lambda: scans(10_000, 1024), "image_too_complex"
    yield "size/png-0x0", with_size("PNG", 0, 0), "image_broken"
    for kind, start in ((b"zTXt", b"k\0\0"), (b"iTXt", b"k\0\1\0\0\0"), (b"iCCP", b"k\0\0")):
        bomb = chunk(kind, start + zeros(80_000_000))
        yield f"metadata/{kind.decode()}-bomb", png(1, 1, 8, 0, b"\0\0", before=bomb), "image_broken"
        yield (
            f"metadata/{kind.decode()}-bomb-behind-the-pixels",
            png(1, 1, 8, 0, b"\0\0", after=bomb),
            "image_broken",
        )
    plain = saved(picture(), "JPEG")
    for name, flood in (
        ("fill", b"\xff" * (9 << 20)),
        ("segments", b"\xff\xe0\0\2" * 20_000),
        ("exif", _EXIF * 150),
    ):
        yield f"flood/jpeg-{name}", plain[:2] + flood + plain[2:], "image_too_complex"
    yield (
        "flood/png-chunks",
        png(1, 1, 8, 0, b"\0\0", before=chunk(b"abCd", b"") * 20_000),
        "image_too_complex",
    )
    plain = saved(picture(), "GIF")
    at = plain.index(b",")
    for name, flood in (
        ("comments", b"!\xfe\1x\0" * 20_000),
        ("comment", b"!\xfe" + b"\1x" * 20_000 + b"\0"),
        ("nothing", bytes(20_000)),
    ):
        yield f"flood/gif-{name}", plain[:at] + flood + plain[at:], "image_too_complex"
    plain = saved(picture(), "PNG")
    yield "broken/png-checksum", plain[:20] + bytes([plain[20] ^ 1]) + plain[21:], "image_broken"
    yield "broken/png-no-pixels", b"\x89PNG\r\n\x1a\n" + chunk(b"IEND", b""), "image_broken"
    yield "broken/png-signature-alone", b"\x89PNG\r\n\x1a\n", "image_truncated"
    yield "broken/png-pixels-not-zlib", png_of(9, 9, 8, 0, b"not zlib"), "image_broken"
    yield "broken/png-unknown-depth", png(1, 1, 3, 0, b"\0\0"), "image_broken"
    yield "broken/jpeg-signature-alone", b"\xff\xd8\xff", "image_broken"
    yield "broken/jpeg-no-frame", b"\xff\xd8\xff\xd9" + bytes(99), "image_broken"
    yield "broken/jpeg-noise", b"\xff\xd8\xff" + random.Random(3).randbytes(999), "image_broken"
    yield "broken/gif-signature-alone", b"GIF89a", "image_truncated"
    yield "broken/gif-no-frame", b"GIF89a\1\0\1\0\0\0\0;", "image_truncated"
    yield "broken/bmp-signature-alone", b"BM", "image_truncated"
    yield "broken/webp-empty", b"RIFF\4\0\0\0WEBP", "image_broken"
    yield "broken/webp-noise", b"RIFF\xe8\3\0\0WEBP" + random.Random(4).randbytes(996), "image_broken"
    yield "broken/avif-noise", b"\0\0\0\x20ftypavif" + random.Random(5).randbytes(999), "image_broken"
