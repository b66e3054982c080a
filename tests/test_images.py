"""Images from strangers: every format, every trap, and what must never happen."""

from __future__ import annotations

import io
import random
import struct
import subprocess
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from tests.corpus.images import chunk, exif, picture, png, saved, scans, with_size
from wdsfilter import image_parts, images
from wdsfilter.canvas import Canvas
from wdsfilter.errors import BadImage
from wdsfilter.jpeg_size import jpeg_size

FORMATS = [*images.FORMATS]
RED, WHITE = (255, 0, 0), (255, 255, 255)
PLAIN = saved(picture(), "JPEG")
TABLE = PLAIN.index(b"\xff\xdb") + 2


def palette_image(index: int) -> Image.Image:
    image = Image.new("P", (1, 1), index)
    image.putpalette([*(0, 0, 0), *RED, *(0, 0, 255)])
    return image


def pixels(image: Image.Image) -> list[tuple[int, ...]]:
    flat = image.tobytes()
    return [tuple(flat[at : at + 3]) for at in range(0, len(flat), 3)]


def reason(call: Callable[..., object], data: bytes, **options: int) -> str:
    with pytest.raises(BadImage) as caught:
        call(data, **options)
    return caught.value.reason


@pytest.mark.parametrize("size", [(48, 32), (1, 1)], ids=["ordinary", "1x1"])
@pytest.mark.parametrize("format", FORMATS)
def test_every_format(format: str, size: tuple[int, int]) -> None:
    """Every format of the allow-list decodes to RGB of the size that its header says."""
    data = saved(picture(*size), format)
    assert images.header(data) == images.Header(format, *size)
    image = images.decode(data)
    assert (image.mode, image.size) == ("RGB", size)
    assert images.decode(memoryview(data)).tobytes() == image.tobytes()


def test_lossless_formats_keep_their_pixels() -> None:
    """What goes in comes out."""
    assert images.decode(saved(picture(), "PNG")).tobytes() == picture().tobytes()
    assert images.decode(saved(picture(), "BMP")).tobytes() == picture().tobytes()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"<!DOCTYPE html><html><body>404</body></html>", id="html"),
        pytest.param(b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', id="svg"),
        pytest.param(saved(picture(), "EPS"), id="eps"),
        pytest.param(saved(picture(), "PDF"), id="pdf"),
        pytest.param(saved(picture(), "TIFF"), id="tiff"),
        pytest.param(saved(picture(), "ICO"), id="ico"),
        pytest.param(saved(picture(), "PPM"), id="ppm"),
        pytest.param(b"\0" * 100, id="zeros"),
        pytest.param(b"\xff", id="one-byte"),
        pytest.param(b"RIFF\x24\0\0\0WAVEfmt ", id="wav"),
    ],
)
def test_other_formats_are_refused(data: bytes) -> None:
    """What is not on the allow-list is refused by its first bytes, though Pillow could read some of it."""
    assert reason(images.header, data) == reason(images.decode, data) == "image_format"


def test_empty() -> None:
    """No bytes have a reason of their own."""
    assert reason(images.header, b"") == reason(images.decode, b"") == "image_empty"


def test_only_the_allowed_decoders_are_loaded() -> None:
    """Importing this module and decoding loads no torch and no decoder that is not on the list."""
    code = (
        "import sys; from wdsfilter import images; images.decode(sys.stdin.buffer.read());"
        "print(*(m for m in sys.modules if m == 'torch' or m.endswith('ImagePlugin')))"
    )
    done = subprocess.run([sys.executable, "-c", code], input=saved(picture(), "JPEG"), capture_output=True)
    assert done.returncode == 0, done.stderr
    allowed = {"Jpeg", "Png", "Gif", "Bmp", "WebP", "Avif", "Tiff"}  # Tiff: EXIF is read by it
    assert set(done.stdout.decode().split()) <= {f"PIL.{name}ImagePlugin" for name in allowed}


@pytest.mark.parametrize("orientation", range(10))
def test_upright(orientation: int) -> None:
    """Pixels and header are turned as the EXIF says; values that mean nothing are left alone."""
    data = saved(picture(), "PNG", exif=exif(orientation))
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    image = images.decode(data)
    assert image.tobytes() == expected.tobytes()
    assert images.header(data) == images.Header("PNG", *image.size)
    assert image.size == ((32, 48) if orientation in range(5, 9) else (48, 32))


