"""Training, and loading what was trained."""
