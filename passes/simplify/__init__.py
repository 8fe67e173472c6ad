"""Simplification: folding, then rules that remove, move and fuse nodes, to a fixed point."""
