"""Whether a judge is any good: labelled pairs, what the judge says of them, and figures about that."""
