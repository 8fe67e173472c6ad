"""Quantization: int8 weights and activations where the target runs them fast."""
