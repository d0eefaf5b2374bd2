"""Silence where nobody watches."""

from __future__ import annotations

import os
import sys


def hush(quiet: bool) -> None:
    """Without a terminal, or when asked to be quiet, transformers' own progress bars are noise around a message."""
    if quiet or not sys.stderr.isatty():
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # read when transformers is imported, which takes seconds
        if "transformers" in sys.modules:
            from transformers.utils import logging

            logging.disable_progress_bar()
