"""Speech recognition on the device: one file per model family behind one protocol.

`protocol` says what a recognizer is, `factory` makes the one that a model package asks for, `onnx`
holds what all families share of onnxruntime. Importing this package loads none of them.
"""
