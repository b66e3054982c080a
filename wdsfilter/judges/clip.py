"""CLIP similarity: how well image and caption go together, by the cosine of a dual encoder's embeddings.

Any CLIP or SigLIP. What appendix C of arXiv 2507.20156 takes the mean of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from wdsfilter.engine.checkpoint import PROCESSOR, TOKENIZER_CONFIG, WEIGHTS, Checkpoint, locate
from wdsfilter.judges import JudgeOptions, Runtime, decides, locates
from wdsfilter.samples import Decision, Numbers

if TYPE_CHECKING:
    from wdsfilter.engine.alignment import Alignment

SCORING_VERSION = 2
"""Raised by whatever changes a score that options and weights do not show."""

_PROCESSOR = (*PROCESSOR, TOKENIZER_CONFIG)


class Options(JudgeOptions):
    """``at_least``: the cosine that a pair needs to stay, -1 to 1; without it all pairs do, measured."""

    model: str = locates("openai/clip-vit-large-patch14")
    revision: str | None = locates()
    dtype: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    pairs_per_batch: int = Field(default=64, ge=1)
    window: int = Field(default=256, ge=1)
    at_least: float | None = decides(ge=-1, le=1)


def resolve(options: Options) -> tuple[Options, Sequence[str]]:
    return options, ()


def fields(options: Options) -> Mapping[str, str]:
    return {"score": "float32", "truncated": "bool"}


def decide(options: Options, numbers: Numbers) -> Decision | None:
    if options.at_least is None or numbers["score"] >= options.at_least:
        return None
    return Decision("dropped", "at_least", f"score {numbers['score']:.4g} < {options.at_least:g}")


def identify(options: Options, runtime: Runtime) -> Mapping[str, Any]:
    from wdsfilter.engine.loading import identity

    checkpoint = _checkpoint(options)
    told = identity(checkpoint, checkpoint, _PROCESSOR, dtype=options.dtype, device=runtime.device)
    return {"scoring_version": SCORING_VERSION, **told}


def load(options: Options, runtime: Runtime) -> Alignment:
    from wdsfilter.engine.alignment import load_alignment

    return load_alignment(
        _checkpoint(options),
        device=runtime.device,
        dtype=options.dtype,
        window=options.window,
        batch=options.pairs_per_batch,
        threads=runtime.threads,
    )


def _checkpoint(options: Options) -> Checkpoint:
    return locate(options.model, options.revision, (*WEIGHTS, *_PROCESSOR))
