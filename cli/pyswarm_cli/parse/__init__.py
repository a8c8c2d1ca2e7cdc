"""Texts that users write, on the command line or in a Compose file, → values. Pure; errors are `InvalidInput`."""
