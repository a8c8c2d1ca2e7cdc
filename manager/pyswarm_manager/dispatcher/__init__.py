"""Agent ↔ leader: sessions, assignments down, endpoints down, statuses up, confirmations up."""
