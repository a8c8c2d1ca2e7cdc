"""Makes `tests.support` importable from every test: pytest puts the folder above this package on the path."""

from __future__ import annotations

import signal

from hypothesis import HealthCheck, settings

# How fast an example is made and tried tells of the machine, not of the code.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# A shell's background job ignores it, and so would every process that a test starts, to interrupt it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
