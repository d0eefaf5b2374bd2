"""The command line."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of the `refusalkit` command: errors that a user can act on end without a traceback."""
    from interp.errors import RefusalkitError

    debug = "--debug" in sys.argv[1:]
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    from refusalkit.cli.app import app

    try:
        app(arguments, prog_name="refusalkit")
    except RefusalkitError as error:
        if debug:
            raise
        sys.stderr.write(f"refusalkit: {error}\n")
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        if debug:
            raise
        sys.stderr.write("\nrefusalkit: interrupted; what was computed is kept, the same command goes on from there\n")
        raise SystemExit(130) from None
