"""The check: does the result still do the original's job."""
