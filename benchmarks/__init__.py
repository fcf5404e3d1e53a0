"""Benchmarks: `python -m benchmarks.bench_<theme> [--quick] [--out FILE]`."""
