"""Small CLIP, SigLIP and GPT-2 checkpoints in hub layout, with random weights and tokenizers of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import CLIPConfig, CLIPModel, GPT2Config, GPT2LMHeadModel, SiglipConfig, SiglipModel

from wdsfilter.engine.loading import quiet

TEXTS = [
    "a photo of a small red house near the lake",
    "two dogs run on a beach in the evening, it's late",
    "An old map of the city. Picture 12 of 40",
    "number one a picture of",
]
_CLIP_PATTERN = (
    r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""
)
_CLIP_PIXELS = {
    "image_processor_type": "CLIPImageProcessor",
    "do_center_crop": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
_SIGLIP_PIXELS = {
    "image_processor_type": "SiglipImageProcessor",
    "size": {"height": 24, "width": 24},
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
_VISION = {
    "image_size": 24,
    "patch_size": 8,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
_TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of 20 tokens and 24 x 24 pixels."""
    return write_clip(
        tmp_path_factory.mktemp("encoders") / "clip", _VISION, {**_TEXT, "max_position_embeddings": 20}
    )


def write_clip(folder: Path, vision: dict[str, int], text: dict[str, int]) -> Path:
    """A CLIP of these sizes; only its tokenizer is small."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_CLIP_PATTERN), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    controls = ["<|startoftext|>", "<|endoftext|>"]
    tokenizer.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(
            vocab_size=600,
            special_tokens=controls,
            initial_alphabet=alphabet,
            end_of_word_suffix="</w>",
            show_progress=False,
        ),
    )
    tokenizer = _with_word_ends(tokenizer, alphabet)
    start, end = (tokenizer.token_to_id(token) for token in controls)
    tokenizer.post_processor = processors.RobertaProcessing(
        ("<|endoftext|>", end), ("<|startoftext|>", start), False, False
    )
    named = {"bos_token": controls[0], "eos_token": controls[1], "pad_token": controls[1]}
    _save_tokenizer(tokenizer, folder, {"tokenizer_class": "CLIPTokenizer", **named})
    known = {
        "vocab_size": tokenizer.get_vocab_size(),
        "bos_token_id": start,
        "eos_token_id": end,
        "pad_token_id": end,
    }
    config = CLIPConfig(text_config={**text, **known}, vision_config=vision, projection_dim=16)
    side = vision["image_size"]
    pixels = {**_CLIP_PIXELS, "size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    return _save(CLIPModel, config, folder, pixels)


@pytest.fixture(scope="session")
def tiny_siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SigLIP of 16 tokens and 24 x 24 pixels, with a unigram tokenizer whose pieces name its control tokens."""
    folder = tmp_path_factory.mktemp("encoders") / "siglip"
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator(
        TEXTS,
        trainers.UnigramTrainer(
            vocab_size=120,
            special_tokens=["<pad>", "</s>", "<unk>"],
            initial_alphabet=list("abcdefghijklmnopqrstuvwxyz<>/|"),
            unk_token="<unk>",
            show_progress=False,
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    named = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    _save_tokenizer(tokenizer, folder, {"tokenizer_class": "PreTrainedTokenizerFast", **named})
    text = {
        **_TEXT,
        "vocab_size": tokenizer.get_vocab_size(),
        "max_position_embeddings": 16,
        "bos_token_id": 1,
        "eos_token_id": 1,
        "pad_token_id": 0,
    }
    config = SiglipConfig(text_config=text, vision_config=_VISION)
    return _save(SiglipModel, config, folder, _SIGLIP_PIXELS)


@pytest.fixture(scope="session")
def tiny_gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 of 32 positions."""
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 32}
    return write_gpt2(tmp_path_factory.mktemp("encoders") / "gpt2", sizes)


def write_gpt2(folder: Path, sizes: dict[str, int]) -> Path:
    """A GPT-2 of these sizes; only its tokenizer is small."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(
            vocab_size=320,
            special_tokens=["<|endoftext|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    end = tokenizer.token_to_id("<|endoftext|>")
    named = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    _save_tokenizer(tokenizer, folder, {"tokenizer_class": "GPT2Tokenizer", **named})
    config = GPT2Config(vocab_size=tokenizer.get_vocab_size(), bos_token_id=end, eos_token_id=end, **sizes)
    return _save(GPT2LMHeadModel, config, folder)


def _with_word_ends(tokenizer: Any, alphabet: list[str]) -> Any:
    """CLIP knows every byte at the end of a word, too: nothing is unknown to it."""
    content = json.loads(tokenizer.to_str())
    vocabulary = content["model"]["vocab"]
    for byte in alphabet:
        vocabulary.setdefault(f"{byte}</w>", len(vocabulary))
    return Tokenizer.from_str(json.dumps(content))


def _save_tokenizer(tokenizer: Any, folder: Path, settings: dict[str, Any]) -> None:
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def _save(kind: Any, config: Any, folder: Path, pixels: dict[str, Any] | None = None) -> Path:
    state = torch.get_rng_state()
    torch.manual_seed(0)
    network = kind(config)
    for weight in _matrices(network):  # fresh ones hardly tell one input from another
        weight.data.mul_(4)
    torch.set_rng_state(state)
    with quiet():
        network.save_pretrained(folder)
    if pixels is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(pixels))
    return folder


def _matrices(network: Any) -> Iterator[Any]:
    return (weight for weight in network.parameters() if weight.dim() > 1)
