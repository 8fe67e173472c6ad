"""Distillation: the model as loaded teaches what the passes made of it."""
