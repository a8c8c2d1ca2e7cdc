"""How results are shown: tables, JSON, times, filters. Pure but for `options`, which declares the flags."""
