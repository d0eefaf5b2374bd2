"""What all tests share: the repository root on the path (for tests.helpers), and no network."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Before anything imports huggingface_hub: a test that would reach the network fails at once, not after retries.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
