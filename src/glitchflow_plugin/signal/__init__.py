"""Signal processing: pure functions of arrays and tensors, no files."""
