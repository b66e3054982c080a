"""A headless Chromium that is told what a person does: keys, clicks, drags, typing; through DevTools' pipe.

Protocol: https://chromedevtools.github.io/devtools-protocol, JSON messages that end with a NUL, on descriptors 3 and 4.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SWITCHES = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
]
SWITCHES += ["--hide-scrollbars", "--disable-background-networking", "--disable-component-update"]
_KEYS = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Home": 36, "End": 35, "Tab": 9}


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A Chromium with an empty profile in the folder ``profile``, ended at the end."""
    (to_read, told), (heard, to_write) = os.pipe(), os.pipe()
    # the shell puts both ends where the browser looks for them
    arguments = [f'exec "$0" "$@" 3<&{to_read} 4>&{to_write}', str(CHROMIUM), *SWITCHES]
    process = subprocess.Popen(
        ["bash", "-c", *arguments, "--remote-debugging-pipe", f"--user-data-dir={profile}"],
        pass_fds=(to_read, to_write),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_read)
    os.close(to_write)
    with os.fdopen(told, "wb") as tell, os.fdopen(heard, "rb") as hear:
        found = Browser(tell, hear)
        try:
            yield found
        finally:
            found.ask("Browser.close")
            process.wait(timeout=60)


@dataclass(slots=True)
class Browser:
    """``events`` are all messages that answer nothing."""

    tell: BinaryIO
    hear: BinaryIO
    events: list[dict[str, Any]] = field(default_factory=list)
    _asked: int = 0
    _rest: bytes = b""

    def ask(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """The answer to one command. Raises RuntimeError where it is an error."""
        self._asked += 1
        message = {"id": self._asked, "method": method, "params": parameters}
        self.tell.write(json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        self.tell.flush()
        while True:
            heard = self._message()
            if heard.get("id") != self._asked:
                self.events.append(heard)
            elif "error" in heard:
                raise RuntimeError(f"{method}: {heard['error']}")
            else:
                found: dict[str, Any] = heard["result"]
                return found

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            got = os.read(self.hear.fileno(), 1 << 20)
            if not got:
                raise RuntimeError("the browser is gone")
            self._rest += got
        message, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def open(self, address: str, *, width: int = 1200, height: int = 900, dark: bool = False) -> Page:
        """A page in a window of its own, once it is loaded."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        for domain in ("Page", "Runtime", "Log"):
            page.ask(f"{domain}.enable")
        page.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.ask("Emulation.setEmulatedMedia", features=[scheme])
        page.ask("Page.navigate", url=address)
        page.evaluate(
            "new Promise((done) => document.readyState === 'complete' ? done() : addEventListener('load', done))"
        )
        return page


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a browser."""

    browser: Browser
    session: str

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self.browser.ask(method, self.session, **parameters)

    @property
    def complaints(self) -> list[str]:
        """What the page wrote to the console, and its errors."""
        logged = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        heard = [e for e in self.browser.events if e.get("sessionId") == self.session]
        return [json.dumps(event["params"]) for event in heard if event["method"] in logged]

    def evaluate(self, script: str) -> Any:
        """The value of an expression, awaited. Raises RuntimeError where it throws."""
        found = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{script}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def text(self, name: str) -> str:
        """What stands in the element with this id."""
        return str(self.evaluate(f"document.getElementById({json.dumps(name)}).textContent"))

    def press(self, *keys: str) -> None:
        """Press named keys, or characters, on whatever has the focus."""
        for key in keys:
            code = _KEYS.get(key, ord(key[0].upper()))
            character = {"text": key} if len(key) == 1 else {}
            for kind in ("keyDown", "keyUp"):
                said = character if kind == "keyDown" else {}
                self.ask("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **said)

    def click(self, selector: str, part: float = 0.5) -> None:
        """Click on the first element that ``selector`` finds, ``part`` of its width from the left."""
        x, y = self._place(selector, part)
        self._mouse("mousePressed", x, y)
        self._mouse("mouseReleased", x, y)

    def drag(self, selector: str, start: float, end: float) -> None:
        """Press at one part of an element's width, move and release at another."""
        x, y = self._place(selector, start)
        to, _ = self._place(selector, end)
        self._mouse("mousePressed", x, y)
        for step in range(1, 6):
            self._mouse("mouseMoved", x + (to - x) * step / 5, y)
        self._mouse("mouseReleased", to, y)

    def _mouse(self, kind: str, x: float, y: float) -> None:
        self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def _place(self, selector: str, part: float) -> tuple[float, float]:
        box = self.evaluate(
            f"(() => {{ const found = document.querySelector({json.dumps(selector)}); "
            "found.scrollIntoView({block: 'center'}); const box = found.getBoundingClientRect(); "
            "return [box.left, box.top, box.width, box.height]; })()"
        )
        return box[0] + part * box[2], box[1] + box[3] / 2

    def picture(self, to: Path, *, whole: bool = True) -> None:
        """A PNG of the whole page, or of what its window shows."""
        found = self.ask("Page.captureScreenshot", captureBeyondViewport=whole, **self._clip(whole))
        to.write_bytes(base64.b64decode(found["data"]))

    def _clip(self, whole: bool) -> dict[str, Any]:
        if not whole:
            return {}
        size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}
