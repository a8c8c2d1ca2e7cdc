"""Compose files → ServiceSpecs. Every key takes effect or is refused by name and line; none is ignored. Pure, but for
`project`, which reads the files."""
