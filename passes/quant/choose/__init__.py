"""Choices made by trial on calibration samples, and what a trial is."""
