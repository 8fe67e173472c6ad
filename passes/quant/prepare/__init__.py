"""Rewrites that are exact in real numbers, so that more of the graph becomes int8."""
