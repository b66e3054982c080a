"""pydantic's errors -> lines that name the key, what was found, and the nearest key that is known."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable, Sequence

from pydantic import BaseModel, ValidationError


def explain(error: ValidationError, model: type[BaseModel], prefix: str = "") -> list[str]:
    """One line for each mistake."""
    lines: list[str] = []
    for problem in error.errors():
        location = [str(part) for part in problem["loc"]]
        known = _accepted(model, location)
        path = ".".join(part for part in [prefix, *known.path] if part)
        found = problem.get("input")
        if problem["type"] == "extra_forbidden":
            line = f"{path}: unknown key{nearest(known.path[-1], known.names)}"
        elif problem["type"] == "missing":
            line = f"{path}: required, and missing"
        else:
            message = "expected a mapping" if problem["type"] == "model_type" else problem["msg"]
            message = message.removeprefix("Value error, ")
            shown = repr(found) if not isinstance(found, dict) else "a mapping"
            line = f"{path}: {message[:1].lower()}{message[1:]}, found {shown[:80]}"
        lines.append(line)
    return lines


def nearest(found: str, known: Iterable[str]) -> str:
    """``; did you mean X?`` where something is near, ``; there are: ...`` where nothing is."""
    names = sorted(known)
    near = difflib.get_close_matches(found, names, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else f"; there are: {', '.join(names)}"


class _Known(typing.NamedTuple):
    path: Sequence[str]
    names: Sequence[str]


def _accepted(model: type[BaseModel], location: Sequence[str]) -> _Known:
    """The location as a user writes it, and the keys that are known beside its last part."""
    names: Sequence[str] = _names([model])
    models: Sequence[type[BaseModel]] = [model]
    path: list[str] = []
    for part in location:
        field = next((f for m in models for n, f in m.model_fields.items() if part in (n, f.alias)), None)
        names = _names(models)
        if field is not None:
            part = field.alias or part
            models = _models(field.annotation)
        path.append(part)
    return _Known(path or [model.__name__], names)


def _names(models: Sequence[type[BaseModel]]) -> list[str]:
    return [field.alias or name for model in models for name, field in model.model_fields.items()]


def _models(annotation: object) -> list[type[BaseModel]]:
    """The sections that a field of this type may hold."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType, list, dict, typing.Annotated):
        return [m for argument in typing.get_args(annotation) for m in _models(argument)]
    if origin is None and isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]  # asked of the origin first: to Python 3.10, list[int] is a type
    return []
