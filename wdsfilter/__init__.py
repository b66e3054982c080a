"""A streaming filter for image-text WebDataset shards, judged by a compact vision-language model."""

__version__ = "0.1.0"
__all__ = ["__version__"]
