"""Names under which packages look for parts of the other onnxslim (PyPI)."""
