"""Containers: an OCI runtime (crun, runc) under conmon, which outlives the agent."""
