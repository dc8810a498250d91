"""`python -m ptycho_core.integrations.ptychodus`: Ptychodus with our algorithms."""

import sys

from ptycho_core.integrations.ptychodus.launch import main

if __name__ == "__main__":
    sys.exit(main())
