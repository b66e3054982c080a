"""Bytes and tar: reading, writing and listing shards. Nothing in here knows what an image is."""
