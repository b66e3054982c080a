"""Templates -> pages that need nothing else: no network, no font, no clock. Strangers' text stays text."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from wdsfilter.counted import plural
from wdsfilter.report import plots

_ESCAPED = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def render(name: str, data: Mapping[str, Any], **context: Any) -> bytes:
    """The page of template ``NAME.html`` with its script ``NAME.js``, which works on ``data``, as UTF-8.

    The page's own policy forbids every script, style and request but these.
    """
    environment = Environment(
        loader=PackageLoader("wdsfilter.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        n=count,
        plural=plural,
        share=share,
        size=size,
        fixed=_fixed,
        short=plots.short,
        nice=_nice,
        interval=_interval,
    )
    style, script = _file("style.css"), _file("common.js") + _file(f"{name}.js")
    text = environment.get_template(f"{name}.html").render(
        style=Markup(style),
        script=Markup(script),
        data=Markup(escaped_json(data)),
        policy="default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src '{_hash(style)}'; script-src '{_hash(script)}'",
        box=(plots.WIDTH, plots.HEIGHT),
        **context,
    )
    return text.encode()


def escaped_json(value: object) -> str:
    """JSON that can stand in a script element: nothing in it can end the element or begin a line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).translate(_ESCAPED)


def _file(name: str) -> str:
    return resources.files("wdsfilter.report").joinpath("templates").joinpath(name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def count(value: float) -> str:
    """Digits in threes."""
    return f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def share(value: float | None, of: float = 1) -> str:
    """In percent; a dash where it is not defined."""
    if value is None or not of:
        return "\N{EN DASH}"
    return f"{100 * value / of:.1f}\N{NARROW NO-BREAK SPACE}%"


def _interval(ends: tuple[float, float, float] | None) -> str:
    """``87 % (79-93)``, which stays on one line."""
    if ends is None:
        return "\N{EN DASH}"
    low, middle, high = (f"{100 * value:.0f}" for value in ends)
    return f"{middle}\N{NARROW NO-BREAK SPACE}%\N{NO-BREAK SPACE}({low}\N{EN DASH}{high})"


def size(value: float) -> str:
    """Bytes in three digits and a unit."""
    for step, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= step:
            return f"{value / step:.3g}\N{NARROW NO-BREAK SPACE}{unit}"
    return f"{value:.0f}\N{NARROW NO-BREAK SPACE}B"


def _fixed(value: float, digits: int = 2) -> str:
    return f"{value:.{digits}f}"


def _nice(value: Any) -> str:
    """Options as JSON that a person reads; those that say nothing are left out."""
    kept = (
        {k: v for k, v in value.items() if v not in (None, [], {}, "")}
        if isinstance(value, Mapping)
        else value
    )
    return json.dumps(kept, indent=2, ensure_ascii=False)
