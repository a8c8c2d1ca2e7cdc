"""Building and pushing images with buildah, in a storage and a mount namespace of pyswarm's own."""
