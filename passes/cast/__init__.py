"""The cast pass: a model in another floating-point type."""
