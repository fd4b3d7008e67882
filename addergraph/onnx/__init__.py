"""Networks as ONNX models: what other runtimes execute, and what came from them."""
