"""Complete pipelines with small data."""
