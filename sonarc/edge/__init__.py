"""The model on small machines: ONNX graphs of its three networks, and a player of them that needs no torch."""
