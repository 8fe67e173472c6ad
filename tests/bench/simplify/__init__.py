"""Benchmark of the simplify pass beside the simplifiers that people use."""
