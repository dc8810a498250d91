"""The forward model's constants, scale, patches and canvas, the same for every engine (specs/physics.md)."""
