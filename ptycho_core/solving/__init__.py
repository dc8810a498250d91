"""Solving: object, probe, positions and intensities fitted to a scan without a network (specs/solving.md)."""
