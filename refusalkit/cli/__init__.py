"""The command line."""

from __future__ import annotations

import os
import sys

_INTERRUPTED = 130


def main() -> None:
    """Entry point of the `refusalkit` command: errors that a user can act on end without a traceback."""
    # Threads that wait by spinning make a small model 30 times slower as soon as another program wants a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from interp.errors import RefusalkitError

    debug = "--debug" in sys.argv[1:]
    arguments = [a for a in sys.argv[1:] if a != "--debug"]

    try:
        from refusalkit.cli.app import only

        only(arguments[:1])(arguments, prog_name="refusalkit")
    except (RefusalkitError, OSError) as error:
        if debug:
            raise
        sys.stderr.write(f"refusalkit: {_message(error)}\n")
        raise SystemExit(1) from None
    except KeyboardInterrupt:  # where typer does not catch it: while it is imported, or as it ends
        raise _interrupted() from None
    except SystemExit as stop:
        raise (_interrupted() if stop.code == _INTERRUPTED else stop) from None  # what typer makes of Ctrl-C


_RESUMED = {"audit", "capture", "cliff", "organism", "plan", "repair", "steer", "vector calibrate", "vector train"}


def _interrupted() -> SystemExit:
    asked = {" ".join(sys.argv[1:2]), " ".join(sys.argv[1:3])}
    if not any(a.startswith("--prompts") for a in sys.argv):
        asked -= {"steer"}  # a chat, of which nothing is kept
    kept = "; what is finished is kept, the same command goes on from there" if _RESUMED & asked else ""
    sys.stderr.write(f"\nrefusalkit: interrupted{kept}\n")
    return SystemExit(_INTERRUPTED)


_WORDS = {
    "append=True": "--append", "attn_implementation='eager'": "--attn-implementation eager",
    "dtype='float32'": "--dtype float32", "allow_other_model=True": "--allow-other-model",
    "give your own controls=, or none with n_random=0": "take none: --n-random 0",
    "nearest=True": "--nearest", "give model=": "give --model",
    "dataclasses.replace(vector, positions=('all',), phase='both')": "--everywhere",
    "(steering.lora)": "(--lora)", "device='cpu'": "--device cpu",
    "as positive=": "with --positive", "give cv= to make": "give --cv to make",
    "give labels=, or use prompts that are labelled": (
        "give --harmful and --harmless, a file with labels, or a store captured from one"
    ),
}  # fmt: skip
"""What the library says to a programmer, for someone at the command line."""


def _message(error: Exception) -> str:
    """One paragraph; for trouble with a file that nobody foresaw: which file, and what the system says."""
    if isinstance(error, OSError):
        where = f" {error.filename}" if error.filename else ""
        return f"cannot read or write{where}: {error.strerror or error}; check the path, permissions and free space"
    text = str(error)
    for python, command in _WORDS.items():
        text = text.replace(python, command)
    return text
