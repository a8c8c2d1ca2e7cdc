"""How a rollout is followed: what is shown (pure), how it gets on the screen, and what the end means."""
