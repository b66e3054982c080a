"""The smallest honest Qwen2-VL checkpoint: a folder in hub layout, made in seconds, that answers in form.

    python -m wdsfilter.demo.checkpoint FOLDER

Its tokenizer is built as Qwen2's is, its architecture is the real one with small numbers, and it is
trained just long enough to answer ``score: {N}`` and a justification, where N follows from the
number of words in the caption. It knows nothing about images.
"""

from __future__ import annotations

import argparse
import itertools
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from wdsfilter.training.nothing import Shape, build_network, build_tokenizer, save_processor

SYSTEM = "You are helpful AI assistant"
PROMPT = "Analyze and assess the quality of following image-caption pair:\n"
PIXELS = 56 * 56  # of every image: 4 visual tokens

_VOCABULARY = 512  # byte-level tokens and merges, before the added ones
_STEPS, _PAIRS_PER_STEP = 120, 20
_WORDS = (
    "a an the one two 3 red blue small large old dog cat house tree car boat man woman child bird "
    "on in under near with and of street beach table photo picture view sky morning 1920s "
    "vintage, wooden standing running smiling "
    "orange gold green teal purple black white beige lightblue lightgray mistyrose plain background "
    "circle square triangle bar left middle right, drawn before some shapes image"
)
_SHAPE = Shape(
    vocabulary=_VOCABULARY,
    width=64,
    layers=2,
    heads=4,
    key_value_heads=2,
    mlp=128,
    vision_width=32,
    vision_layers=2,
    vision_heads=2,
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
        network = build_network(tokenizer, _SHAPE)
        _train(network, tokenizer, random.Random(seed + 1), score_first)
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(state)
    with quiet():
        network.save_pretrained(folder)
    save_processor(tokenizer, folder, min_pixels=PIXELS, max_pixels=PIXELS)


def _answer(caption: str, score_first: bool) -> str:
    words = len(caption.split())
    said = "The caption is short." if words < 6 else "The caption says enough."
    score = f"score: {{{min(10, max(1, words))}}}"
    return f"{score}\n{said}" if score_first else f"{said}\n{score}"


def _captions(rng: random.Random) -> Iterator[str]:
    while True:
        yield " ".join(rng.choices(_WORDS.split(), k=rng.randint(1, 12)))


def _tokenizer(rng: random.Random, score_first: bool) -> Any:
    captions = list(itertools.islice(_captions(rng), 500))
    texts = [PROMPT + caption for caption in captions] + [
        _answer(caption, score_first) for caption in captions
    ]
    return build_tokenizer([*texts, *[f"system\n{SYSTEM}", "user\n", "assistant\n"] * 100], _VOCABULARY)


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
