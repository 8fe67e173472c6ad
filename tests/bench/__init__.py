"""Benchmarks: `python -m tests.bench.run`. They print and write what they measure; none gates."""
