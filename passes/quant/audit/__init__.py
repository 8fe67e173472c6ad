"""What ONNX Runtime makes of the result, in facts and in sentences."""
