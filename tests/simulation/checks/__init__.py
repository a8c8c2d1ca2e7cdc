"""What must never happen, each a small check with a name.

`stored` looks at every write, `sweep` once a simulated second, `traffic` at every connection, `settled` at the end;
`tests.simulation.watcher` looks at what is done on hosts."""
