"""Planted faults: what the simulator must find. Each is a switch that changes one production function in this process.

`python -m tests.simulation.faults` plants each in a process of its own, runs seeds until a check fails or the bound is
reached, and reports the share found."""
