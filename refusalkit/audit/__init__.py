"""The audit: one command from a model to a report."""
