"""Makes models that harkd runs, from published ones: reads, rebuilds and converts; never downloads.

`sources` opens a model as its maker published it, `ort_file` reads onnxruntime's format, and
`moonshine` is the network in PyTorch. Importing this package loads none of them.
"""
