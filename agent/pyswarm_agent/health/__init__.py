"""Probes: is a task fit to be sent connections."""
