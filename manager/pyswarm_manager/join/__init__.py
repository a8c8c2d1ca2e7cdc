"""How hosts become members: tokens, signing, and which role may call what."""
