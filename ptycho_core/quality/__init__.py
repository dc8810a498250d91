"""How good an image is: metrics, resolution, alignment, comparison."""
