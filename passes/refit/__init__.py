"""Layers fitted again to what the original gives: what prune, lowrank and distill share."""
