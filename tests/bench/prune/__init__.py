"""Pruning measured: accuracy beside others, speed, curves, cost."""
