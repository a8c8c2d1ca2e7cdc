"""This host's place in the cluster: who manages it, and what the host itself is to be."""
