"""The three file formats: each module reads a file into named tensors and writes them to a stream."""
