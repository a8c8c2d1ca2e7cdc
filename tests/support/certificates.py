"""Certificates as tests want them."""

from __future__ import annotations

EXPIRED = -0.01  # days; one is good until the end of the second that it names
