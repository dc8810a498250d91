"""From scan and model to an object."""
