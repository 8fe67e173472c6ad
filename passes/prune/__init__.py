"""Structured pruning: units that the dimension analysis found go, and the rest is repaired."""
