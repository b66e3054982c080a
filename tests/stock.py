"""The reference: transformers' own processor and model, used as its documentation says."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

from PIL import Image

from wdsfilter.demo.checkpoint import SYSTEM
from wdsfilter.samples import Pair


def image_processor() -> Any:
    """The stock image processor with Pillow's backend, under its name in 5.x or in 4.57."""
    import transformers

    name = "Qwen2VLImageProcessor"
    return getattr(transformers, name + "Pil" if hasattr(transformers, name + "Pil") else name)


def processor(folder: Path, *, min_pixels: int, max_pixels: int) -> Any:
    """The stock processor, with Pillow's image backend. Its constructor insists on a video processor,
    which needs torchvision; nothing else in it does, so that one part is left out."""
    from transformers import AutoTokenizer, Qwen2VLProcessor
    from transformers.processing_utils import ProcessorMixin

    class ImagesOnly(Qwen2VLProcessor):  # type: ignore[misc]
        attributes = ("image_processor", "tokenizer")  # for 4.57; 5.x goes by the constructor

        def __init__(self, image_processor: Any, tokenizer: Any, chat_template: Any = None) -> None:
            for kind in ("image", "video"):
                setattr(self, f"{kind}_token", f"<|{kind}_pad|>")
                setattr(self, f"{kind}_token_id", tokenizer.convert_tokens_to_ids(f"<|{kind}_pad|>"))
            ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    # 4.57 does not look at `size`
    images = image_processor().from_pretrained(folder, min_pixels=min_pixels, max_pixels=max_pixels)
    template = (folder / "chat_template.jinja").read_text()
    return ImagesOnly(images, AutoTokenizer.from_pretrained(folder), chat_template=template)


def rendered(stock: Any, text: str) -> str:
    """The prompt as the chat template writes it; ``text`` is the user's whole text."""
    user = [{"type": "image"}, {"type": "text", "text": text}]
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": user}]
    prompt: str = stock.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return prompt


def inputs(stock: Any, image: Image.Image, text: str) -> Any:
    """What the stock model is given for one pair."""
    return stock(text=[rendered(stock, text)], images=[image], return_tensors="pt")


def model(folder: Path) -> Any:
    """The stock model in fp32."""
    import torch
    from transformers import AutoModelForImageTextToText

    return AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """An image that no shortcut in resizing would survive."""
    return Image.frombytes("RGB", (width, height), random.Random(seed).randbytes(3 * width * height))


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def pairs(count: int) -> list[Pair]:
    """Noise images of mixed sizes with captions of 1 to 12 words."""
    rng = random.Random(count)
    words = ["a", "dog", "cat", "house", "tree", "small", "large", "red", "old", "near", "street", "with"]
    return [
        Pair(
            str(i),
            png(noise(rng.randint(30, 200), rng.randint(30, 200), i)),
            " ".join(rng.choices(words, k=rng.randint(1, 12))),
        )
        for i in range(count)
    ]
