"""A whole run on one GPU with the real Qwen2-VL-2B architecture, and the published loop on the same GPU.

    python -m benchmarks.gpu [--pairs 4096] [--looped 64] [--tiny]

The weights are random, 2.2 billion of them made on the device in bf16: shapes alone decide how long it takes.
They are written to memory as a checkpoint, and ``run`` does the rest from shards to committed ledgers and shards:
read, decode, resize, judge with ``readout: expected``, keep all; once in bf16, once with ``weights: fp8``. Images are
scaled to exactly 64 or 256 visual tokens.
The published loop is the stock processor and greedy generation in padded batches of 16, in fp16, answers of 120
tokens, over the same pairs in memory.

Without a GPU nothing is measured, and the rows say so. ``--tiny`` takes a network of two layers, on whatever
device there is: to see that everything here works. Writes ``benchmarks/results/gpu.json`` otherwise.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from benchmarks import measure
from benchmarks.images import photo
from tests import stock
from wdsfilter import pipeline, plan, recipe
from wdsfilter.committing import Committed
from wdsfilter.demo.checkpoint import PROMPT, SYSTEM
from wdsfilter.samples import Member
from wdsfilter.shards.writer import ShardWriter
from wdsfilter.training.nothing import build_tokenizer, save_processor
from wdsfilter.workers import default_count

UNIT = 28 * 28  # pixels of a visual token
VISUAL_TOKENS = (64, 256)
LIMITS = {64: 1062, 256: 329}  # pairs/s at 790 TFLOP/s (docs/performance.md)
ANSWER = 120
TOGETHER = 16
RATE = "pairs/s on one GPU, {} visual tokens, bf16, from shards"
LOOP = f"time: published loop, answers of {ANSWER} tokens / a run, one GPU, {{}} visual tokens"
FP8 = "time: a run in bf16 / with weights: fp8, one GPU, {} visual tokens"
REAL: dict[str, dict[str, Any]] = {
    "text_config": {
        "hidden_size": 1536,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "intermediate_size": 8960,
        "vocab_size": 151936,
        "max_position_embeddings": 32768,
        "rope_theta": 1e6,
        "rope_scaling": {"rope_type": "default", "mrope_section": [16, 24, 24]},
        "tie_word_embeddings": True,
    },
    "vision_config": {"depth": 32, "embed_dim": 1280, "num_heads": 16, "mlp_ratio": 4, "hidden_size": 1536},
}
TINY: dict[str, dict[str, Any]] = {
    "text_config": {
        **REAL["text_config"],
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "vocab_size": 2048,
        "rope_scaling": {"rope_type": "default", "mrope_section": [2, 3, 3]},
    },
    "vision_config": {"depth": 2, "embed_dim": 32, "num_heads": 2, "mlp_ratio": 4, "hidden_size": 64},
}


def make_checkpoint(folder: Path, shape: dict[str, dict[str, Any]], device: str) -> None:
    """Random weights made on ``device``, and a tokenizer with about as many tokens per word as the real one."""
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    texts = [f"system\n{SYSTEM}", "user\n", "assistant\n", PROMPT, "score: {1}", *captions(500)]
    tokenizer = build_tokenizer(texts * 20, 1024)
    token = tokenizer.token_to_id
    config = Qwen2VLConfig(
        **shape,
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    with torch.device(device):
        network = Qwen2VLForConditionalGeneration._from_config(config, dtype=torch.bfloat16)
    network.save_pretrained(folder)
    save_processor(
        tokenizer, folder, min_pixels=UNIT * VISUAL_TOKENS[-1], max_pixels=UNIT * VISUAL_TOKENS[-1]
    )


def captions(count: int) -> list[str]:
    """Of 10 to 40 words, as alt texts are."""
    rng = random.Random(1)
    words = ["".join(rng.choices("abcdefghijklmnoprstuvw", k=rng.randint(2, 8))) for _ in range(400)]
    return [" ".join(rng.choices(words, k=rng.randint(10, 40))) for _ in range(count)]


def make_shards(folder: Path, count: int, shards: int = 4) -> tuple[list[Path], list[tuple[bytes, str]]]:
    """``count`` pairs as CC12M has them, in shards and as they are. 128 pictures take turns."""
    rng = random.Random(0)
    pictures = [photo(rng, rng.choice([384, 448, 512]), rng.choice([384, 448, 512]), 88) for _ in range(128)]
    pairs = [(pictures[i % len(pictures)], caption) for i, caption in enumerate(captions(count))]
    folder.mkdir()
    paths = [folder / f"{number:05}.tar" for number in range(shards)]
    for number, path in enumerate(paths):
        writer = ShardWriter(path)
        for i, (image, caption) in enumerate(pairs[number::shards]):
            key = f"{number:05}{i:05}"
            writer.add([Member(f"{key}.jpg", "jpg", image), Member(f"{key}.txt", "txt", caption.encode())])
        writer.close()
    return paths, pairs


def run(
    checkpoint: Path,
    shards: Sequence[Path],
    output: Path,
    visual_tokens: int,
    device: str,
    weights: str = "stored",
) -> float:
    """Pairs per second of a run after its first shard, which warms everything up."""
    pixels = visual_tokens * UNIT
    judge = {
        "model": str(checkpoint),
        "min_pixels": pixels,
        "max_pixels": pixels,
        "weights": weights,
        "check": {"first": 0},
        "at_least": 1,
    }
    parsed = recipe.parse(
        {
            "input": {"shards": [{"path": str(path)} for path in shards]},
            "judges": [{"vlm": judge}],
            "guard": False,
            "run": {"device": device},
        }
    )
    counts, ends = [], []
    with pipeline.Runner(plan.plan(parsed, output), worker_count=default_count(1)) as runner:
        runner.open()
        for result in pipeline.run(runner):
            assert isinstance(result, Committed)
            counts.append(result.header.counts.samples)
            ends.append(time.perf_counter())
    return sum(counts[1:]) / (ends[-1] - ends[0])


def published(checkpoint: Path, pairs: Sequence[tuple[bytes, str]], visual_tokens: int, device: str) -> float:
    """Pairs per second of the published loop, after one batch that does not count."""
    pixels = visual_tokens * UNIT
    processor = stock.processor(checkpoint, min_pixels=pixels, max_pixels=pixels)
    dtype = torch.float16 if device != "cpu" else torch.float32
    model = stock.model(checkpoint).to(device, dtype)
    began = 0.0
    for start in range(0, len(pairs), TOGETHER):
        if start == TOGETHER:
            began = time.perf_counter()
        batch = pairs[start : start + TOGETHER]
        texts = [stock.rendered(processor, PROMPT + caption) for _, caption in batch]
        images = [Image.open(io.BytesIO(image)).convert("RGB") for image, _ in batch]
        inputs = processor(text=texts, images=images, padding=True, return_tensors="pt").to(device, dtype)
        with torch.inference_mode():
            output = model.generate(**inputs, max_new_tokens=ANSWER, min_new_tokens=ANSWER, do_sample=False)
        processor.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return (len(pairs) - TOGETHER) / (time.perf_counter() - began)


def main(argv: Sequence[str] | None = None) -> int:
    """The command above. Returns its exit code."""
    parser = argparse.ArgumentParser(description="A whole run on one GPU.")
    parser.add_argument("--pairs", type=int, default=4096)
    parser.add_argument("--looped", type=int, default=64, help="pairs for the published loop")
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args(argv)
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not arguments.tiny:
        rows = [RATE.format(tokens) for tokens in VISUAL_TOKENS]
        rows.append(LOOP.format(VISUAL_TOKENS[-1]))
        rows += [FP8.format(tokens) for tokens in VISUAL_TOKENS]
        measure.save("gpu", {"ratios": {}, "not_measured": rows}, ("torch", "transformers"))
        return 0
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as scratch:
        folder = Path(scratch)
        make_checkpoint(folder / "checkpoint", TINY if arguments.tiny else REAL, device)
        shards, pairs = make_shards(folder / "shards", arguments.pairs)
        rates = {}
        for tokens in VISUAL_TOKENS:
            rates[f"run, {tokens}"] = run(
                folder / "checkpoint", shards, folder / f"out-{tokens}", tokens, device
            )
            rates[f"fp8, {tokens}"] = run(
                folder / "checkpoint", shards, folder / f"fp8-{tokens}", tokens, device, "fp8"
            )
            rates[f"loop, {tokens}"] = published(
                folder / "checkpoint", pairs[: arguments.looped], tokens, device
            )
        found = json.loads((folder / "out-256" / "wdsfilter" / "readout.json").read_text())
    if arguments.tiny:
        print(json.dumps({"pairs_per_second": rates, "readout": found}, indent=2))
        return 0
    ratios: dict[str, Any] = {}
    for tokens in VISUAL_TOKENS:
        ran, looped, eight = (rates[f"{name}, {tokens}"] for name in ("run", "loop", "fp8"))
        ratios |= {
            RATE.format(tokens): measure.spread([ran]),
            LOOP.format(tokens): measure.spread([ran / looped]),
            FP8.format(tokens): measure.spread([eight / ran]),
            f"share of the computed limit ({LIMITS[tokens]} pairs/s), {tokens} visual tokens": measure.spread(
                [ran / LIMITS[tokens]]
            ),
        }
    facts = {"device": torch.cuda.get_device_name(device), "pairs": arguments.pairs, "readout": found}
    result = {"ratios": ratios, "pairs_per_second": rates}
    measure.save("gpu", {"input": facts, **result}, ("torch", "transformers"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
