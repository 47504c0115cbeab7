"""The version of gdo."""

__version__ = "0.1.0"
