"""One task each: a pure machine that decides, and a thin shell that carries out."""
