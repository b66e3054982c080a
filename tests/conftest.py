"""Fixtures that several files share."""

from tests.checkpoints import score_last_checkpoint, tiny_checkpoint
from tests.encoders import tiny_clip, tiny_gpt2, tiny_siglip

__all__ = ["score_last_checkpoint", "tiny_checkpoint", "tiny_clip", "tiny_gpt2", "tiny_siglip"]
