"""Which endpoint revision each node has confirmed, to this leader, in its present session."""

from __future__ import annotations

from collections.abc import Callable


class NodeAcks:
    """A `plan.Acks`. `advanced` is called whenever a node has confirmed more than before."""

    def __init__(self, advanced: Callable[[], None]) -> None:
        self._applied: dict[str, int] = {}
        self._advanced = advanced

    def applied(self, node_id: str) -> int:
        return self._applied.get(node_id, 0)

    def confirm(self, node_id: str, revision: int) -> None:
        if revision > self.applied(node_id):
            self._applied[node_id] = revision
            self._advanced()

    def reset(self, node_id: str) -> None:
        """A new session: the host may have been restarted and its kernel be empty. It confirms anew."""
        self._applied.pop(node_id, None)
