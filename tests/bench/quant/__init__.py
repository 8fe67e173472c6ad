"""Quantizers side by side: what they cost, and what comes out."""
