"""A checkpoint's weights -> a model on a device, with everything that its promises rest on set up."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier
from typing import Any

import torch
from transformers import GenerationConfig, Qwen2VLForConditionalGeneration, __version__
from transformers.utils import logging as progress

from wdsfilter.engine.checkpoint import Checkpoint
from wdsfilter.engine.model import PACKED, Model
from wdsfilter.engine.pixels import PatchPlan
from wdsfilter.errors import JudgeError

_LANES = 16  # fp32 values that vectorised elementwise kernels take at a time
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def load_model(
    checkpoint: Checkpoint, plan: PatchPlan, *, image_pad: int, end_tokens: tuple[int, int], device: str,
    dtype: str, threads: int | None,
) -> Model:  # fmt: skip
    """The checkpoint's weights on ``device`` in ``dtype`` (see :func:`resolve_dtype`). Raises JudgeError."""
    network = pretrained(
        Qwen2VLForConditionalGeneration, checkpoint, device=device, dtype=dtype, attn_implementation="sdpa"
    )
    if getattr(network.config.text_config, "rope_scaling", True) is None:
        # 4.57 on what 5.x has saved: rotary settings under a name that it does not know
        raise JudgeError(f"{checkpoint.folder}: its config.json is of transformers 5; this is {__version__}")
    place = network.device
    network.set_attn_implementation(PACKED)
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
        threads=single_threads(cores) if place.type == "cpu" else None,
    )


def pretrained(kind: Any, checkpoint: Checkpoint, *, device: str, dtype: str, **more: Any) -> Any:
    """The checkpoint's network, of a class (or auto class) of transformers, fit for nothing but inference.

    ``more`` goes to ``from_pretrained``. Raises JudgeError where weights are torn, foreign or missing.
    """
    with quiet():
        try:
            network, report = kind.from_pretrained(
                checkpoint.folder,
                dtype=_DTYPES[resolve_dtype(dtype, device)],
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                **more,
            )
        except Exception as error:  # torn files, wrong shapes, ...: each library has its own
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise JudgeError(f"{checkpoint.folder}: its weights cannot be loaded: {reason[0]}") from error
    if missing := sorted(report["missing_keys"]):
        raise JudgeError(f"{checkpoint.folder}: {len(missing)} weights are missing, {missing[0]} among them")
    return network.eval().requires_grad_(False).to(torch.device(device))


def resolve_dtype(dtype: str, device: str) -> str:
    """``auto`` as bf16 on a CUDA device that has it, fp16 on one that has not, fp32 elsewhere."""
    if dtype != "auto":
        return dtype
    if torch.device(device).type != "cuda":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported() else "fp16"


def single_threads(count: int) -> ThreadPoolExecutor:
    """A pool of threads in each of which torch computes on one thread; elsewhere it goes on as it did."""
    everyone = Barrier(count + 1)

    def start() -> None:
        torch.set_num_threads(1)
        torch.get_num_threads()  # a thread adopts the process's setting on first use: here, not later
        everyone.wait()

    here = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, thread_name_prefix="judge", initializer=start)
    for _ in range(count):
        pool.submit(int)
    everyone.wait()
    torch.set_num_threads(here)  # the setting is per thread, but also what threads to come adopt
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
            raise JudgeError(
                f"{checkpoint.folder}: {name} is {width}; on a CPU this judge needs a multiple of {_LANES}"
            )


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars on stderr while weights are read or written."""
    was_on = progress.is_progress_bar_enabled()
    progress.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            progress.enable_progress_bar()
