"""Networks as tables of layers that every engine runs (specs/model.md)."""
