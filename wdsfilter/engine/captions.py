"""Captions -> token ids of a text encoder or a language model, injection-proof like :mod:`wdsfilter.engine.layout`.

A caption is encoded by a copy of the checkpoint's tokenizer that knows no control token, so whatever it
spells is text. What the tokenizer puts around every text (a start, an end) is put there by hand.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from wdsfilter.engine.checkpoint import TOKENIZER_CONFIG, Checkpoint
from wdsfilter.engine.layout import plain_tokenizer
from wdsfilter.errors import JudgeError

_SHRINKING = 8  # characters that normalisation makes one of; generous, as it only bounds work
_NEVER = -1e9  # log-probability of a piece that a caption must not become
_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True, slots=True)
class Captions:
    """A tokenizer for captions. Picklable; needs no torch.

    ``before`` and ``after`` are the ids around every caption, ``limit`` is the most ids in all. ``bare``:
    captions lose case and punctuation first, as SigLIP's first tokenizer does it.
    """

    plain: Tokenizer
    before: tuple[int, ...]
    after: tuple[int, ...]
    pad: int
    limit: int
    longest_token: int
    bare: bool = False

    def row(self, caption: str) -> tuple[npt.NDArray[np.int32], bool]:
        """Ids of one caption, and whether its end was cut. Raises UnicodeEncodeError for lone surrogates."""
        caption.encode("utf-8")
        text = _bare(caption) if self.bare else caption
        room = self.limit - len(self.before) - len(self.after)
        # No token is longer than the longest one, so what lies beyond this is past the limit for sure.
        bound = room * self.longest_token * _SHRINKING
        ids = self.plain.encode(text[:bound], add_special_tokens=False).ids
        cut = len(ids) > room or len(text) > bound
        return np.fromiter((*self.before, *ids[:room], *self.after), dtype=np.int32), cut


def build_captions(checkpoint: Checkpoint, limit: int) -> Captions:
    """How a checkpoint's tokenizer makes ids of a text, ``limit`` at most. Raises JudgeError."""
    content = checkpoint.read("tokenizer.json")
    settings = checkpoint.read(TOKENIZER_CONFIG)
    controls = {token["content"]: int(token["id"]) for token in content.get("added_tokens", ())}
    pad = settings.get("pad_token")
    pad = pad.get("content") if isinstance(pad, dict) else pad
    before, after = _frame(checkpoint, content)
    vocabulary = content["model"]["vocab"]
    return Captions(
        plain=plain_tokenizer({**content, "model": _without(content["model"], controls)}),
        before=before,
        after=after,
        pad=controls.get(pad, 0),
        limit=limit,
        longest_token=max(len(piece) if isinstance(piece, str) else len(piece[0]) for piece in vocabulary),
        bare=settings.get("tokenizer_class") == "SiglipTokenizer",
    )


def _frame(checkpoint: Checkpoint, content: Mapping[str, Any]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What the tokenizer puts before and after a text, seen on one."""
    full = Tokenizer.from_str(json.dumps({**content, "truncation": None, "padding": None}))
    text = full.encode("a", add_special_tokens=False).ids
    framed = full.encode("a", add_special_tokens=True).ids
    for start in range(len(framed) - len(text) + 1):
        if text and framed[start : start + len(text)] == text:
            return tuple(framed[:start]), tuple(framed[start + len(text) :])
    raise JudgeError(f"{checkpoint.folder}: its tokenizer does not keep the text 'a' ({framed})")


def _without(model: Mapping[str, Any], controls: Mapping[str, int]) -> Mapping[str, Any]:
    """A tokenizer's model that never makes a control token of a text: a unigram model has them as pieces."""
    if model.get("type") != "Unigram":
        return model
    pieces = [[piece, _NEVER if piece in controls else score] for piece, score in model["vocab"]]
    return {**model, "vocab": pieces}


def _bare(text: str) -> str:
    return re.sub(r"\s+", " ", text.lower().translate(_PUNCTUATION)).strip()
