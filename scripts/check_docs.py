"""Fail when a public name has no docstring or no entry in the built site.

Public names are what the packages list in `__all__` (and the modules in there, in turn), and the public methods and
properties that their classes define.
Broken links are found by `mkdocs build --strict`; this finds what is absent.
"""

import importlib
import inspect
import sys
import types
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("interp", "probes", "steering", "refusalkit")
OURS = tuple(f"{package}." for package in PACKAGES)


def has_docstring(value: object) -> bool:
    """Tell whether an object has a docstring that a person wrote."""
    text = inspect.getdoc(value) or ""
    generated = isinstance(value, type) and text.startswith(f"{value.__name__}(")  # a dataclass makes itself one
    return bool(text) and not generated


def undocumented_members(name: str, cls: type) -> Iterator[str]:
    """Yield the public methods and properties that a class defines without a docstring."""
    for member, value in vars(cls).items():
        if member.startswith("_"):
            continue
        function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        described = inspect.isfunction(function) or isinstance(function, property)
        # An override may inherit the docstring of what it overrides.
        if described and not inspect.getdoc(getattr(cls, member, function)):
            yield f"{name}.{member}"


def module_problems(name: str, html: str) -> Iterator[str]:
    """Yield one line for every name in a module's `__all__` that lacks a docstring or an entry in the page."""
    module = importlib.import_module(name)
    if not has_docstring(module):
        yield f"{name}: no docstring"
    if not hasattr(module, "__all__"):
        yield f"{name}: no __all__ that lists its public names"
    for short in getattr(module, "__all__", ()):
        public = f"{name}.{short}"
        try:
            value = getattr(module, short)
        except (AttributeError, ImportError) as error:
            yield f"{public}: in __all__, but cannot be imported: {error}"
            continue
        home = value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", name)
        if home.split(".")[0] != name.split(".")[0]:  # handed on from another package, which documents it
            continue
        if f'id="{public}"' not in html:
            yield f"{public}: no entry in the reference"
        if isinstance(value, types.ModuleType):
            yield from module_problems(public, html)
        elif isinstance(value, type | types.FunctionType):  # a constant needs no more than its entry
            if not has_docstring(value):
                yield f"{public}: no docstring"
            if isinstance(value, type) and value.__module__.startswith(OURS):
                yield from (f"{member}: no docstring" for member in undocumented_members(public, value))


def problems(site: Path) -> Iterator[str]:
    """Yield what is absent from the reference pages of all packages."""
    for package in PACKAGES:
        page = site / "reference" / package / "index.html"
        yield from module_problems(package, page.read_text(encoding="utf-8"))


def main() -> int:
    """Check the site in the folder given on the command line; return the exit status."""
    found = sorted(set(problems(Path(sys.argv[1]))))
    for line in found:
        print(line, file=sys.stderr)
    if found:
        print(f"{len(found)} gaps in the documentation of public names", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
