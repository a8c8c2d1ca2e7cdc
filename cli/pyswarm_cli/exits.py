"""Exit codes of every command, and the errors that carry one.

A `PyswarmError` ends a command with 1 unless it is one of these. click's own usage errors end it with 125.
"""

from __future__ import annotations

from pyswarm_core.errors import PyswarmError

CONVERGED = 0
ERROR = 1
ROLLED_BACK = 2
PAUSED = 3
DEADLINE_PASSED = 4
USAGE = 125  # found wrong before the cluster was asked
INTERRUPTED = 130


class Ended(PyswarmError):
    """The command ends with this code. `sentence` "" = everything worth saying has been printed already."""

    def __init__(self, code: int, sentence: str = "") -> None:
        super().__init__(sentence)
        self.code = code


class Interrupted(Ended):
    """Ctrl-C during a wait. The sentence says that the work goes on and how to watch it."""

    def __init__(self, sentence: str) -> None:
        super().__init__(INTERRUPTED, sentence)


class ClusterUnreachable(PyswarmError):
    """No manager answered, or none leads, within the time that the command line waits."""

    retryable = True
