"""Rules that make one operator of several."""
