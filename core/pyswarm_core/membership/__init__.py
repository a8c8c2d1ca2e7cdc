"""A host as a member of a cluster: its record, its daemons' settings, its units, and the daemons themselves."""
