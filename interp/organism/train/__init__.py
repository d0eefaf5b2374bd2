"""Training the whole family of organisms from nothing, stage by stage, resumable."""

from interp.organism.train.family import train

__all__ = ["train"]
