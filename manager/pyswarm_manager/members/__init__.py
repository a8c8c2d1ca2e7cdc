"""etcd's members as the managers look after them: where they are, who gets a vote, who goes."""
