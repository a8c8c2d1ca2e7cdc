"""Makes `tests.support` importable from every test: pytest puts the folder above this package on the path."""
