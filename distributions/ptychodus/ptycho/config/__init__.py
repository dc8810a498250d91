"""Configuration, free of frameworks: the one subpackage that Ptychodus imports in its own process."""
