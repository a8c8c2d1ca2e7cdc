"""When a daemon's certificates expire. Read anew when their file has changed: they are renewed while it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pyswarm_core.errors import PyswarmError
from pyswarm_core.log import get_logger
from pyswarm_core.scrape.text import Family, labels
from pyswarm_core.tls import validity_of

log = get_logger("scrape.certificates")


@dataclass(frozen=True, slots=True)
class Validity:
    """Unix seconds."""

    start: float
    end: float


class Certificates:
    """`files`: what each is called → PEM. The first certificate in a file counts."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = files
        self._known: dict[str, tuple[tuple[int, int, int], Validity]] = {}

    def families(self) -> Iterator[Family]:
        start = Family(
            "pyswarm_certificate_start_timestamp_seconds", "From when a certificate of this daemon is valid, unix time."
        )
        end = Family("pyswarm_certificate_expiry_timestamp_seconds", "Until when it is valid, unix time.")
        for name, path in self._files.items():
            validity = self._validity(name, path)
            if validity is not None:
                inside = labels({"certificate": name})
                start.add(validity.start, inside)
                end.add(validity.end, inside)
        yield from (start, end)

    def _validity(self, name: str, path: Path) -> Validity | None:
        try:
            stat = path.stat()
            mark = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            known = self._known.get(name)
            if known is not None and known[0] == mark:
                return known[1]
            validity = Validity(*validity_of(path.read_bytes()))
        except (OSError, ValueError, PyswarmError) as error:
            log.warning("a certificate cannot be read", path=path, error=error)
            return None
        self._known[name] = (mark, validity)
        return validity
