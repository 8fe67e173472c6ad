"""Running models in ONNX Runtime: sessions, samples, metrics, latency."""
