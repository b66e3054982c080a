"""A checkpoint folder in hub layout: found, checked before any weight is read, hashed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import wdsfilter
from wdsfilter.errors import JudgeError

PACKED_ARCHITECTURES = ("Qwen2VLForConditionalGeneration", "Qwen2_5_VLForConditionalGeneration")
"""What the engine runs in packs, without padding."""

WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "config.json")
"""What a model is made of."""

PROCESSOR = ("tokenizer.json", "preprocessor_config.json", "processor_config.json")
"""What turns pairs into its input. The chat template is not among them: the layout is our own."""

STOCK_PROCESSOR = (
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt"),
    *("*processor_config.json", "chat_template*"),
)
"""The same where transformers' own processor and the checkpoint's chat template do it."""

TOKENIZER_CONFIG = "tokenizer_config.json"
"""Read beside ``tokenizer.json``: which tokens pad, and what is done to a text before it is encoded."""

BUILT_IN = "built-in"
"""Name of the judge that comes with wdsfilter; it knows the small world of the demo only."""

_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder on this machine, its own or the hub's cache."""

    folder: Path

    def read(self, name: str) -> Any:
        """The JSON file ``name``. Raises JudgeError when it is missing or broken."""
        path = self.folder / name
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise JudgeError(
                f"{self.folder}: no {name}; expected a checkpoint folder in hub layout"
            ) from None
        except (OSError, ValueError) as error:
            raise JudgeError(f"{path}: cannot be read as JSON ({error})") from None

    def image_processor(self) -> Mapping[str, Any]:
        """The image processor's settings, from whichever of its two files the folder has."""
        if (self.folder / "preprocessor_config.json").exists():
            return dict(self.read("preprocessor_config.json"))
        return dict(self.read("processor_config.json").get("image_processor") or {})

    def digests(self, patterns: Iterable[str]) -> dict[str, str]:
        """File name -> SHA-256 of every file that matches. Names only: no path of this machine."""
        paths = {path for pattern in patterns for path in self.folder.glob(pattern) if path.is_file()}
        return {path.name: _sha256(path, path.stat().st_mtime_ns) for path in sorted(paths)}


def locate(name: str, revision: str | None, patterns: Iterable[str]) -> Checkpoint:
    """The judge that comes along, the local folder ``name``, or the files of the hub's ``name`` that match,
    fetched if need be.

    Raises JudgeError when there is none of them.
    """
    folder = (
        Path(wdsfilter.__file__).with_name("demo") / "judge" if name == BUILT_IN else Path(name).expanduser()
    )
    if folder.is_dir():
        if revision is not None:
            raise JudgeError(f"{name} is a folder: a revision ({revision}) can only be asked of a hub name")
        return Checkpoint(folder)
    if not _HUB_NAME.fullmatch(name):
        raise JudgeError(
            f"no checkpoint at {name!r}: expected {BUILT_IN!r}, a folder, or a hub name such as 'owner/name'"
        )
    from huggingface_hub import snapshot_download

    try:
        snapshot = Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    except Exception as error:  # whatever its transport raises: for us it is all one, it cannot be had
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise JudgeError(
            f"{name} is not a folder here and cannot be had from the hub: {reason[0]}"
        ) from error
    return Checkpoint(snapshot)


def model_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """``config.json`` of a checkpoint that the engine can run.

    Raises JudgeError for another architecture, for code that the checkpoint brings along, for
    weights that are not in safetensors, and for what packing would get wrong.
    """
    config = checkpoint.read("config.json")
    where = checkpoint.folder
    text = config.get("text_config") or config
    if (found := architecture(config)) not in PACKED_ARCHITECTURES:
        raise JudgeError(f"{where}: its architecture is {found}; accepted: {', '.join(PACKED_ARCHITECTURES)}")
    if text.get("use_sliding_window"):
        raise JudgeError(f"{where}: sliding-window attention is not supported")
    check_safe(checkpoint, config)
    return dict(config)


def is_packed(checkpoint: Checkpoint) -> bool:
    """Whether the engine runs a checkpoint in packs; another one it runs as transformers does. Raises JudgeError."""
    return architecture(checkpoint.read("config.json")) in PACKED_ARCHITECTURES


def stock_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """``config.json`` of a checkpoint that transformers itself can run as a judge.

    Raises JudgeError for what is no model of images and texts, for code that the checkpoint brings along, and for
    weights that are not in safetensors.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as KNOWN

    config = checkpoint.read("config.json")
    check_safe(checkpoint, config)
    found, kind = architecture(config), config.get("model_type")
    known = KNOWN.get(kind, ())
    if found not in ((known, kind) if isinstance(known, str) else (*known, kind)) or kind not in KNOWN:
        raise JudgeError(
            f"{checkpoint.folder}: its architecture is {found}; accepted: {', '.join(PACKED_ARCHITECTURES)}, "
            "and what transformers knows as a model of images and texts (AutoModelForImageTextToText)"
        )
    return dict(config)


def check_safe(checkpoint: Checkpoint, config: Mapping[str, Any]) -> None:
    """Raise JudgeError for code that a checkpoint brings along, and for weights that are not in safetensors."""
    where = checkpoint.folder
    if "auto_map" in config:
        raise JudgeError(f"{where}: its config.json wants code of its own (auto_map), which is never run")
    if "quantization_config" in config:
        raise JudgeError(f"{where}: quantized weights are not supported; accepted: bf16, fp16 or fp32")
    if not any(where.glob("*.safetensors")):
        others = sorted(p.name for p in where.iterdir() if p.suffix in {".bin", ".pt", ".pth", ".ckpt"})
        what = f"only {', '.join(others)}" if others else "no weights"
        raise JudgeError(f"{where}: found {what}; accepted: *.safetensors (pickles are never loaded)")


def architecture(config: Mapping[str, Any]) -> str:
    """The model class that a ``config.json`` names; its model type where it names none."""
    # 4.57 writes it down among the text model's settings
    named = config.get("architectures") or (config.get("text_config") or {}).get("architectures")
    return str((named or [config.get("model_type", "nothing")])[0])


@cache
def _sha256(path: Path, _changed: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
