"""Image registries: whom to tell the password, and whether it is right."""
