"""The IR run by torch, so that gradients flow through a whole model. Imported late: needs torch."""
