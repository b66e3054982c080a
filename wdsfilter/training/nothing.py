"""A judge before its first lesson: a tokenizer trained on texts, and a small network with random weights.

Both are what the family's are (byte-level BPE with Qwen2's pre-tokenizer, so that digits stand alone;
``Qwen2VLForConditionalGeneration``), only smaller, so everything that reads the family reads them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

ADDED_TOKENS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>"),
    *("<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>"),
    *("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
)
TEXTUAL_TOKENS = ("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_suffix|>", "<think>", "</think>")
"""Added tokens that are not special, as later members of the family have them."""

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' -}}"
    "{%- if message['content'] is string -%}{{- message['content'] -}}"
    "{%- else -%}{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'image' -%}{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}"
    "{%- else -%}{{- part['text'] -}}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{{- '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)


class Shape(BaseModel):
    """Sizes of a network: widths, layers, heads of the language model, and of the vision tower.

    A head is 32 wide where ``width / heads`` is. ``vocabulary`` counts bytes and merges, without the
    added tokens.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    vocabulary: int = Field(2048, ge=300)
    width: int = Field(192, ge=16)
    layers: int = Field(5, ge=1)
    heads: int = Field(6, ge=1)
    key_value_heads: int = Field(2, ge=1)
    mlp: int = Field(512, ge=16)
    rope_theta: float = Field(10_000.0, gt=1)
    vision_width: int = Field(160, ge=16)
    vision_layers: int = Field(5, ge=1)
    vision_heads: int = Field(5, ge=1)


def build_tokenizer(texts: Iterable[str], vocabulary: int) -> Any:
    """A ``tokenizers.Tokenizer`` of ``vocabulary`` bytes and merges, and the family's added tokens."""
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        trainers,
    )
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in ADDED_TOKENS]
    )
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in TEXTUAL_TOKENS])
    return tokenizer


def build_network(tokenizer: Any, shape: Shape) -> Any:
    """A ``Qwen2VLForConditionalGeneration`` of that shape, its weights drawn from torch's global generator."""
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    token = tokenizer.token_to_id
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": tokenizer.get_vocab_size(),
            "hidden_size": shape.width,
            "intermediate_size": shape.mlp,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.key_value_heads,
            "max_position_embeddings": 4096,
            "rope_theta": shape.rope_theta,
            "rope_scaling": {"rope_type": "default", "mrope_section": mrope_section(shape)},
            "bos_token_id": token("<|endoftext|>"),
            "eos_token_id": token("<|im_end|>"),
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": shape.vision_layers,
            "embed_dim": shape.vision_width,
            "hidden_size": shape.width,
            "num_heads": shape.vision_heads,
            "mlp_ratio": 4,
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    return Qwen2VLForConditionalGeneration(config)


def mrope_section(shape: Shape) -> list[int]:
    """Time, height and width take turns among the frequencies, so that each has fast and slow ones.

    Three blocks, as the large models have them, leave height and width too coarse where a head is this
    small. The number of sections is a multiple of three: transformers 4.57 goes through them twice, and
    both halves of a rotation must have the same axis.
    """
    frequencies = shape.width // shape.heads // 2
    sections = frequencies // 3 * 3
    return [1] * (sections - 1) + [1 + frequencies - sections]


def save_processor(tokenizer: Any, folder: Path, *, min_pixels: int, max_pixels: int) -> None:
    """Write tokenizer, chat template and image settings beside the weights, as the hub has them."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "Qwen2Tokenizer",
            "padding_side": "left",
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "unk_token": None,
        },
    )
    _write_json(
        folder / "preprocessor_config.json",
        {
            "processor_class": "Qwen2VLProcessor",
            "image_processor_type": "Qwen2VLImageProcessor",
            "size": {"shortest_edge": min_pixels, "longest_edge": max_pixels},
            "patch_size": 14,
            "temporal_patch_size": 2,
            "merge_size": 2,
        },
    )


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
