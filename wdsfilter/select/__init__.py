"""Ledgers and shards -> new shards: another threshold, the best part, a subset, without a model."""
