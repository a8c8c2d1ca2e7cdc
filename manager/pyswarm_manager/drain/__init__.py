"""The ordered way of a task into the balancers and out of them. Pure; the entry is `stages.plan`."""
