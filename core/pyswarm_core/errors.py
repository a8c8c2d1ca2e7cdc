"""Every error that crosses a module's border. Adapters translate into these once; the command line and the API turn
them into exit codes and gRPC status codes once. The text of each is a sentence for the user."""

from __future__ import annotations


class PyswarmError(Exception):
    """`retryable`: the same call may succeed later without anything being changed by the caller."""

    retryable = False


class StoreUnavailable(PyswarmError):
    """etcd cannot be reached or has no quorum; nothing was written."""

    retryable = True


class OutcomeUnknown(PyswarmError):
    """A write whose answer was lost: it may have happened. Read again before anything else; never just retry."""


class Compacted(PyswarmError):
    """The revision asked for is gone: list again. `compact_revision` is the oldest that can be had."""

    def __init__(self, compact_revision: int) -> None:
        super().__init__(f"revision compacted; the oldest available is {compact_revision}")
        self.compact_revision = compact_revision


class Conflict(PyswarmError):
    """A compared version had changed; nothing was written."""

    retryable = True


class Deposed(PyswarmError):
    """This manager does not lead (any more); nothing was written."""


class InvalidInput(PyswarmError):
    """What the user asked for is malformed or out of range."""


class NotFound(PyswarmError):
    pass


class AlreadyExists(PyswarmError):
    """A name, port or address is taken."""


class PreconditionFailed(PyswarmError):
    """It exists but cannot be done now: in use, ambiguous, no previous spec, node not down."""
