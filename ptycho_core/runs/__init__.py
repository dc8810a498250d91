"""A whole command with its files, each into a folder; the command line and the legacy workflows are made of these."""
