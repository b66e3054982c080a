"""A checkpoint's weights -> a model on a device, with everything that its promises rest on set up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
import transformers
from torch import Tensor
from torch.nn.functional import pad
from transformers.activations import QuickGELUActivation
from transformers.utils import logging as progress

from wdsfilter.engine.attention import PACKED, place_of_bounds
from wdsfilter.engine.blocks import DecoderLayer, Pack, VisionBlock, replace_linear
from wdsfilter.engine.checkpoint import WEIGHTS, Checkpoint, architecture
from wdsfilter.engine.eight_bits import EightBits
from wdsfilter.engine.fp8 import CAPABLE, has_products, in_fp8
from wdsfilter.engine.half_precision import QUICK, with_fewer_passes
from wdsfilter.engine.last_layer import LastLayer
from wdsfilter.engine.model import Model
from wdsfilter.engine.pixels import PatchPlan
from wdsfilter.engine.products import Packed, can_pack
from wdsfilter.engine.segments import TAKES_PLANS
from wdsfilter.errors import JudgeError

_LANES = 16  # fp32 values that vectorised elementwise kernels take at a time
Weights: TypeAlias = Literal["stored", "int8", "fp8"]

_LAYERS: dict[Weights, Pack] = {"stored": Packed, "int8": EightBits, "fp8": in_fp8}
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def load_model(
    checkpoint: Checkpoint, plan: PatchPlan, *, image_pad: int, end_tokens: tuple[int, int], device: str,
    dtype: str, threads: int | None, weights: Weights = "stored",
) -> Model:  # fmt: skip
    """The checkpoint's weights on ``device`` in ``dtype`` (see :func:`resolve_dtype`). Raises JudgeError.

    ``weights`` other than stored: both towers' linear layers compute in eight bits (``eight_bits.py``, ``fp8.py``).
    """
    _check_weights(weights, torch.device(device))
    network = pretrained(
        network_class(checkpoint), checkpoint, device=device, dtype=dtype, attn_implementation="sdpa"
    )
    if getattr(network.config.text_config, "rope_scaling", True) is None:
        # 4.57 on what 5.x has saved: rotary settings under a name that it does not know
        found = transformers.__version__
        raise JudgeError(f"{checkpoint.folder}: its config.json is of transformers 5; this is {found}")
    if network.device.type == "cpu":
        _check_widths(checkpoint, network.config)
    return build_model(
        network, plan, image_pad=image_pad, end_tokens=end_tokens, threads=threads, weights=weights
    )


def build_model(
    network: Any, plan: PatchPlan, *, image_pad: int, end_tokens: tuple[int, int], threads: int | None,
    weights: Weights = "stored",
) -> Model:  # fmt: skip
    """A network of the family, where it is, made ready to be run in packs. Changes it."""
    network.eval().requires_grad_(False)
    network.set_attn_implementation(PACKED)
    # Greedy, whatever sampling the checkpoint suggests.
    end, filler = end_tokens
    network.generation_config = transformers.GenerationConfig(
        do_sample=False, eos_token_id=[end, filler], pad_token_id=filler
    )
    visual = network.model.visual
    weight, bias = _patch_embedding(visual.patch_embed.proj.weight, plan)
    visual.patch_embed = torch.nn.Identity()  # generation gets the embeddings in place of pixels
    for block in visual.blocks:
        if hasattr(block.mlp, "gate_proj"):
            _widen(block.mlp)
        elif network.dtype == torch.float32:
            _fold_quick_gelu(block.mlp)
    layers = network.model.language_model.layers
    device = weight.device
    bounds = place_of_bounds(device, network.dtype)
    if bounds.type != "cpu" and TAKES_PLANS:
        with_fewer_passes(network.model)
    pack = _LAYERS[weights]
    if device.type == "cpu" and network.dtype == torch.float32 and TAKES_PLANS and can_pack():
        for place, block in enumerate(visual.blocks):
            visual.blocks[place] = VisionBlock(block, pack)
        for place, layer in enumerate(layers):
            layers[place] = DecoderLayer(layer, pack, last=place == len(layers) - 1)
        replace_linear(visual.merger, pack)
    else:
        layers[-1] = LastLayer(layers[-1])
        if weights != "stored":
            replace_linear(network.model, pack)
    cores = threads or torch.get_num_threads()
    return Model(
        network=network,
        device=device,
        bounds=bounds,
        image_pad=image_pad,
        end_tokens=end_tokens,
        patch_weight=weight,
        patch_bias=bias,
        merge=plan.merge,
        cores=cores,
        threads=single_threads(cores) if device.type == "cpu" else None,
    )


def network_class(checkpoint: Checkpoint) -> Any:
    """The class of transformers that a checkpoint of the family is of."""
    return getattr(transformers, architecture(checkpoint.read("config.json")))


def pretrained(kind: Any, checkpoint: Checkpoint, *, device: str, dtype: str, **more: Any) -> Any:
    """The checkpoint's network, of a class (or auto class) of transformers, fit for nothing but inference.

    ``more`` goes to ``from_pretrained``. Raises JudgeError where weights are torn, foreign or missing.
    """
    network = read_network(kind, checkpoint, _DTYPES[resolve_dtype(dtype, device)], **more)
    return network.eval().requires_grad_(False).to(torch.device(device))


def read_network(kind: Any, checkpoint: Checkpoint, dtype: torch.dtype, **more: Any) -> Any:
    """As :func:`pretrained`, on the CPU, and able to learn."""
    with quiet():
        try:
            network, report = kind.from_pretrained(
                checkpoint.folder,
                dtype=dtype,
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
    return network


def resolve_dtype(dtype: str, device: str) -> str:
    """``auto`` as bf16 on a CUDA device that has it, fp16 on one that has not, fp32 elsewhere."""
    if dtype != "auto":
        return dtype
    if torch.device(device).type != "cuda":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported() else "fp16"


def identity(
    model: Checkpoint, processor: Checkpoint, files: Iterable[str], *, dtype: str, device: str
) -> dict[str, Any]:
    """What determines a score beside a judge's options: hashes of the model's files and of those of the processor
    that match ``files``, and the dtype that is computed in."""
    return {
        "dtype": resolve_dtype(dtype, device),
        "model": model.digests(WEIGHTS),
        "processor": processor.digests(files),
    }


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


def _patch_embedding(kernel: Tensor, plan: PatchPlan) -> tuple[Tensor, Tensor]:
    """Weight [embed, patch * patch * 3] and bias [embed], in fp32, of patches whose values are raw bytes.

    A patch is one kernel of the 3-D convolution, so that is a plain product; a still image's two frames are
    equal, so their weights add up; scaling and normalisation are one more factor and one more summand.
    """
    weight = kernel.double().sum(dim=2)  # [embed, 3, patch, patch]
    mean, std = (
        torch.from_numpy(np.array(values)).to(kernel.device)[:, None, None]
        for values in (plan.mean, plan.std)
    )
    bias = -(weight * (mean / std)).flatten(1).sum(dim=1)
    return (weight / (255 * std)).movedim(1, -1).flatten(1).float().contiguous(), bias.float()


def _widen(mlp: Any) -> None:
    """Fill an MLP up to a width that vectors divide (Qwen2.5-VL's vision tower has 3420). What is new is zero."""
    more = -mlp.gate_proj.out_features % _LANES
    if not more:
        return
    for layer in (mlp.gate_proj, mlp.up_proj):
        layer.weight = torch.nn.Parameter(pad(layer.weight, (0, 0, 0, more)), requires_grad=False)
        if layer.bias is not None:
            layer.bias = torch.nn.Parameter(pad(layer.bias, (0, more)), requires_grad=False)
        layer.out_features += more
    mlp.down_proj.weight = torch.nn.Parameter(pad(mlp.down_proj.weight, (0, more)), requires_grad=False)
    mlp.down_proj.in_features += more


def _fold_quick_gelu(mlp: Any) -> None:
    """Let weights take over the factors of x * sigmoid(1.702 x): one pass over memory instead of three."""
    if not isinstance(mlp.act, QuickGELUActivation):
        return
    mlp.act = torch.nn.SiLU(inplace=True)
    mlp.fc1.weight.mul_(QUICK)
    mlp.fc1.bias.mul_(QUICK)
    mlp.fc2.weight.div_(QUICK)


def _check_weights(weights: Weights, device: torch.device) -> None:
    """Raise JudgeError where ``device``, or this torch, has no products of such ``weights``."""
    if weights == "int8" and device.type != "cpu":
        raise JudgeError(f"weights: int8 is for a CPU, this is {device}; accepted there: stored, fp8")
    if weights != "fp8":
        return
    if not has_products():
        raise JudgeError(
            f"weights: fp8 needs a torch that has torch.nn.functional.scaled_mm, this is {torch.__version__}; "
            "accepted: stored, int8 (on a CPU)"
        )
    if device.type not in ("cpu", "cuda"):
        raise JudgeError(f"weights: fp8 is for CUDA, this is {device}; accepted there: stored")
    if device.type == "cuda" and (found := torch.cuda.get_device_capability(device)) < CAPABLE:
        raise JudgeError(
            f"weights: fp8 needs a GPU of compute capability {'.'.join(map(str, CAPABLE))}, {device} has "
            f"{'.'.join(map(str, found))}; accepted there: stored"
        )


def _check_widths(checkpoint: Checkpoint, config: Any) -> None:
    text, vision = config.text_config, config.vision_config
    widths = {
        "hidden_size": text.hidden_size,
        "intermediate_size": text.intermediate_size,
        "vision width": getattr(vision, "embed_dim", vision.hidden_size),  # Qwen2-VL calls it embed_dim
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
