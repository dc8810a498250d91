"""Pictures of scans, training runs and reconstructions."""
