"""Weights on a device: one packed forward pass over many rows, or greedy generation.

On a CPU every forward pass runs on one torch thread, and as many passes run at once as there are
threads. Sums then never depend on how a matrix was split over threads: in fp32 a row's numbers are
bit-identical alone, in any batch, and for any number of threads. Two things make that hold. Matrix
products take another kernel below four rows (seen with MKL), so the few rows that need logits are
padded. And vector widths divide everything that is computed elementwise, so no value falls into a
scalar remainder that rounds differently: checked at loading.
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Barrier
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import linear
from transformers import GenerationConfig, Qwen2VLForConditionalGeneration
from transformers.utils import logging as progress

from wdsfilter.engine.attention import NAME, Span
from wdsfilter.engine.checkpoint import Checkpoint
from wdsfilter.engine.pixels import PatchPlan
from wdsfilter.engine.positions import Row, positions
from wdsfilter.engine.prepare import Ready
from wdsfilter.engine.readout import Readout
from wdsfilter.errors import JudgeError

_CPU_PIECE = 2048  # tokens of one pass on a CPU: keeps activations in the cache and all threads busy
_LEAST_ROWS = 16  # rows of the smallest matrix product
_LANES = 16  # fp32 values that vectorised elementwise kernels take at a time
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}

# On the towers only: for the whole network, a name with "flash" in it would be looked up on the hub.
_PACKED = {"": "sdpa", "text_config": NAME, "vision_config": NAME}

LogP = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded checkpoint. ``patch_weight`` [embed, 588] is the patch embedding, its two equal frames summed."""

    network: Any
    device: torch.device
    image_pad: int
    end_tokens: tuple[int, int]
    patch_weight: Tensor
    mean: Tensor
    std: Tensor
    merge: int
    cores: int
    threads: ThreadPoolExecutor | None

    def log_p(self, batch: Sequence[Ready], readout: Readout) -> list[LogP]:
        """For each pair, log-probabilities [nodes, tokens] fp32 of the readout's tokens and the argmax [nodes]."""
        if self.threads is None:
            return self._forward(batch, readout)
        pieces = list(_pieces(batch, self.cores))
        done = self.threads.map(lambda piece: self._forward(piece, readout), pieces)
        return [row for piece in done for row in piece]

    @torch.inference_mode()
    def _forward(self, batch: Sequence[Ready], readout: Readout) -> list[LogP]:
        rows = [self._row(pair, readout) for pair in batch]
        starts = list(itertools.accumulate((row.length for row in rows), initial=0))
        ids = np.concatenate([part for pair in batch for part in (pair.ids, readout.forced)], dtype=np.int64)
        keep = [at + len(pair.ids) + slot for at, pair in zip(starts, batch) for slot in readout.slots]

        parts = self.network.model
        embedded = parts.language_model.embed_tokens(self._to(ids))
        visual = parts.visual(
            self._patches(batch),
            grid_thw=self._to(np.array([(1, *pair.grid) for pair in batch])),
            spans=[Span(len(pair.patches)) for pair in batch],
        )
        # 5.x returns both states in a struct, 4.57 only the merged ones
        embedded[self._to(np.flatnonzero(ids == self.image_pad))] = getattr(visual, "pooler_output", visual)
        hidden = parts.language_model(
            inputs_embeds=embedded[None],
            position_ids=self._to(positions(rows)),
            attention_mask={"full_attention": None},  # spans say it all: no mask of L x L is to be built
            use_cache=False,
            spans=[Span(row.trunk, row.shared, row.branches) for row in rows],
        ).last_hidden_state[0]

        wanted = hidden[self._to(np.array(keep + keep[:1] * (_LEAST_ROWS - len(keep))))]
        log_p = torch.log_softmax(self.network.lm_head(wanted).float(), dim=-1)[: len(keep)]
        tokens = log_p[:, self._to(np.array(readout.tokens))].cpu().numpy()
        best = log_p.argmax(dim=-1).cpu().numpy()
        nodes = len(readout.nodes)
        return [(tokens[i : i + nodes], best[i : i + nodes]) for i in range(0, len(keep), nodes)]

    def _row(self, pair: Ready, readout: Readout) -> Row:
        before = int(np.argmax(pair.ids == self.image_pad))
        return Row(
            before=before,
            grid=(pair.grid[0] // self.merge, pair.grid[1] // self.merge),
            after=len(pair.ids) - before - pair.visual_tokens + len(readout.trunk),
            shared=len(pair.ids) + readout.shared,
            branches=tuple(len(branch) for branch in readout.branches),
        )

    def _patches(self, batch: Sequence[Ready]) -> Tensor:
        """Patch embeddings of all images, [patches, embed]. In fp32 on any device: 0.1 % of the work."""
        patches = self._to(np.concatenate([pair.patches for pair in batch]))
        values = patches.view(len(patches), 3, -1).float() / 255
        values = (values - self.mean) / self.std
        return linear(values.flatten(1), self.patch_weight).to(self.network.dtype)

    def _to(self, array: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self.device, non_blocking=True)

    @torch.inference_mode()
    def generate(self, batch: Sequence[Ready], max_new_tokens: int) -> list[list[int]]:
        """Greedy answers in a padded batch by transformers' own generation: ids without end and padding.

        Padding changes rounding: an answer may depend on its neighbours where two tokens tie to about 1e-6.
        """
        end, pad = self.end_tokens
        width = max(len(pair.ids) for pair in batch)
        ids = np.full((len(batch), width), pad, dtype=np.int64)
        mask = np.zeros((len(batch), width), dtype=np.int64)
        for row, pair in enumerate(batch):
            ids[row, width - len(pair.ids) :] = pair.ids
            mask[row, width - len(pair.ids) :] = 1
        inputs: dict[str, Tensor] = {
            "input_ids": self._to(ids),
            "attention_mask": self._to(mask),
            "pixel_values": self._patches(batch),
            "image_grid_thw": self._to(np.array([(1, *pair.grid) for pair in batch])),
        }
        if "mm_token_type_ids" in inspect.signature(self.network.forward).parameters:  # 5.x asks for it
            inputs["mm_token_type_ids"] = (inputs["input_ids"] == self.image_pad).int()
        self.network.set_attn_implementation("sdpa")
        try:
            output = self.network.generate(**inputs, max_new_tokens=max_new_tokens)
        finally:
            self.network.set_attn_implementation(_PACKED)
        answers = output[:, width:].tolist()
        return [list(itertools.takewhile(lambda token: token not in (end, pad), answer)) for answer in answers]


def load_model(
    checkpoint: Checkpoint, plan: PatchPlan, *, image_pad: int, end_tokens: tuple[int, int], device: str,
    dtype: str, threads: int | None,
) -> Model:  # fmt: skip
    """The checkpoint's weights on ``device`` in ``dtype`` (see :func:`resolve_dtype`). Raises JudgeError."""
    place = torch.device(device)
    with _quiet():
        try:
            network, report = Qwen2VLForConditionalGeneration.from_pretrained(
                checkpoint.folder,
                dtype=_DTYPES[resolve_dtype(dtype, device)],
                attn_implementation="sdpa",
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
        except Exception as error:  # torn files, wrong shapes, ...: each library has its own
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise JudgeError(f"{checkpoint.folder}: its weights cannot be loaded: {reason[0]}") from error
    if missing := sorted(report["missing_keys"]):
        raise JudgeError(f"{checkpoint.folder}: {len(missing)} weights are missing, {missing[0]} among them")
    network = network.eval().requires_grad_(False).to(place)
    network.set_attn_implementation(_PACKED)
    # Greedy, whatever sampling the checkpoint suggests.
    end, pad = end_tokens
    network.generation_config = GenerationConfig(do_sample=False, eos_token_id=[end, pad], pad_token_id=pad)

    cores = threads or torch.get_num_threads()
    visual = network.model.visual
    # A patch is one kernel of the 3-D convolution, so this is a plain product; a still image's two
    # frames are equal, so their weights add up. Generation gets the embeddings in place of pixels.
    kernel = visual.patch_embed.proj.weight.float()
    visual.patch_embed = torch.nn.Identity()
    if place.type == "cpu":
        _check_widths(checkpoint, network.config)
    return Model(
        network=network,
        device=place,
        image_pad=image_pad,
        end_tokens=end_tokens,
        patch_weight=kernel.sum(dim=2).flatten(1).contiguous(),
        mean=torch.tensor(plan.mean, device=place)[:, None],
        std=torch.tensor(plan.std, device=place)[:, None],
        merge=plan.merge,
        cores=cores,
        threads=_single_threads(cores) if place.type == "cpu" else None,
    )


def resolve_dtype(dtype: str, device: str) -> str:
    """``auto`` as bf16 on a CUDA device that has it, fp16 on one that has not, fp32 elsewhere."""
    if dtype != "auto":
        return dtype
    if torch.device(device).type != "cuda":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported() else "fp16"


def _pieces(batch: Sequence[Ready], cores: int) -> Iterator[Sequence[Ready]]:
    """``batch`` in order, cut into pieces of about as many tokens each: a multiple of ``cores``, none large."""
    total = sum(len(pair.ids) for pair in batch)
    rounds = math.ceil(total / (_CPU_PIECE * cores))
    most = math.ceil(total / (rounds * cores))
    start = size = 0
    for i, pair in enumerate(batch):
        if i > start and size + len(pair.ids) / 2 > most:
            yield batch[start:i]
            start, size = i, 0
        size += len(pair.ids)
    if start < len(batch):
        yield batch[start:]


def _single_threads(count: int) -> ThreadPoolExecutor:
    """A pool of threads in each of which torch computes on one thread, as it does nowhere else."""
    here = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, thread_name_prefix="judge", initializer=torch.set_num_threads, initargs=(1,))
    everyone = Barrier(count)  # so that each task starts a thread of its own, now
    list(pool.map(lambda _: everyone.wait(), range(count)))
    torch.set_num_threads(here)  # the setting is per thread, but also the default of threads to come
    return pool


def _check_widths(checkpoint: Checkpoint, config: Any) -> None:
    text, vision = config.text_config, config.vision_config
    widths = {
        "hidden_size": text.hidden_size,
        "intermediate_size": text.intermediate_size,
        "vision embed_dim": vision.embed_dim,
    }
    for name, width in widths.items():
        if width % _LANES:
            raise JudgeError(f"{checkpoint.folder}: {name} is {width}; on a CPU this judge needs a multiple of {_LANES}")


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars on stderr while weights load."""
    was_on = progress.is_progress_bar_enabled()
    progress.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            progress.enable_progress_bar()
