"""Tests that need torch, an extra: `make test-distill` installs it and runs them."""