@pytest.mark.parametrize("format", [name for name in FORMATS if name not in {"GIF", "BMP"}])
def test_upright_in_every_format(format: str) -> None:
    """Every format that can state a rotation is turned."""
    data = saved(picture(), format, exif=exif(6))
    assert images.decode(data).size == (32, 48)
    assert images.header(data) == images.Header(format, 32, 48)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_size_read_by_hand_is_pillows(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a JPEG's bytes are, its header is what Pillow makes of them, or the same reason."""
    seen: set[bool] = set()

    def outcome(data: bytes) -> object:
        try:
            return images.header(data)
        except BadImage as bad:
            return str(bad)

    data = saved(picture(100, 75).convert(mode), "JPEG")
    assert jpeg_size(data) == (100, 75)
    table = data.index(b"\xff\xdb")
    for mutant in (
        *(data[:length] for length in range(0, 700, 7)),
        *(
            data[:at] + bytes([value]) + data[at + 1 :]
            for at in range(table + 70)
            for value in (0, 1, 0xD8, 0xFF)
        ),
        *(data[:table] + data[table + skipped :] for skipped in range(1, 300)),
        *mutants(data, 300),
    ):
        quick = outcome(mutant)
        with monkeypatch.context() as patched:
            patched.setattr(images, "jpeg_size", lambda data: None)
            assert quick == outcome(mutant)
        seen.add(jpeg_size(mutant) is None)
    assert seen == {True, False}


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(saved(picture(), "JPEG", exif=exif(6)), id="turned"),
        pytest.param(saved(picture(), "JPEG", icc_profile=b"profile"), id="profile"),
        pytest.param(saved(picture(), "JPEG", progressive=True), id="several-scans"),
        pytest.param(saved(picture(), "JPEG", comment=b"c" * 5000), id="far-in"),
        pytest.param(saved(picture(), "PNG"), id="png"),
        pytest.param(with_size("JPEG", 0, 9), id="no-width"),
        pytest.param(PLAIN.replace(b"\xff\xda\0\x0c\3", b"\xff\xda\0\x0c\1"), id="a-scan-of-one-component"),
        pytest.param(
            PLAIN[:TABLE] + b"\0\x44" + PLAIN[TABLE + 2 : TABLE + 67] + b"\0" + PLAIN[TABLE + 67 :],
            id="half-a-table",
        ),
    ],
)
def test_sizes_that_are_left_to_pillow(data: bytes) -> None:
    """What can turn, delay or break an image is not read by hand."""
    assert jpeg_size(data) is None


def test_rotation_behind_the_pixels() -> None:
    """A PNG may state its rotation after its pixels."""
    data = png(2, 1, 8, 2, b"\0" + bytes(6), after=chunk(b"eXIf", exif(6).removeprefix(b"Exif\0\0")))
    assert images.decode(data).size == (1, 2)


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(b"Exif\0\0", id="empty"),
        pytest.param(b"Exif\0\0II*\0\xff\xff\xff\xff", id="directory-outside"),
        pytest.param(b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x0f", id="entries-cut"),
        pytest.param(exif(6)[:-8], id="cut"),
        pytest.param(b"Exif\0\0" + b"\xff" * 50, id="noise"),
        pytest.param(
            b"Exif\0\0II*\0\x08\0\0\0\x01\0\x1a\x01\x05\0\x09\0\0\0\xff\xff\0\0\0\0\0\0", id="lying-tag"
        ),
    ],
)
def test_broken_exif_costs_nothing(block: bytes) -> None:
    """An image with broken EXIF is a readable image, silently, even where warnings are errors."""
    segment = b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block
    plain = saved(picture(), "JPEG")
    data = plain[:2] + segment + plain[20:]  # in place of the JFIF header
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert images.header(data).width == 48
        assert images.decode(data).tobytes() == images.decode(plain).tobytes()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(
            saved(Image.new("RGBA", (1, 1), (*RED, 128)), "PNG"), (255, 127, 127), id="half-transparent"
        ),
        pytest.param(saved(Image.new("RGBA", (1, 1), (*RED, 0)), "PNG"), WHITE, id="transparent"),
        pytest.param(saved(Image.new("RGBA", (1, 1), (*RED, 255)), "PNG"), RED, id="opaque"),
        pytest.param(saved(Image.new("LA", (1, 1), (0, 0)), "PNG"), WHITE, id="grey-alpha"),
        pytest.param(
            saved(Image.new("RGBA", (9, 9), (*RED, 0)), "WEBP", lossless=True, exact=True), WHITE, id="webp"
        ),
        pytest.param(saved(palette_image(1), "PNG", transparency=1), WHITE, id="palette-transparent-index"),
        pytest.param(
            saved(palette_image(1), "PNG", transparency=b"\xff\x80"), (255, 127, 127), id="palette-alpha"
        ),
        pytest.param(saved(palette_image(1), "PNG"), RED, id="palette"),
        pytest.param(saved(palette_image(1), "GIF", transparency=1), WHITE, id="gif"),
        pytest.param(
            saved(Image.new("RGB", (1, 1), RED), "PNG", transparency=RED), WHITE, id="transparent-colour"
        ),
        pytest.param(saved(Image.new("L", (1, 1), 9), "PNG", transparency=9), WHITE, id="transparent-grey"),
        pytest.param(saved(Image.new("1", (1, 1), 0), "PNG"), (0, 0, 0), id="1-bit"),
        pytest.param(saved(Image.new("L", (1, 1), 77), "PNG"), (77, 77, 77), id="grey"),
        pytest.param(saved(Image.new("CMYK", (9, 9), 0), "JPEG"), WHITE, id="cmyk-white"),
        pytest.param(saved(Image.new("CMYK", (9, 9), (0, 0, 0, 255)), "JPEG"), (0, 0, 0), id="cmyk-black"),
    ],
)
def test_modes(data: bytes, expected: tuple[int, int, int]) -> None:
    """Every mode becomes RGB as seen on a white page."""
    assert pixels(images.decode(data))[0] == expected


