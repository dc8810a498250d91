"""A scan: frames, positions, probe, and what is done to them before any physics (specs/data.md)."""
