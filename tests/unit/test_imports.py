"""Imports are lazy: what a command does not need is not loaded, and the command line answers at once."""

import subprocess
import sys

import pytest

# Optional back ends and exporters: only the function that uses one imports it.
OPTIONAL = {"fastapi", "gguf", "nnsight", "peft", "ray", "transformer_lens", "uvicorn"}
# What takes a second or more to load; `refusalkit --help` and `import refusalkit` need none of it.
HEAVY = OPTIONAL | {"datasets", "pandas", "plotly", "sklearn", "torch", "transformers"}


def run_python(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


def loaded_by(statement: str) -> set[str]:
    """Top-level modules in `sys.modules` after the statement, in a fresh interpreter."""
    code = f"{statement}\nimport sys\nsys.stdout.write(' '.join({{name.partition('.')[0] for name in sys.modules}}))"
    return set(run_python(code).split())


@pytest.mark.parametrize("package", ["interp", "probes", "steering", "refusalkit"])
def test_importing_a_package_loads_no_optional_dependency(package: str) -> None:
    assert loaded_by(f"import {package}") & OPTIONAL == set()


@pytest.mark.parametrize("package", ["refusalkit", "refusalkit.cli"])
def test_importing_the_application_loads_nothing_heavy(package: str) -> None:
    assert loaded_by(f"import {package}") & HEAVY == set()


HELP = """
import sys
sys.argv = ["refusalkit", "--help"]
from refusalkit.cli import main
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
sys.stderr.write(" ".join({name.partition(".")[0] for name in sys.modules}))
"""


def test_help_is_printed_without_loading_anything_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", HELP], check=True, capture_output=True, text=True, timeout=120)
    assert "audit" in done.stdout
    assert set(done.stderr.split()) & HEAVY == set()


def test_help_loads_few_modules() -> None:
    """A command line answers at once while it loads little: 450 modules here, 0.35 to 0.5 s; torch alone has 1,400."""
    code = HELP.replace('" ".join({name.partition(".")[0] for name in sys.modules})', "str(len(sys.modules))")
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120)
    assert int(done.stderr) < 700
