"""Folding: constants, and affine maps into the layers before them."""
