"""`python -m gdo` is `gdo`."""

import sys

from gdo.cli import main

if __name__ == "__main__":
    sys.exit(main())
