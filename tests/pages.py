"""Pages as a browser sees them: their elements, the data of their script, and what Chromium makes of them."""

from __future__ import annotations

import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.browser import CHROMIUM

HOSTILE = "</script><img src=x onerror=alert(1)>\u2028{{ 7 * 7 }} & \"'<!--"

in_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium to open the page with")


def embedded(page: Path) -> dict[str, Any]:
    """The data that the page's script works on."""
    found = re.search(
        r'<script type="application/json" id="data">(.*?)</script>', page.read_text("utf-8"), re.S
    )
    assert found is not None
    loaded: dict[str, Any] = json.loads(found[1])
    return loaded


class Elements(HTMLParser):
    """Every start tag with its attributes, and the text between tags, as a browser would split them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def check_harmless(page: Path) -> Elements:
    """Assert that a page fetches nothing, forbids it, and has no script, handler or picture of a stranger's."""
    found = Elements(page.read_text("utf-8"))
    for tag, attributes in found.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            assert name != "style", tag
            if name in ("src", "href", "srcset", "data", "action", "poster", "xlink:href"):
                assert (value or "").startswith(("data:image/webp;", "#")), (tag, value)
    assert [tag for tag, _ in found.tags].count("script") == 2
    [policy] = [a["content"] for _, a in found.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    return found


def opened(page: Path, profile: Path, after: str = "") -> str:
    """The page's elements once Chromium has run its script; asserts that nothing was logged.

    ``after`` goes behind the page's address.
    """
    switches = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    switches += "--disable-background-networking --disable-component-update --enable-logging=stderr"
    done = subprocess.run(
        [
            str(CHROMIUM),
            *switches.split(),
            f"--user-data-dir={profile}",
            "--virtual-time-budget=2000",
            "--dump-dom",
            f"{page.as_uri()}{after}",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "CONSOLE" not in done.stderr
    return done.stdout


def text_of(elements: str, name: str) -> str:
    """The text of the element with this id."""
    found = re.search(rf'id="{name}"[^>]*>(.*?)</', elements, re.S)
    assert found is not None, name
    return found[1]
