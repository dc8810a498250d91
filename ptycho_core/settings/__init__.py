"""Configuration: typed fields, one module for each class, and where their values come from (specs/configuration.md)."""
