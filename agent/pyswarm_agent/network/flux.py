"""Which links are just being made or removed. Whoever looks at the kernel meanwhile sees half of them."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter, deque
from collections.abc import Iterator

_KEPT = 4096  # ends that are remembered: far more than happen while somebody looks


class Flux:
    """For any thread. Devices go by name."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._busy: Counter[str] = Counter()
        self._ended: deque[tuple[int, str]] = deque(maxlen=_KEPT)
        self._count = 0

    @contextlib.contextmanager
    def changing(self, name: str) -> Iterator[None]:
        with self._lock:
            self._busy[name] += 1
        try:
            yield
        finally:
            with self._lock:
                self._busy[name] -= 1
                if not self._busy[name]:
                    del self._busy[name]
                self._count += 1
                self._ended.append((self._count, name))

    def now(self) -> int:
        """For `since`, before the look."""
        with self._lock:
            return self._count

    def since(self, before: int) -> frozenset[str]:
        """Devices that were changing at some moment since then, or are."""
        with self._lock:
            return frozenset(self._busy) | frozenset(name for count, name in self._ended if count > before)
