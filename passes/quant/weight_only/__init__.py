"""Scheme weight: weights as codes of 2 to 8 bits in blocks, activations in float."""
