"""Engines: who runs a capture. Locally it is this process; see `ray` for many."""