def test_16_bit_grey_is_scaled() -> None:
    """16-bit grey is scaled to 8 bits, not clipped; its transparent value is matched exactly."""
    values = (0, 0x00FF, 0x0100, 0x8000, 0xFFFF)
    rows = b"\0" + struct.pack(">5H", *values)
    grey = pixels(images.decode(png(5, 1, 16, 0, rows)))
    assert grey == [(v, v, v) for v in (0, 0, 1, 128, 255)]
    transparent = chunk(b"tRNS", struct.pack(">H", 0x0100))
    grey = pixels(images.decode(png(5, 1, 16, 0, rows, before=transparent)))
    assert grey == [(v, v, v) for v in (0, 0, 255, 128, 255)]


def test_16_bit_colour_is_scaled() -> None:
    """16-bit colour is scaled to 8 bits, its transparent colour too."""
    rows = b"\0" + struct.pack(">6H", 0x1234, 0, 0, 0xFFFF, 0, 0x8000)
    transparent = chunk(b"tRNS", struct.pack(">3H", 0x1234, 0, 0))
    assert pixels(images.decode(png(2, 1, 16, 2, rows, before=transparent))) == [WHITE, (255, 0, 128)]


@pytest.mark.parametrize("format", [name for name in ("GIF", "PNG", "WEBP", "AVIF") if name in FORMATS])
def test_animations_are_their_first_frame(format: str) -> None:
    """Of several frames, the first is judged."""
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, WHITE, (0, 0, 255))]
    data = saved(frames[0], format, save_all=True, append_images=frames[1:], duration=50)
    red, green, blue = pixels(images.decode(data))[0]
    assert red > 240
    assert max(green, blue) < 15


def test_mpo_is_its_first_picture() -> None:
    """A camera's several pictures in one JPEG: the first is judged."""
    data = saved(picture(), "MPO", save_all=True, append_images=[Image.new("RGB", (9, 9))])
    assert images.header(data) == images.Header("JPEG", 48, 32)
    assert images.decode(data).size == (48, 32)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_colour_profiles_change_nothing(format: str) -> None:
    """A profile, well-formed or not, neither changes pixels nor costs the image."""
    options = {"lossless": True} if format == "WEBP" else {}
    plain = images.decode(saved(picture(), format, **options))
    with_profile = images.decode(saved(picture(), format, icc_profile=b"not a profile" * 99, **options))
    assert with_profile.tobytes() == plain.tobytes()
    assert with_profile.info == {}


@pytest.mark.parametrize("size", [(8001, 8000), (10_000, 9_000), (30_000, 30_000)], ids=str)
@pytest.mark.parametrize("format", [name for name in FORMATS if name not in {"WEBP", "AVIF"}])
def test_bombs(format: str, size: tuple[int, int]) -> None:
    """A size beyond the cap is refused from the header, without warnings, whatever Pillow's own limit is."""
    data = with_size(format, *size)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert reason(images.header, data) == reason(images.decode, data) == "image_too_large"


