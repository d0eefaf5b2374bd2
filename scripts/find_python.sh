#!/bin/sh
# Print the path of a Python >= 3.11, or say what to do. $PYTHON, when set, is the only candidate.
for candidate in ${PYTHON:-python3 python python3.14 python3.13 python3.12 python3.11}; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
        "$candidate" -c 'import sys; print(sys.executable)'
        exit 0
    fi
done
if [ -n "${PYTHON:-}" ]; then
    echo "PYTHON=$PYTHON is not a Python >= 3.11 that runs. Set PYTHON to one that does." >&2
else
    echo "No Python >= 3.11 found on PATH. Install one, or point to it: make PYTHON=<path to python> ..." >&2
fi
exit 1
