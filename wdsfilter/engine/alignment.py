"""How well image and caption go together for a CLIP or a SigLIP: the cosine of its two embeddings.

On a CPU captions of equal length and a few images are a forward pass on one thread, and as many run at once as there
are threads: in fp32 a pair's cosine has the same bits alone and in any batch. On a GPU it is a padded batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity
from transformers import AutoModel

from wdsfilter import images
from wdsfilter.engine.alike import in_groups
from wdsfilter.engine.captions import Captions, build_captions
from wdsfilter.engine.checkpoint import Checkpoint, check_safe
from wdsfilter.engine.crop import Crop, build_crop
from wdsfilter.engine.loading import pretrained, single_threads
from wdsfilter.errors import BadImage, JudgeError
from wdsfilter.samples import Numbers, Pair, Prepared, Unreadable

FAMILIES = ("clip", "siglip")
"""Model types that are known. A SigLIP 2 of fixed resolution calls itself ``siglip``."""

_IMAGES = 16  # of a pass on a CPU
_TOKENS = 1024  # of its captions


@dataclass(frozen=True, slots=True)
class Ready:
    """One pair for the model: pixels [height, width, 3] uint8 and ids [tokens]."""

    pixels: npt.NDArray[np.uint8]
    ids: npt.NDArray[np.int32]
    truncated: bool


@dataclass(frozen=True, slots=True)
class Prepare:
    """Picklable: decodes, resizes, crops, tokenises."""

    crop: Crop
    captions: Captions

    def __call__(self, pair: Pair) -> Prepared | Unreadable:
        """The pair made ready; Unreadable when its image or caption cannot be read."""
        try:
            image = images.decode(pair.image)
            pixels = self.crop.pixels(image)
        except BadImage as bad:
            return Unreadable(pair.key, bad.reason, bad.detail)
        try:
            ids, truncated = self.captions.row(pair.caption)
        except UnicodeEncodeError as error:
            return Unreadable(pair.key, "caption_not_utf8", str(error)[:200])
        return Prepared(Ready(pixels, ids, truncated), phash=images.dhash(image))


@dataclass(frozen=True, slots=True)
class Alignment:
    """The loaded judge. ``length`` is what every caption is padded to; None: to the longest of its batch."""

    network: Any
    prepare: Prepare
    mean: Tensor
    std: Tensor
    length: int | None
    window: int
    batch_cost: int
    threads: ThreadPoolExecutor | None

    @property
    def inline(self) -> bool:
        """Decoding and resizing are worth a process of their own."""
        return False

    def score(self, batch: Sequence[Ready]) -> Sequence[Numbers]:
        """Cosine of each pair's two embeddings, and whether its caption was cut."""
        if self.threads is None:
            cosines = self._padded(batch)
        else:
            texts = in_groups(
                batch, self._width, _TOKENS, lambda some: self._texts(some).unbind(), self.threads
            )
            looks = in_groups(
                batch, lambda pair: 1, _IMAGES, lambda some: self._images(some).unbind(), self.threads
            )
            # one by one: how a sum is cut into vectors depends on the shape of what is summed
            cosines = [float(cosine_similarity(a, b, dim=0)) for a, b in zip(texts, looks, strict=True)]
        return [
            {"score": cosine, "truncated": pair.truncated}
            for cosine, pair in zip(cosines, batch, strict=True)
        ]

    def check(self, first: Sequence[Ready]) -> Mapping[str, Any]:
        """Nothing can be wrong with it that loading does not see."""
        return {}

    def _padded(self, batch: Sequence[Ready]) -> list[float]:
        """Cosines, by one pass over all captions and one over all images."""
        cosines: list[float] = cosine_similarity(self._texts(batch), self._images(batch)).tolist()
        return cosines

    def _width(self, pair: Ready) -> int:
        """Tokens that its caption is read with."""
        return self.length or len(pair.ids)

    @torch.inference_mode()
    def _texts(self, batch: Sequence[Ready]) -> Tensor:
        """Embeddings of captions, [pairs, width]."""
        # No mask: CLIP reads a text up to its end only, and SigLIP has learned to read the padding.
        ids = np.full((len(batch), max(map(self._width, batch))), self.prepare.captions.pad, np.int64)
        for row, pair in zip(ids, batch, strict=True):
            row[: len(pair.ids)] = pair.ids
        return _embedding(self.network.get_text_features(input_ids=self._to(ids)))

    @torch.inference_mode()
    def _images(self, batch: Sequence[Ready]) -> Tensor:
        """Embeddings of images, [pairs, width]."""
        pixels = self._to(np.stack([pair.pixels for pair in batch])).permute(0, 3, 1, 2)
        values = ((pixels.float() / 255 - self.mean) / self.std).to(self.network.dtype)
        return _embedding(self.network.get_image_features(pixel_values=values))

    def _to(self, array: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self.network.device, non_blocking=True)


def load_alignment(
    checkpoint: Checkpoint, *, device: str, dtype: str, window: int, batch: int, threads: int | None
) -> Alignment:
    """The judge of a checkpoint's two encoders on ``device``. Raises JudgeError."""
    config = checkpoint.read("config.json")
    family = config.get("model_type")
    if family not in FAMILIES:
        raise JudgeError(
            f"{checkpoint.folder}: its model type is {family}; accepted: {', '.join(FAMILIES)} "
            "(a SigLIP 2 of fixed resolution is a siglip)"
        )
    check_safe(checkpoint, config)
    crop = build_crop(checkpoint.image_processor())
    network = pretrained(AutoModel, checkpoint, device=device, dtype=dtype, attn_implementation="sdpa")
    limit = network.config.text_config.max_position_embeddings
    on_cpu = network.device.type == "cpu"
    return Alignment(
        network=network,
        prepare=Prepare(crop, build_captions(checkpoint, limit)),
        mean=torch.tensor(crop.mean, device=network.device)[:, None, None],
        std=torch.tensor(crop.std, device=network.device)[:, None, None],
        length=limit if family == "siglip" else None,
        window=window,
        batch_cost=batch,
        threads=single_threads(threads or torch.get_num_threads()) if on_cpu else None,
    )


def _embedding(found: Any) -> Tensor:
    """[pairs, width] in fp32: 5.x returns it in a struct, 4.57 bare."""
    embedding: Tensor = getattr(found, "pooler_output", found)
    return embedding.float()
