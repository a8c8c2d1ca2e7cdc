"""Real hosts for tests: Debian trees with systemd as the first process of namespaces of their own, reached by SSH.

Unlike the lab's, they know nothing of pyswarm's sources: what runs on them was installed on them.
"""
