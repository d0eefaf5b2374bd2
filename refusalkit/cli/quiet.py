"""Silence where nobody watches."""

from __future__ import annotations

import sys


def hush(quiet: bool) -> None:
    """Without a terminal, or when asked to be quiet, transformers' own progress bars are noise around a message."""
    if quiet or not sys.stderr.isatty():
        from transformers.utils import logging

        logging.disable_progress_bar()
