"""Adapters to applications. A module here imports its application, and nothing else of the package imports it."""
