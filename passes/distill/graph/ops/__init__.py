"""What torch computes for each ONNX operator: one table per family of operators."""
