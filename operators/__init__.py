"""Operators: one file each; its name is the word in YAML."""
