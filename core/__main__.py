"""`python -m gdo` is `gdo`."""

from gdo.cli import script

if __name__ == "__main__":
    script()
