"""Keep the notebooks honest: `run` executes them, `check` and `strip` keep results out of the repository.

Committed notebooks carry no outputs and no execution counts: what a notebook shows is made by running it, and a diff
shows code. Executed copies land in scratch/notebooks, where they can be opened.
"""

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
SCRATCH = ROOT / "scratch" / "notebooks"
CELL_TIMEOUT_S = 600
AT_ONCE = 2


def strip(notebook: nbformat.NotebookNode) -> bool:
    """Remove results from a notebook in place; return whether there were any."""
    changed = False
    for cell in notebook.cells:
        if cell.cell_type == "code" and (cell.outputs or cell.execution_count is not None):
            cell.outputs, cell.execution_count = [], None
            changed = True
        if cell.metadata.pop("execution", None) is not None:
            changed = True
    return changed


def execute(path: Path) -> tuple[str | None, float]:
    """Execute one notebook in the scratch folder; return the error it ends with, if any, and the seconds it took."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    started = time.monotonic()
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT_S,
        kernel_name="python3",
        resources={"metadata": {"path": str(SCRATCH)}},
    )
    error = None
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as failure:
        error = str(failure)
    nbformat.write(notebook, SCRATCH / path.name)
    return error, time.monotonic() - started


def run(paths: list[Path]) -> int:
    """Execute the notebooks, two at a time with one thread each; return how many failed."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # every notebook works on the shipped model
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # this environment's kernel, not the user's
    SCRATCH.mkdir(parents=True, exist_ok=True)
    failed = 0
    with ProcessPoolExecutor(AT_ONCE) as pool:
        for path, (error, seconds) in zip(paths, pool.map(execute, paths), strict=True):
            failed += error is not None
            print(f"{'FAILED' if error else 'ok':6} {path.name}  {seconds:.0f} s", flush=True)
            if error:
                print(error, file=sys.stderr)
    return failed


def main() -> int:
    """Run the command given on the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["run", "check", "strip"])
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: every notebook in notebooks/")
    arguments = parser.parse_args()
    paths: list[Path] = arguments.notebooks or sorted(NOTEBOOKS.glob("*.ipynb"))
    if arguments.command == "run":
        if not paths:
            print("no notebooks to run")
        return 1 if run(paths) else 0

    dirty = []
    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        if strip(notebook):
            dirty.append(path)
            if arguments.command == "strip":
                nbformat.write(notebook, path)
    if dirty and arguments.command == "check":
        print(f"notebooks with results inside: {', '.join(p.name for p in dirty)}; run `make format`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
