"""Small checkpoints that are not of the packed family, in hub layout: LLaVA, Idefics3 and Gemma 3."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from wdsfilter.demo.checkpoint import PROMPT, SYSTEM
from wdsfilter.engine.loading import quiet
from wdsfilter.training.nothing import build_tokenizer

TEXTS = [
    f"System: {SYSTEM}\n",
    PROMPT,
    "User: Assistant: score: {1} score: {10} a small red dog near a tree 23456789",
]
_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 2048,
}
_VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": 14,
}
_HALVES = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
_IDEFICS3_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'].capitalize() }}"
    "{{ ':' if message['content'][0]['type'] == 'image' else ': ' }}"
    "{% for part in message['content'] %}"
    "{{ part['text'] if part['type'] == 'text' else '<image>' }}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
# Knows no turn of the system, and trims: what Gemma's templates do
_GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
    "<start_of_turn>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{{ part['text'] | trim if part['type'] == 'text' else '<start_of_image>' }}{% endfor %}"
    "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


@pytest.fixture(scope="session")
def answering_llava(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA whose language model is the tiny checkpoint's: it answers in form, and grades follow the caption."""
    folder = tmp_path_factory.mktemp("strangers") / "llava"
    shutil.copytree(tiny_checkpoint, folder, ignore=shutil.ignore_patterns("*.safetensors", "*config.json"))
    like = json.loads((tiny_checkpoint / "config.json").read_text())
    text = like["text_config"]
    names = (
        "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads"
    )
    config = LlavaConfig(
        text_config={
            "model_type": "qwen2",
            **{name: text[name] for name in names.split()},
            "rope_theta": 10_000.0,
            "tie_word_embeddings": True,
        },
        vision_config={"model_type": "clip_vision_model", "image_size": 28, "projection_dim": 32, **_VISION},
        image_token_index=like["image_token_id"],
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    network = LlavaForConditionalGeneration(config)
    weights = load_file(tiny_checkpoint / "model.safetensors")
    prefix = next(name for name in weights if name.endswith("embed_tokens.weight"))[
        : -len("embed_tokens.weight")
    ]
    own = {name[len(prefix) :]: weight for name, weight in weights.items() if name.startswith(prefix)}
    network.model.language_model.load_state_dict(
        {name: own[name] for name in network.model.language_model.state_dict()}
    )
    _save(
        network,
        folder,
        {
            "image_processor_type": "CLIPImageProcessor",
            "size": {"shortest_edge": 28},
            "crop_size": {"height": 28, "width": 28},
            **_HALVES,
        },
        {
            "processor_class": "LlavaProcessor",
            "patch_size": 14,
            "vision_feature_select_strategy": "default",
            "image_token": "<|image_pad|>",
            "num_additional_image_tokens": 1,
        },
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
        },
    )
    return folder


@pytest.fixture(scope="session")
def tiny_idefics3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An Idefics3 with random weights: pictures in tiles, as many as their shape wants."""
    folder = tmp_path_factory.mktemp("strangers") / "idefics3"
    tokenizer = build_tokenizer(TEXTS * 20, 400)
    places = [f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)]
    _add(tokenizer, "<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", *places)
    token = tokenizer.token_to_id
    config = Idefics3Config(
        vision_config={**_VISION, "image_size": 28},
        text_config={
            "model_type": "llama",
            **_TEXT,
            "vocab_size": tokenizer.get_vocab_size(),
            "pad_token_id": token("<|endoftext|>"),
        },
        image_token_id=token("<image>"),
        scale_factor=2,
        pad_token_id=token("<|endoftext|>"),
    )
    tokenizer_config = {"eos_token": "<end_of_utterance>", "pad_token": "<|endoftext|>"}
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(_IDEFICS3_TEMPLATE)
    _save(
        _random(Idefics3ForConditionalGeneration, config),
        folder,
        {
            "image_processor_type": "Idefics3ImageProcessor",
            "size": {"longest_edge": 56},
            "max_image_size": {"longest_edge": 28},
            "do_image_splitting": True,
            **_HALVES,
        },
        {"processor_class": "Idefics3Processor", "image_seq_len": 1},
        {"tokenizer_class": "PreTrainedTokenizerFast", **tokenizer_config},
    )
    return folder


@pytest.fixture(scope="session")
def tiny_gemma3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Gemma 3 with random weights: an image's tokens see each other, words begin with a mark, control tokens stand
    in the vocabulary, and the template knows no system turn."""
    folder = tmp_path_factory.mktemp("strangers") / "gemma3"
    controls = ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"]
    controls += ["<start_of_image>", "<end_of_image>", "<image_soft_token>"]
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<pad>"))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(prepend_scheme="first", split=False),
            pre_tokenizers.Digits(individual_digits=True),
        ]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=[*controls, "\n\n", *bytes_], show_progress=False, max_token_length=12
    )
    tokenizer.train_from_iterator(TEXTS * 20, trainer)
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [one for one in content["added_tokens"] if one["content"] not in bytes_]
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(content))
    (folder / "chat_template.jinja").write_text(_GEMMA_TEMPLATE)
    token = tokenizer.token_to_id
    config = Gemma3Config(
        vision_config={**_VISION, "image_size": 56},
        text_config={
            **_TEXT,
            "head_dim": 16,
            "vocab_size": tokenizer.get_vocab_size(),
            "pad_token_id": token("<pad>"),
            "eos_token_id": token("<eos>"),
            "bos_token_id": token("<bos>"),
            "sliding_window": 16,
        },
        mm_tokens_per_image=4,
        image_token_index=token("<image_soft_token>"),
        boi_token_index=token("<start_of_image>"),
        eoi_token_index=token("<end_of_image>"),
    )
    named = {
        "bos_token": "<bos>",
        "eos_token": "<end_of_turn>",
        "pad_token": "<pad>",
        "extra_special_tokens": {
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": "<image_soft_token>",
        },
    }
    _save(
        _random(Gemma3ForConditionalGeneration, config),
        folder,
        {"image_processor_type": "Gemma3ImageProcessor", "size": {"height": 56, "width": 56}, **_HALVES},
        {"processor_class": "Gemma3Processor", "image_seq_length": 4},
        {"tokenizer_class": "PreTrainedTokenizerFast", **named},
    )
    return folder


def _add(tokenizer: Any, *tokens: str) -> None:
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])


def _random(kind: Any, config: Any) -> Any:
    torch.manual_seed(0)
    network = kind(config)
    for name, weight in network.named_parameters():  # far from where nothing depends on anything
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.15 if "embed" in name else 0.3)
    return network


def _save(
    network: Any, folder: Path, images: dict[str, Any], processor: dict[str, Any], tokenizer: dict[str, Any]
) -> None:
    with quiet():
        network.save_pretrained(folder)
    named = {
        "preprocessor_config.json": images,
        "processor_config.json": processor,
        # 4.57 gives types of tokens unless told otherwise
        "tokenizer_config.json": tokenizer | {"model_input_names": ["input_ids", "attention_mask"]},
    }
    for name, content in named.items():
        (folder / name).write_text(json.dumps(content))
