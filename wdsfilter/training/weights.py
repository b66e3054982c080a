"""A checkpoint's weights -> a network that learns, and what it has learnt -> a checkpoint like any other."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from wdsfilter.engine.attention import PACKED
from wdsfilter.engine.checkpoint import PROCESSOR, Checkpoint
from wdsfilter.engine.contract import FILE, Contract, OwnContract, write_contract
from wdsfilter.engine.loading import network_class, quiet, read_network
from wdsfilter.errors import MissingExtra, RecipeError
from wdsfilter.training.recipe import Lora

COPIED = (
    *PROCESSOR,
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt"),
    *("video_preprocessor_config.json", "chat_template.jinja", "chat_template.json"),
)
"""What the trained checkpoint takes over from the processor that it was trained with."""


def load_network(checkpoint: Checkpoint, *, weights: torch.dtype, device: torch.device) -> Any:
    """The checkpoint's network with its ``weights`` in that dtype, packed as it is when it judges.

    Raises JudgeError.
    """
    network = read_network(network_class(checkpoint), checkpoint, weights, attn_implementation="sdpa")
    network.set_attn_implementation(PACKED)
    return network.to(device)


def stored_dtype(checkpoint: Checkpoint) -> torch.dtype:
    """The dtype in which the checkpoint's weights are stored, by its first file."""
    from safetensors import safe_open

    first = min(checkpoint.folder.glob("*.safetensors"))
    with safe_open(first, framework="pt") as file:
        dtype: torch.dtype = file.get_tensor(next(iter(file.keys()))).dtype
    return dtype


def checkpoint_activations(network: Any) -> None:
    """Compute layers anew in the backward pass: slower, and in much less memory."""
    old = "gradient_checkpointing_enable"  # 4.57's name for it
    enable = getattr(network, "activation_checkpointing_enable", None) or getattr(network, old)
    enable({"use_reentrant": False})


def freeze(network: Any, parts: Sequence[str]) -> None:
    """Keep the weights of modules that are called ``parts`` as they are. Raises RecipeError for a name unknown."""
    for part in parts:
        chosen = [p for name, p in network.named_parameters() if part in name.split(".")]
        if not chosen:
            known = {piece for name, _ in network.named_modules() for piece in name.split(".")}
            raise RecipeError(
                f"freeze: no module {part!r}; there are: {', '.join(sorted(n for n in known if n.isidentifier()))}"
            )
        for parameter in chosen:
            parameter.requires_grad_(False)


def add_adapters(network: Any, lora: Lora) -> Any:
    """Put adapters (fp32) into ``network``, of which nothing else learns; returns what takes them out again.

    That is peft's ``LoraModel``, whose ``merge_and_unload`` leaves in the weights what the adapters have
    learnt. Raises MissingExtra, RecipeError.
    """
    try:
        from peft import LoraConfig, LoraModel
    except ImportError as error:
        raise MissingExtra("training with lora", "train") from error

    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets),
    )
    try:
        adapted = LoraModel(network, config, "default")
    except ValueError as error:
        raise RecipeError(f"lora.targets: {str(error).partition(chr(10))[0]}") from error
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return adapted


def save_checkpoint(
    network: Any, processor: Checkpoint, contract: OwnContract, folder: Path, *, dtype: torch.dtype
) -> None:
    """Write a checkpoint folder that stock transformers and this judge load; ``judge.json`` comes last.

    Changes ``network``'s dtype.
    """
    temporary = folder / "training" / "checkpoint"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    network.set_attn_implementation("sdpa")
    for part in (network.config.text_config, network.config.vision_config):
        part.dtype = dtype
    with quiet():
        network.to(dtype).save_pretrained(temporary)
    copy_processor(processor, temporary, contract)
    write_contract(temporary, contract)
    for path in sorted(temporary.iterdir(), key=lambda path: path.name == FILE):
        shutil.copymode(temporary / FILE, path)  # safetensors lets nobody else read what it writes
        os.replace(path, folder / path.name)
    temporary.rmdir()


def copy_processor(processor: Checkpoint, folder: Path, contract: Contract) -> None:
    """The processor's files, with the pixel bounds that the judge has learnt with."""
    bounds = {"shortest_edge": contract.min_pixels, "longest_edge": contract.max_pixels}
    own = {"min_pixels": contract.min_pixels, "max_pixels": contract.max_pixels, "size": bounds}
    for name in COPIED:
        source = processor.folder / name
        if not source.exists():
            continue
        if name == "preprocessor_config.json":
            _write_json(folder / name, {**processor.read(name), **own})
        elif name == "processor_config.json" and "image_processor" in (content := processor.read(name)):
            _write_json(folder / name, {**content, "image_processor": {**content["image_processor"], **own}})
        else:
            shutil.copyfile(source, folder / name)


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
