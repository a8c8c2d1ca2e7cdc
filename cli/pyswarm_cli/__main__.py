"""python -m pyswarm_cli: the same as `pyswarm`."""

from __future__ import annotations

from pyswarm_cli.main import main

main()
