"""ONNX networks and pipelines, computed by onnxruntime; nothing else in batchscore imports it."""
