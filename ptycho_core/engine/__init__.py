"""The only door between the core and an engine (specs/engine.md)."""
