"""Peak memory, every arm in a process of its own: what it adds over a process that has only loaded the model."""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import torch

SUBJECT, LAST = "llama 512 x 8", (-5, -4, -3, -2, -1)
ARMS = (
    "loaded", "backbone", "interp.capture", "interp.class_means", "interp.class_means, 4N",
    "HF output_hidden_states", "TransformerLens", "nnsight",
)  # fmt: skip


def measure(quick: bool) -> dict[str, Any]:
    """Megabytes over the loaded model."""
    n = 16 if quick else 64
    found: dict[str, float | None] = {}
    for arm in ARMS:
        command = [sys.executable, "-m", "benchmarks.memory", arm, "--n", str(n)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found[arm] = json.loads(done.stdout.splitlines()[-1])["mb"] if done.returncode == 0 else None
    loaded = found.pop("loaded") or 0.0
    added = {arm: None if mb is None else round(mb - loaded, 1) for arm, mb in found.items()}
    floor = added["backbone"] or 0.0
    return {"prompts": n, "mb over the loaded model": added, "target": {"interp.capture, mb": floor + 15}}


def main() -> None:
    """One arm; prints its peak resident set."""
    parser = argparse.ArgumentParser()
    parser.add_argument("arm", choices=ARMS)
    parser.add_argument("--n", type=int, required=True)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    run = _arm(chosen.arm, chosen.n)
    if run is not None:
        run()
    print(json.dumps({"mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))  # noqa: T201  (what the parent process reads)


def _arm(name: str, n: int) -> Callable[[], Any] | None:
    import interp
    from benchmarks import capture
    from benchmarks.subject import build, prompts

    model = build(SUBJECT, torch.bfloat16)
    encoded = prompts(4 * n if name.endswith("4N") else n, 20, 200)
    labels = [i % 2 for i in range(len(encoded))]
    if name == "loaded":
        return None
    if name == "backbone":
        return capture.backbone(model, encoded)
    if name == "interp.capture":
        return lambda: interp.capture(model, encoded, "resid_post", LAST)
    if name.startswith("interp.class_means"):
        return lambda: interp.class_means(model, encoded, labels, "resid_post", LAST)
    peers = {"TransformerLens": capture.transformer_lens, "nnsight": capture.nnsight}
    if name in peers:
        return peers[name](model, encoded)[name]
    return capture.huggingface(model, encoded)[name]


if __name__ == "__main__":
    main()
