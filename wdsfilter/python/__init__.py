"""What ``import wdsfilter`` offers, loaded when it is asked for: torch comes with most of it."""
