"""Captions -> token ids, injection-proof by construction.

The ids around the caption are fixed. The user's text (instruction and caption) is encoded in one go
by a copy of the checkpoint's tokenizer that has *no* added tokens: whatever a caption says,
``<|im_end|>`` included, is text. Turning special tokens off would not do: later family members
have added tokens that are not special.

Instruction and caption are one text because the stock processor encodes them as one: a caption that
begins with a line break, a space or a combining mark merges with the instruction's last characters.
So the ids equal the stock processor's for every caption that spells none of the added tokens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from wdsfilter.engine.checkpoint import Checkpoint
from wdsfilter.errors import JudgeError

_CONTROLS = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>")
_COMPOSITION = 8  # NFC makes at most a few characters one; generous, as it only bounds work


@dataclass(frozen=True, slots=True)
class Layout:
    """Fixed ids and the plain tokenizer. Picklable; needs no torch."""

    plain: Tokenizer
    head: tuple[int, ...]
    tail: tuple[int, ...]
    before: str
    after: str
    image_pad: int
    vision_end: int
    controls: frozenset[int]
    max_caption_tokens: int
    longest_token: int

    def row(self, caption: str, visual_tokens: int) -> tuple[npt.NDArray[np.int32], bool]:
        """Ids of one prompt, up to where the answer begins, and whether the caption was cut.

        The instruction is never cut. Raises UnicodeEncodeError for a caption with lone surrogates.
        """
        text, cut = self._user_ids(caption)
        ids = np.fromiter(
            (*self.head, *([self.image_pad] * visual_tokens), self.vision_end, *text, *self.tail),
            dtype=np.int32,
        )
        return ids, cut

    def _user_ids(self, caption: str) -> tuple[list[int], bool]:
        ids, cut = fitted(
            *(self.plain, self.before, caption, self.after),
            most=self.max_caption_tokens,
            longest_token=self.longest_token,
        )
        if not self.controls.isdisjoint(ids):
            raise RuntimeError(
                "a tokenizer without added tokens gave one: its vocabulary names a control token"
            )
        return ids, cut

    def continuation(self, answer: str) -> list[int]:
        """Ids of an answer's text as the model would write it after the prompt."""
        ids: list[int] = self.plain.encode(answer, add_special_tokens=False).ids
        return ids


def fitted(
    tokenizer: Tokenizer, before: str, caption: str, after: str, *, most: int, longest_token: int
) -> tuple[list[int], bool]:
    """Ids of the three texts as one, at most ``most`` of them the caption's own, and whether that was cut.

    What is around it is never cut. Raises UnicodeEncodeError for a caption with lone surrogates.
    """
    caption.encode("utf-8")
    # No token is longer than the longest one, so what lies beyond this is past the limit for sure.
    kept = caption[: most * longest_token * _COMPOSITION]
    while True:
        encoding = tokenizer.encode(before + kept + after, add_special_tokens=False)
        start, end = len(before), len(before) + len(kept)
        inside = [first for first, last in encoding.offsets if last > start and first < end]
        if len(inside) <= most:
            ids: list[int] = encoding.ids
            return ids, len(kept) < len(caption)
        # Cut where the first token too many begins. Encoding anew may split the end differently.
        kept = kept[: min(max(inside[most] - start, 0), len(kept) - 1)]


def build_layout(
    processor: Checkpoint, config: Mapping[str, Any], *, system: str, prompt: str, max_caption_tokens: int
) -> Layout:
    """The layout of a checkpoint's prompts. ``prompt`` holds ``{caption}`` exactly once.

    Raises JudgeError when the tokenizer lacks a control token or is not the model's.
    """
    tokenizer = processor.read("tokenizer.json")
    plain = plain_tokenizer(tokenizer)
    added = {token["content"]: int(token["id"]) for token in tokenizer.get("added_tokens", ())}
    if missing := [name for name in _CONTROLS if name not in added]:
        raise JudgeError(
            f"{processor.folder}: its tokenizer lacks {', '.join(missing)}: not of the Qwen2-VL family"
        )
    if added["<|image_pad|>"] != config.get("image_token_id", 151655):
        raise JudgeError(
            f"{processor.folder}: its image token is {added['<|image_pad|>']}, the model's is "
            f"{config.get('image_token_id', 151655)}: tokenizer and model do not belong together"
        )

    def text(string: str) -> list[int]:
        ids: list[int] = plain.encode(string, add_special_tokens=False).ids
        return ids

    start, end = added["<|im_start|>"], added["<|im_end|>"]
    before, after = prompt.split("{caption}")
    return Layout(
        plain=plain,
        head=(
            *(start, *text(f"system\n{system}"), end, *text("\n")),
            *(start, *text("user\n"), added["<|vision_start|>"]),
        ),
        tail=(end, *text("\n"), start, *text("assistant\n")),
        before=before,
        after=after,
        image_pad=added["<|image_pad|>"],
        vision_end=added["<|vision_end|>"],
        controls=frozenset(added.values()),
        max_caption_tokens=max_caption_tokens,
        longest_token=max(map(len, tokenizer["model"]["vocab"])),
    )


def plain_tokenizer(tokenizer: Mapping[str, Any]) -> Tokenizer:
    """A tokenizer from the contents of ``tokenizer.json``, without its added tokens."""
    plain = {**tokenizer, "added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
    return Tokenizer.from_str(json.dumps(plain))


def full_tokenizer(processor: Checkpoint) -> Tokenizer:
    """The tokenizer with its added tokens: for reading answers, never for captions."""
    return Tokenizer.from_str(json.dumps(processor.read("tokenizer.json")))


def end_tokens(tokenizer: Tokenizer) -> tuple[int, int]:
    """Ids of ``<|im_end|>`` and ``<|endoftext|>``: what ends an answer, and what pads.

    Only for tokenizers that :func:`build_layout` has accepted.
    """
    end, pad = (tokenizer.token_to_id(token) for token in ("<|im_end|>", "<|endoftext|>"))
    assert end is not None
    return end, end if pad is None else pad
