"""Which operators become int8: times measured here, noise predicted, one choice for the model."""