@pytest.mark.parametrize("format", [name for name in FORMATS if name in {"WEBP", "AVIF"}])
def test_bombs_of_formats_that_check_themselves(format: str) -> None:
    """Real images beyond the cap, where a lying header is refused by the decoder."""
    data = saved(Image.new("L", (3000, 2000)), format)
    assert reason(images.header, data, max_pixels=5_999_999) == "image_too_large"
    assert reason(images.decode, data, max_pixels=5_999_999) == "image_too_large"
    assert images.header(data, max_pixels=6_000_000).width == 3000
    assert reason(images.decode, with_size(format, 16_000, 16_000)).startswith("image_")


def test_cap_is_exact_and_adjustable() -> None:
    """max_pixels is the most that is accepted, above Pillow's own limit too."""
    data = saved(Image.new("L", (100, 100)), "PNG")
    assert reason(images.decode, data, max_pixels=9_999) == "image_too_large"
    assert images.decode(data, max_pixels=10_000).size == (100, 100)
    huge = with_size("PNG", 30_000, 30_000)
    assert images.header(huge, max_pixels=900_000_000) == images.Header("PNG", 30_000, 30_000)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        pytest.param(b"zTXt", "before", id="zTXt"),
        pytest.param(b"zTXt", "after", id="zTXt-behind-the-pixels"),
        pytest.param(b"iTXt", "before", id="iTXt"),
        pytest.param(b"iCCP", "before", id="iCCP"),
    ],
)
def test_compressed_metadata_is_bounded(name: bytes, place: str) -> None:
    """A PNG whose metadata would inflate to gigabytes is refused, at a bounded price."""
    start = {b"zTXt": b"k\0\0", b"iTXt": b"k\0\1\0\0\0", b"iCCP": b"k\0\0"}[name]
    bomb = chunk(name, start + zlib.compress(bytes(50_000_000)))
    data = (
        png(1, 1, 8, 0, b"\0\0", before=bomb) if place == "before" else png(1, 1, 8, 0, b"\0\0", after=bomb)
    )
    assert reason(images.decode, data) == "image_broken"


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF"])
def test_parts_are_counted(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image of more parts than are allowed is refused before its decoder sees it."""
    options: dict[str, dict[str, object]] = {"GIF": {"comment": b"c"}, "JPEG": {"progressive": True}}
    data = saved(picture(), format, **options.get(format, {}))
    assert images.decode(data).size == (48, 32)
    monkeypatch.setattr(image_parts, "MAX_PARTS", 1)
    assert reason(images.header, data) == reason(images.decode, data) == "image_too_complex"


def test_scans_are_weighed_by_their_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many scans are allowed that they pass over MAX_SCANNED pixels, however small the image is."""
    monkeypatch.setattr(image_parts, "MAX_SCANNED", 40 << 20)
    assert images.decode(scans(20)).size == (64, 64)
    assert reason(images.decode, scans(60)) == "image_too_complex"
    assert reason(images.decode, scans(20, 2048)) == "image_too_complex"


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_scans_behind_an_only_one_cost_nothing(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a JPEG's first scan has all of its components, its decoder takes no other: they are not counted."""
    data = saved(picture(1000, 1000).convert(mode), "JPEG")
    scan = data[data.index(b"\xff\xda") : -2]
    began = time.process_time()
    assert reason(images.decode, data[:-2] + scan[:12] * 200_000 + data[-2:]) == "image_broken"
    assert time.process_time() - began < 1
    monkeypatch.setattr(image_parts, "_count_pairs", None)
    assert images.decode(data).size == (1000, 1000)


def test_what_looks_like_a_scan_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a JPEG's own scans count: not those in its metadata, nor what comes behind its end."""
    monkeypatch.setattr(image_parts, "MAX_SCANNED", 40 << 20)
    inside = saved(picture(), "JPEG", comment=b"\xff\xda" * 500)
    assert images.decode(inside + b"\xff\xda" * 500).size == (48, 32)


@pytest.mark.parametrize("format", FORMATS)
def test_truncated(format: str) -> None:
    """An image that ends early is not decoded as far as it goes."""
    data = saved(picture(480, 320), format)
    for length in (len(data) // 8, len(data) // 2, len(data) - 500):
        expected = {"image_truncated"} | ({"image_broken"} if format == "AVIF" else set())
        assert reason(images.decode, data[:length]) in expected


@pytest.mark.parametrize("format", FORMATS)
def test_no_bytes_do_anything_else(format: str) -> None:
    """Whatever the bytes, the answer is an image or a BadImage, and warnings are nobody's business."""
    random_ = random.Random(1)
    data = saved(picture(), format)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(150):
            mutant = bytearray(data)
            for _ in range(random_.randrange(1, 8)):
                mutant[random_.randrange(12, min(len(data), 400))] = random_.randrange(256)
            for call in (images.header, images.decode):
                with suppress(BadImage):
                    call(bytes(mutant), max_pixels=1_000_000)


def test_no_global_state_changes() -> None:
    """Pillow's settings and the warnings filters are as they were, after success and after failure."""
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, [*warnings.filters]
    images.decode(saved(picture(), "JPEG"))
    reason(images.decode, saved(picture(480, 320), "JPEG")[:2000])
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, [*warnings.filters])


def mutants(data: bytes, count: int) -> Iterator[bytes]:
    """``data`` with some of its bytes, mostly of its header, replaced."""
    random_ = random.Random(2)
    for _ in range(count):
        mutant = bytearray(data)
        for _ in range(random_.randrange(1, 6)):
            mutant[random_.randrange(2, random_.choice((len(data), 700)))] = random_.randrange(256)
        yield bytes(mutant)


@pytest.mark.parametrize("progressive", [False, True], ids=["baseline", "progressive"])
def test_a_canvas_changes_nothing(progressive: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a JPEG's bytes are, decoding onto a canvas gives the same pixels or the same reason, and never what
    lay in that memory before."""
    used = bytearray(b"\xaa")
    numpy = SimpleNamespace(uint8=np.uint8, empty=lambda shape, dtype: np.full(shape, used[0], dtype))
    monkeypatch.setattr("wdsfilter.canvas.np", numpy)
    data = saved(picture(100, 75), "JPEG", progressive=progressive)
    readable = 0
    for mutant in (data, data[: data.index(b"\xff\xda")], data[:-500], *mutants(data, 300)):
        found = []
        for place in (None, Canvas(), Canvas()):
            used[0] ^= 0xFF
            try:
                found.append(images.decode(mutant, max_pixels=1_000_000, canvas=place).tobytes())
            except BadImage as bad:
                found.append(str(bad).encode())
            else:
                readable += 1
        assert found[0] == found[1] == found[2]
    assert readable > 300


def test_what_lies_on_a_canvas() -> None:
    """A canvas gives the pixels of the JPEG that was decoded onto it, and of no other image: neither one that had to be
    turned or converted, nor one of another format."""
    place = Canvas()
    image = images.decode(saved(picture(), "JPEG"), canvas=place)
    lent = place.pixels(image)
    assert lent is not None
    assert lent[..., :3].tobytes() == image.tobytes()
    assert place.pixels(image.copy()) is None
    for data in (
        saved(picture(), "PNG"),
        saved(picture().convert("L"), "JPEG"),
        saved(picture().convert("CMYK"), "JPEG"),
        saved(picture(), "JPEG", exif=exif(6)),
    ):
        place = Canvas()
        assert place.pixels(images.decode(data, canvas=place)) is None


def test_dhash() -> None:
    """Alike for a smaller copy, unlike for the mirror image, known for a gradient."""
    image = picture(480, 320)
    smaller, mirrored = image.resize((96, 64)), ImageOps.mirror(image)

    def distance(other: Image.Image) -> int:
        return bin(int(images.dhash(image), 16) ^ int(images.dhash(other), 16)).count("1")

    assert distance(smaller) <= 2
    assert distance(mirrored) > 20
    gradient = Image.linear_gradient("L").rotate(90)
    assert images.dhash(gradient) == "f" * 16
    assert images.dhash(ImageOps.mirror(gradient)) == images.dhash(Image.new("RGB", (1, 1))) == "0" * 16


@pytest.mark.parametrize(
    ("wanted", "size"),
    [
        pytest.param((400, 300), (400, 300), id="half"),
        pytest.param((401, 300), (800, 600), id="not-enough"),
        pytest.param((90, 70), (100, 75), id="an-eighth"),
    ],
)
def test_scaled_decoding_gives_at_least_what_is_wanted(
    wanted: tuple[int, int], size: tuple[int, int]
) -> None:
    """A JPEG is decoded at the smallest fraction of its size that is large enough; a PNG as it is."""
    picture = Image.new("RGB", (800, 600), (200, 30, 90))
    for format, expected in (("JPEG", size), ("PNG", (800, 600))):
        file = io.BytesIO()
        picture.save(file, format)
        assert images.decode(file.getvalue(), at_least=lambda width, height: wanted).size == expected
        assert images.decode(file.getvalue()).size == (800, 600)
