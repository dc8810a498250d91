"""See `base_api`."""
