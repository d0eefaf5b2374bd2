"""What `make demo` costs: wall time, processor time and peak memory of the audit of the organism in a fresh process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

QUICK = ("--n-train", "24", "--n-val", "8", "--n-test", "12", "--max-new-tokens", "12")


def measure(quick: bool) -> dict[str, Any]:
    """Seconds and megabytes; target 120 s on two cores."""
    with tempfile.TemporaryDirectory() as folder:
        code = "from refusalkit.cli import main; main()"
        command = [sys.executable, "-c", code, "audit", "organism:chat", "--quiet", "--out", str(Path(folder) / "demo")]
        start = time.perf_counter()
        process = subprocess.Popen([*command, *(QUICK if quick else ())], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"the audit ended with exit status {process.returncode}")
    return {
        "wall_seconds": time.perf_counter() - start,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_rss_mb": usage.ru_maxrss / 1024,  # Linux counts in KiB
        "target": {"wall_seconds": 120},
    }
