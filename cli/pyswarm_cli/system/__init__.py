"""Checks of the machine that a manager or agent is to run on."""
