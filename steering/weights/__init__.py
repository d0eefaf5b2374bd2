"""Edits in weights: baked into a model of their own, or as an adapter."""
