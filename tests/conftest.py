"""For every test."""

import os

# Before numpy or a framework is imported, here or in a process that a test starts: the arrays are small, and threads
# that wait for each other on a busy machine take ten times as long as one.
for _library in ("OPENBLAS", "OMP", "MKL"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")
