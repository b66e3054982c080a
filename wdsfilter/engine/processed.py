"""A pair -> what any vision-language model of transformers reads, by the checkpoint's own processor.

In a worker process. The processor sees the picture, decoded safely, and a prompt without a caption; the caption's
ids are put in by :mod:`wdsfilter.engine.prompt`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from wdsfilter import images
from wdsfilter.engine.checkpoint import STOCK_PROCESSOR, Checkpoint
from wdsfilter.engine.prompt import Prompt, build_prompt
from wdsfilter.errors import BadImage, JudgeError
from wdsfilter.samples import Pair, Prepared, Unreadable

_MAX_ASPECT = 200  # a longer picture could be blown up beyond all memory
_MADE_LATER = frozenset({"input_ids", "attention_mask"})


@dataclass(frozen=True, slots=True)
class Ready:
    """One pair for the model: prompt ids [tokens], what else the processor says of each token (``along``
    [tokens, ...]), and of the picture (``pictures`` [pictures or tiles, ...]), by their names in the model's forward.

    ``known`` is False where the checkpoint says of itself that it is not meant for such pairs.
    """

    ids: npt.NDArray[np.int32]
    along: Mapping[str, npt.NDArray[Any]]
    pictures: Mapping[str, npt.NDArray[Any]]
    visual_tokens: int
    truncated: bool
    known: bool = True


@dataclass(frozen=True, slots=True)
class Prepare:
    """Picklable: decodes, processes, tokenises. ``image_token`` is the id of an image's placeholders.

    Pairs that the checkpoint is meant for have the field ``mark`` in their json; None where it is meant for all.
    """

    processor: Any
    prompt: Prompt
    image_token: int
    mark: str | None = None

    def __call__(self, pair: Pair) -> Prepared | Unreadable:
        """The pair made ready, its cost in tokens; Unreadable when its image or caption cannot be read."""
        try:
            image = images.decode(pair.image)
            if max(image.size) > _MAX_ASPECT * min(image.size):
                size = "x".join(map(str, image.size))
                raise BadImage("image_aspect", f"{size} is longer than 1:{_MAX_ASPECT}")
        except BadImage as bad:
            return Unreadable(pair.key, bad.reason, bad.detail)
        try:
            rest, truncated = self.prompt.rest(pair.caption)
        except UnicodeEncodeError as error:
            return Unreadable(pair.key, "caption_not_utf8", str(error)[:200])
        found = self.processed(image)
        tail, width = len(self.prompt.tail), len(found["input_ids"][0])
        ids = np.concatenate([found["input_ids"][0, : width - tail], rest], dtype=np.int32)
        along, pictures = {}, {}
        for name in found.keys() - _MADE_LATER:
            if found[name].shape[:2] == (1, width) and not name.startswith("pixel"):
                along[name] = extended(found[name][0, : width - tail + 1], len(ids))
            else:
                pictures[name] = found[name]
        ready = Ready(
            *(ids, along, pictures, int((ids == self.image_token).sum()), truncated),
            known=self.mark is None or self.mark in pair.fields,
        )
        return Prepared(ready, cost=len(ids), phash=images.dhash(image))

    def processed(self, image: Image.Image) -> dict[str, npt.NDArray[Any]]:
        """What the stock processor makes of the picture and a prompt without a caption."""
        tokenizer = self.processor.tokenizer
        starts = tokenizer.bos_token is not None and self.prompt.stock.startswith(tokenizer.bos_token)
        found = self.processor(
            text=[self.prompt.stock],
            images=[[image]],
            return_tensors="pt",
            **({"add_special_tokens": False} if starts else {}),  # as its own apply_chat_template does
        )
        return {name: value.numpy() for name, value in found.items()}


def extended(values: npt.NDArray[Any], length: int) -> npt.NDArray[Any]:
    """``values`` [tokens, ...] for ``length`` tokens, the last of them again and again."""
    more = length - len(values)
    return values[:length] if more <= 0 else np.concatenate([values, np.repeat(values[-1:], more, axis=0)])


def build_prepare(
    checkpoint: Checkpoint, *, system: str, prompt: str, max_caption_tokens: int, image_token: int | None,
    mark: str | None,
) -> Prepare:  # fmt: skip
    """The CPU half of a checkpoint whose placeholders are ``image_token`` where its model says so.

    Raises JudgeError for a processor that cannot be loaded, or that does otherwise than is assumed here.
    """
    where = checkpoint.folder
    processor = _load(checkpoint)
    try:
        built = build_prompt(processor, system=system, prompt=prompt, max_caption_tokens=max_caption_tokens)
    except JudgeError as error:
        raise JudgeError(f"{where}: {error}") from error
    prepare = Prepare(processor, built, -1 if image_token is None else image_token, mark)
    try:
        found = prepare.processed(Image.new("RGB", (300, 200)))
    except Exception as error:  # whatever a processor objects to
        raise JudgeError(
            f"{where}: its processor fails on a picture and a prompt: {_reason(error)}"
        ) from error
    if tuple(found["input_ids"][0, -len(built.tail) :]) != built.tail:
        raise JudgeError(
            f"{where}: its processor's prompt does not end with the user's text as its tokenizer encodes it; "
            "accepted: templates that put the picture before the text"
        )
    return prepare


def _load(checkpoint: Checkpoint) -> Any:
    from transformers import AutoProcessor
    from transformers.utils import is_torchvision_available

    for pattern in STOCK_PROCESSOR:
        for path in checkpoint.folder.glob(pattern):
            if path.suffix == ".json" and "auto_map" in checkpoint.read(path.name):
                raise JudgeError(f"{path}: wants code of its own (auto_map), which is never run")
    try:
        processor = AutoProcessor.from_pretrained(
            checkpoint.folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # each class has its own
        more = "" if is_torchvision_available() else " (it may need torchvision, which is not installed)"
        raise JudgeError(
            f"{checkpoint.folder}: its processor cannot be loaded: {_reason(error)}{more}"
        ) from error
    if not hasattr(processor, "image_processor"):
        raise JudgeError(
            f"{checkpoint.folder}: no processor of images and texts, only {type(processor).__name__}"
        )
    return processor


def _reason(error: Exception) -> str:
    lines: Sequence[str] = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
