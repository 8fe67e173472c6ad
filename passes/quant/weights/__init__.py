"""Integers for weights: rounding that makes up for its own error. Mostly pure maths."""
