"""`python -m ptycho_core` is `ptycho`."""

from ptycho_core.cli import main

if __name__ == "__main__":
    main()
