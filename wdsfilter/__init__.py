"""A streaming filter for image-text WebDataset shards, judged by a compact vision-language model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wdsfilter.errors import WdsfilterError

if TYPE_CHECKING:
    from wdsfilter.python.judge import load_judge
    from wdsfilter.python.samples import keep, stream
    from wdsfilter.python.table import read_ledger

__version__ = "0.1.0"
__all__ = ["WdsfilterError", "__version__", "keep", "load_judge", "read_ledger", "stream"]

_HOME = {"keep": "samples", "load_judge": "judge", "read_ledger": "table", "stream": "samples"}


def __getattr__(name: str) -> Any:
    """Public names are loaded when they are asked for: ``import wdsfilter`` and ``--help`` load no torch."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.python.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
