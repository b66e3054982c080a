"""Reading ahead: the same items, no more of them than allowed, and no thread left."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator

import pytest

from wdsfilter.overlap import prefetched


def ahead(items: Iterator[int], max_bytes: int = 1000, size: int = 1) -> Generator[int, None, None]:
    return prefetched(items, size_of=lambda _: size, max_bytes=max_bytes, max_items=64)


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name == "wdsfilter-read"]


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 5000])
@pytest.mark.parametrize("max_bytes", [1, 10, 10_000])
def test_items_come_as_they_are(count: int, max_bytes: int) -> None:
    """Every item once, in order, whatever the bound; and the thread is gone afterwards."""
    assert list(ahead(iter(range(count)), max_bytes)) == list(range(count))
    assert threads() == []


def test_reading_goes_on_while_the_consumer_is_away() -> None:
    """While the consumer works on one item, the next ones are read."""
    pulled: list[int] = []

    def items() -> Iterator[int]:
        for number in range(50):
            pulled.append(number)
            yield number

    reading = ahead(items())
    next(reading)
    deadline = time.monotonic() + 5
    while len(pulled) < 50 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert len(pulled) == 50
    assert list(reading) == list(range(1, 50))


@pytest.mark.parametrize(
    ("bounds", "allowed"),
    [
        pytest.param({"max_bytes": 20_000, "max_items": 10_000}, 20, id="bytes"),
        pytest.param({"max_bytes": 1 << 30, "max_items": 64}, 64, id="items"),
    ],
)
def test_no_more_is_read_than_allowed(bounds: dict[str, int], allowed: int) -> None:
    """What was pulled and not handed out stays near the bound, however slow the consumer is."""
    pulled = handed = 0
    most = 0

    def items() -> Iterator[int]:
        nonlocal pulled
        for number in range(2000):
            pulled += 1
            yield number

    for _ in prefetched(items(), size_of=lambda _: 1000, **bounds):  # type: ignore[arg-type]
        handed += 1
        if handed < 50:
            time.sleep(0.002)
        most = max(most, pulled - handed)
    assert handed == 2000
    assert most <= allowed + 2 * 32  # the bound, one chunk being read and one being handed out


def test_an_item_beyond_the_bound_passes() -> None:
    """A single item that is larger than all that is allowed does not stop the line."""
    assert list(ahead(iter(range(10)), max_bytes=1, size=1000)) == list(range(10))


def test_exceptions_come_out_where_they_happened() -> None:
    """Everything before an error arrives first, then the error itself."""

    def items() -> Iterator[int]:
        yield from range(40)
        raise OSError("disk on fire")

    seen: list[int] = []
    with pytest.raises(OSError, match="disk on fire"):
        seen.extend(ahead(items()))
    assert seen == list(range(40))
    assert threads() == []


def test_closing_closes_the_source() -> None:
    """When the consumer leaves early, the source's own clean-up runs, and the thread ends."""
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            number = 0
            while True:
                yield number
                number += 1
        finally:
            closed.set()

    reading = ahead(items(), max_bytes=10)
    assert next(reading) == 0
    reading.close()
    assert closed.is_set()
    assert threads() == []
