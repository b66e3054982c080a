"""A sample's members -> the pair that judges see: which member is the image, which text the caption."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from wdsfilter.errors import BadCaption
from wdsfilter.samples import Member, Pair, Sample, Unreadable


@dataclass(frozen=True, slots=True)
class PairReader:
    """Finds image and caption of a sample.

    ``image`` lists extensions, the first one that a sample has is taken. ``caption`` is an
    extension (``txt``), or ``json.FIELD`` for a field of the ``.json`` member, with dots for
    nested ones. A ``.json`` that cannot be read is passed over unless the caption is in it or
    ``needs_json``.
    """

    image: tuple[str, ...]
    caption: str
    needs_json: bool = False

    def read(self, sample: Sample) -> Pair | Unreadable:
        """The sample's pair, or why there is none."""

        def unreadable(reason: str, detail: str) -> Unreadable:
            return Unreadable(sample.key, reason, detail, sample.offset, sample.length)

        image = sample.first(self.image)
        if image is None:
            return unreadable(*self._no_image(sample))
        try:
            fields = _json_fields(sample.first(("json",)))
        except ValueError as error:
            if self.needs_json or self.caption.startswith("json."):
                return unreadable("bad_json", str(error)[:200])
            fields = {}
        try:
            caption = self._caption(sample, fields)
        except BadCaption as error:
            return unreadable(error.reason, error.detail)
        return Pair(sample.key, image.data, caption, fields)

    def _caption(self, sample: Sample, fields: Mapping[str, Any]) -> str:
        extension, _, path = self.caption.partition(".")
        if extension == "json" and path:
            value: Any = fields
            for part in path.split("."):
                value = value.get(part) if isinstance(value, dict) else None
            if value is None:
                raise BadCaption("no_caption", f"the .json has no field {path!r}, only {_few(fields)}")
            if not isinstance(value, str):
                raise BadCaption("caption_not_text", f"field {path!r} holds {type(value).__name__}")
            text = value
        else:
            member = sample.first((self.caption,))
            if member is None:
                found = _few(m.extension for m in sample.members)
                raise BadCaption("no_caption", f"no .{self.caption} among {found}")
            try:
                text = _decoded(member)
            except UnicodeDecodeError as error:
                raise BadCaption("caption_not_utf8", str(error)[:200]) from error
        if not text.strip():
            raise BadCaption("empty_caption")
        try:
            text.encode()
        except UnicodeEncodeError as error:  # a lone surrogate, which json lets through
            raise BadCaption("caption_not_utf8", str(error)[:200]) from error
        return text

    def _no_image(self, sample: Sample) -> tuple[str, str]:
        """Why there is no image: webdataset may have merged several samples into this one."""
        dotted = [m.name for m in sample.members if m.extension.rpartition(".")[2] in self.image]
        if len(dotted) > 1:
            return "merged_names", f"{_few(dotted)} are one sample: a key ends at the name's first dot"
        if dotted:
            wanted = _few(self.image)
            return "no_image", f"{_few(dotted)} is none of {wanted}: a key ends at the name's first dot"
        return "no_image", f"none of {_few(self.image)} among {_few(m.extension for m in sample.members)}"


def _json_fields(member: Member | None) -> dict[str, Any]:
    """The object in a ``.json`` member; {} without one. Raises ValueError."""
    if member is None:
        return {}
    try:
        value = json.loads(_decoded(member))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError(f"holds {type(value).__name__}, not an object")
    return value


def _decoded(member: Member) -> str:
    """UTF-8, with or without a byte order mark (the codec utf-8-sig does the same, slowly)."""
    return bytes(member.data).removeprefix(codecs.BOM_UTF8).decode()


def _few(names: Iterable[str], most: int = 8) -> str:
    """The first of ``names``, as they can be stored: a json's field may be called by a lone surrogate."""
    listed = [name[:80] for name in islice(names, most + 1)]
    text = ", ".join(listed[:most]) + (", ..." if len(listed) > most else "")
    return text.encode("utf-8", "backslashreplace").decode()
