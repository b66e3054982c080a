"""Fixtures that several files share."""

from tests.checkpoints import score_last_checkpoint, tiny_checkpoint

__all__ = ["score_last_checkpoint", "tiny_checkpoint"]
