"""Trained models: archive, checkpoint, export (specs/archive.md)."""
