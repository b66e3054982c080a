"""Shards -> what they are like: two numbers of models, and facts that need none."""
