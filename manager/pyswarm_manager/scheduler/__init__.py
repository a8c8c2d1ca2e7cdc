"""Which node each task runs on. Pure: `assign.plan(world, now)`."""
