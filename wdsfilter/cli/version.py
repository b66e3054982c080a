"""Which wdsfilter this is."""

from __future__ import annotations

import typer

import wdsfilter
from wdsfilter.cli import out

PLACE = 80


def register(app: typer.Typer) -> None:
    """The command ``version``."""
    app.command()(version)


def version() -> None:
    """Print the version."""
    out.print(wdsfilter.__version__)
