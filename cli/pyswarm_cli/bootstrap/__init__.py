"""How a host becomes a member of a cluster: its files, its units, and the dialogue with a manager."""
