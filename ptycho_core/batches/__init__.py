"""Groups of neighbouring frames, and the batches that engines are given."""
