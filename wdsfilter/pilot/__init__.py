"""The first shards of a run -> what the whole run would keep, and what it would cost."""
