"""The API. Pure: `admission*` (is a request valid, and what is stored for it), `refs`, `images`. Thin: the servicer."""
