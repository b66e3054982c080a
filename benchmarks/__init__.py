"""Side-by-side measurements. `python -m benchmarks.NAME` runs one and writes `results/NAME.json`."""
