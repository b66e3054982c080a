"""The smallest honest Qwen2-VL checkpoint: a folder in hub layout, made in seconds, that answers in form.

    python -m wdsfilter.demo.checkpoint FOLDER

Its tokenizer is built as Qwen2's is, its architecture is the real one with small numbers, and it is
trained just long enough to answer ``score: {N}`` and a justification, where N follows from the
number of words in the caption. It knows nothing about images.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

SYSTEM = "You are helpful AI assistant"
PROMPT = "Analyze and assess the quality of following image-caption pair:\n"
PIXELS = 56 * 56  # of every image: 4 visual tokens

ADDED_TOKENS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>"),
    *("<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>"),
    *("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
)
TEXTUAL_TOKENS = ("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_suffix|>", "<think>", "</think>")
"""Added tokens that are not special, as later members of the family have them."""

_VOCABULARY = 512  # byte-level tokens and merges, before the added ones
_STEPS, _PAIRS_PER_STEP = 120, 20
_WORDS = (
    "a an the one two 3 red blue small large old dog cat house tree car boat man woman child bird "
    "on in under near with and of street beach table photo picture view sky morning 1920s "
    "vintage, wooden standing running smiling "
    "orange gold green teal purple black white beige lightblue lightgray mistyrose plain background "
    "circle square triangle bar left middle right, drawn before some shapes image"
)
_CHAT_TEMPLATE = (
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


def make_checkpoint(folder: str | Path, *, seed: int = 0, score_first: bool = True) -> None:
    """Writes the checkpoint. The same seed gives the same weights on the same machine.

    With ``score_first=False`` its answers end with the score: what a forced start must not be used on.
    """
    import torch

    from wdsfilter.engine.loading import quiet

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(1)  # a model this small gains nothing from more, and sums stay in one order
    torch.manual_seed(seed)
    try:
        tokenizer = _tokenizer(random.Random(seed), score_first)  # reproducible, not secret
        network = _network(tokenizer)
        _train(network, tokenizer, random.Random(seed + 1), score_first)
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(state)
    with quiet():
        network.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(_CHAT_TEMPLATE, encoding="utf-8")
    tokens = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "unk_token": None}
    _write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "Qwen2Tokenizer", "padding_side": "left", **tokens},
    )
    settings = {
        "processor_class": "Qwen2VLProcessor",
        "image_processor_type": "Qwen2VLImageProcessor",
        "size": {"shortest_edge": PIXELS, "longest_edge": PIXELS},
        "patch_size": 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
    }
    _write_json(folder / "preprocessor_config.json", settings)


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _answer(caption: str, score_first: bool) -> str:
    words = len(caption.split())
    said = "The caption is short." if words < 6 else "The caption says enough."
    score = f"score: {{{min(10, max(1, words))}}}"
    return f"{score}\n{said}" if score_first else f"{said}\n{score}"


def _captions(rng: random.Random) -> Iterator[str]:
    while True:
        yield " ".join(rng.choices(_WORDS.split(), k=rng.randint(1, 12)))


def _tokenizer(rng: random.Random, score_first: bool) -> Any:
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
    captions = list(itertools.islice(_captions(rng), 500))
    texts = [PROMPT + caption for caption in captions] + [
        _answer(caption, score_first) for caption in captions
    ]
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([*texts, *[f"system\n{SYSTEM}", "user\n", "assistant\n"] * 100], trainer)
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in ADDED_TOKENS]
    )
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in TEXTUAL_TOKENS])
    return tokenizer


def _network(tokenizer: Any) -> Any:
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    token = tokenizer.token_to_id
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": tokenizer.get_vocab_size(),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "rope_theta": 10000.0,
            "rope_scaling": {"rope_type": "default", "mrope_section": [2, 3, 3]},
            "bos_token_id": token("<|endoftext|>"),
            "eos_token_id": token("<|im_end|>"),
            "tie_word_embeddings": True,
        },
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 4},
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    return Qwen2VLForConditionalGeneration(config)


def _train(network: Any, tokenizer: Any, rng: random.Random, score_first: bool) -> None:
    import torch

    captions = _captions(rng)
    network.model.visual.requires_grad_(False)
    optimizer = torch.optim.AdamW(network.parameters(), lr=6e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, 2.0 * (1.0 - step / _STEPS))
    )
    for _ in range(_STEPS):
        rows = [_row(tokenizer, next(captions), score_first) for _ in range(_PAIRS_PER_STEP)]
        batch = _batch(rows, tokenizer)
        pixels = torch.randn(_PAIRS_PER_STEP, 1, 1, 3, 1, 1).expand(-1, 4, 4, -1, 2, 14 * 14)
        grid = torch.tensor([[1, 4, 4]] * _PAIRS_PER_STEP)
        loss = network(**batch, pixel_values=pixels.reshape(-1, 3 * 2 * 14 * 14), image_grid_thw=grid).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


def _row(tokenizer: Any, caption: str, score_first: bool) -> tuple[list[int], list[int]]:
    """Ids of a prompt and of its answer."""
    image = "<|vision_start|>" + "<|image_pad|>" * 4 + "<|vision_end|>"
    prompt = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{image}{PROMPT}{caption}<|im_end|>\n"
    answer = f"{_answer(caption, score_first)}<|im_end|>"
    return tokenizer.encode(f"{prompt}<|im_start|>assistant\n").ids, tokenizer.encode(answer).ids


def _batch(rows: Sequence[tuple[list[int], list[int]]], tokenizer: Any) -> dict[str, Any]:
    """Padded on the right; only the answers count."""
    import torch

    width = max(len(prompt) + len(answer) for prompt, answer in rows)
    ids = torch.full((len(rows), width), tokenizer.token_to_id("<|endoftext|>"))
    labels = torch.full_like(ids, -100)
    for i, (prompt, answer) in enumerate(rows):
        ids[i, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
        labels[i, len(prompt) : len(prompt) + len(answer)] = torch.tensor(answer)
    image = tokenizer.token_to_id("<|image_pad|>")
    # nothing looks ahead, so padding on the right needs no mask
    return {"input_ids": ids, "labels": labels, "mm_token_type_ids": (ids == image).int()}


def main(argv: Sequence[str] | None = None) -> int:
    """The command above. Returns its exit code."""
    parser = argparse.ArgumentParser(description="Make a tiny judge checkpoint.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--score-last", action="store_true", help="justification first, then the score")
    arguments = parser.parse_args(argv)
    make_checkpoint(arguments.folder, seed=arguments.seed, score_first=not arguments.score_last)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
