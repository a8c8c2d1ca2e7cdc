"""What should exist for one service: its slots, restarts, history and removal. Pure; the entry is `converge.plan`."""
