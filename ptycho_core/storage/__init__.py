"""Bytes in files: atomic writing, HDF5, NPZ, mapped and unpacked frames. Knows no scan."""
