"""The passes, one folder per family."""
