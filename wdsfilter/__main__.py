"""``python -m wdsfilter`` and ``accelerate launch -m wdsfilter``."""

from wdsfilter.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
