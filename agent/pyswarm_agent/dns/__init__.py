"""Names for tasks: what a name means depends on who asks."""
