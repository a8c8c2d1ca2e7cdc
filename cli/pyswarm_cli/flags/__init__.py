"""The flags of `service deploy`, `create` and `update`: one table, and what each flag does to a ServiceSpec. Pure, but
for `options`, which declares them to click, and `files`, which reads --env-file."""
