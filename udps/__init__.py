"""The shipped UDPs: one YAML file each, found by name."""
