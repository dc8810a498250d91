"""Files of reconstructed objects for other programs, one module a format (specs/data.md, Image files)."""
