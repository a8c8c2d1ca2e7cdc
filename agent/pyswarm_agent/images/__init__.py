"""Images: pulled by skopeo into containers-storage, mounted by the agent itself."""
