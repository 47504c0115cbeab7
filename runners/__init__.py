"""Runners: a plan and what it asks in, whole sinks out."""
