"""Activations: labelled arrays, capture in memory, streaming statistics."""
