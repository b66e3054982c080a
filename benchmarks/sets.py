"""How fast `wdsfilter measure` is.

- Both numbers of models, a CLIP and a GPT-2, against the loop that users write: webdataset, transformers' processor and
  models, batches of 32 pairs. The checkpoints are of a small model's size, with random weights.
- Facts alone, which need no model, against reading the same samples.

Models are loaded before the clocks start. Pictures are JPEGs of 384 x 384 pixels.

    python -m benchmarks.sets [--rounds 5] [--pairs 128] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import webdataset
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoModelForCausalLM, AutoTokenizer

from benchmarks import measure
from benchmarks.overlap import make_shards
from tests.encoders import write_clip, write_gpt2
from wdsfilter import storage
from wdsfilter.judges import Runtime
from wdsfilter.measure import measuring
from wdsfilter.measure.measuring import Measured, find_set, measuring_recipe
from wdsfilter.panel import Panel
from wdsfilter.shards.reader import read_samples

BATCH = 32
VISION = {
    "image_size": 224,
    "patch_size": 32,
    "hidden_size": 384,
    "intermediate_size": 1536,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
}
TEXT = {
    "hidden_size": 256,
    "intermediate_size": 1024,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "max_position_embeddings": 77,
}
GPT2 = {"n_embd": 384, "n_layer": 6, "n_head": 6, "n_positions": 1024}


def stock(clip: Path, lm: Path, shards: Sequence[str]) -> Callable[[], float]:
    """What a user writes, as a function that gives the mean cosine."""
    model, processor = AutoModel.from_pretrained(clip).eval(), AutoImageProcessor.from_pretrained(clip)
    words, language = AutoTokenizer.from_pretrained(clip), AutoModelForCausalLM.from_pretrained(lm).eval()
    tokenizer = AutoTokenizer.from_pretrained(lm)

    @torch.no_grad()
    def measured() -> float:
        cosines: list[float] = []
        samples = iter(webdataset.WebDataset(list(shards), shardshuffle=False))
        while batch := list(islice(samples, BATCH)):
            captions = [sample["txt"].decode() for sample in batch]
            pixels = processor([_opened(sample["jpg"]) for sample in batch], return_tensors="pt")
            text = words(captions, padding=True, truncation=True, max_length=77, return_tensors="pt")
            found = model(input_ids=text.input_ids, attention_mask=text.attention_mask, **pixels)
            cosines += (found.text_embeds * found.image_embeds).sum(-1).tolist()
            for caption in captions:
                row = torch.tensor([[tokenizer.bos_token_id, *tokenizer(caption).input_ids]])
                language(row, labels=row).loss.item()
        return sum(cosines) / len(cosines)

    return measured


def _opened(data: bytes) -> Any:
    return Image.open(io.BytesIO(data)).convert("RGB")


def ours(panel: Panel, shards: Sequence[str]) -> Measured:
    return measuring.measure(find_set(f"{Path(shards[0]).parent}/", None, 0), panel, {})


def read(shards: Sequence[str]) -> None:
    def samples() -> Iterator[object]:
        for path in shards:
            with storage.open_read(path) as stream:
                yield from read_samples(stream)

    deque(samples(), maxlen=0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=128)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    runtime = Runtime("cpu")
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        shards = make_shards(folder / "shards", options.pairs, options.pairs // 4)
        many = make_shards(folder / "many", 40 * options.pairs, 10 * options.pairs)
        clip, lm = write_clip(folder / "clip", VISION, TEXT), write_gpt2(folder / "gpt2", GPT2)
        loop = stock(clip, lm, shards)
        with Panel(measuring_recipe(str(clip), str(lm), []), runtime) as panel:
            found = ours(panel, shards).alignment
            assert found is not None
            assert abs(found.value - loop()) < 1e-3, "two ways to the same number"
            arms = {"loop": loop, "measure": lambda: ours(panel, shards)}
            models = measure.in_turn(arms, options.rounds)
        with Panel(measuring_recipe(None, None, []), runtime) as panel:
            arms = {"read": lambda: read(many), "facts": lambda: ours(panel, many)}
            facts = measure.in_turn(arms, options.rounds)
    result = {
        "input": {"pairs": options.pairs, "pairs of facts": 40 * options.pairs, "rounds": options.rounds},
        "ratios": {
            "time: transformers loop, CLIP and GPT-2 / measure": measure.ratios(
                models["loop"], models["measure"]
            ),
            "time: measure, facts alone / reading every sample": measure.ratios(
                facts["facts"], facts["read"]
            ),
        },
        "seconds": {name: measure.spread(taken) for name, taken in {**models, **facts}.items()},
    }
    measure.save("sets", result, ("torch", "transformers", "webdataset"))


if __name__ == "__main__":
    main()
