"""Attributes: small functions from an answer to a label, with their kind, and the decorator that makes them.

Dong et al. 2025 (arXiv 2502.06258) probe attributes of structure, content and behaviour; `probes.planning.known` has
theirs and a few more. This module and that one load no torch, so that a wrong name is said at once.
"""

from __future__ import annotations

import ast
import importlib.util
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from interp.errors import ProbeError
from interp.text.checks import shorten
from interp.text.prompts import Prompt
from interp.text.task import Task

Kind = Literal["regression", "classes"]
Label = str | float | int | bool | None
NEEDS = ("expected", "options")


@dataclass(frozen=True)
class Answer:
    """What a model wrote, as an attribute is shown it.

    Attributes:
        text: The answer, without the thought.
        prompt: What it answers; with `expected` and `options` where it is an `interp.Task`.
        thinking: The thought, `None` where the model did not think.
        n_tokens: Tokens of the answer, the thought and the token that ends it left out.
        finished: Whether it ended by itself, rather than at the longest length allowed.
    """

    text: str
    prompt: Prompt
    thinking: str | None = None
    n_tokens: int = 0
    finished: bool = True

    @property
    def expected(self) -> str:
        """The right answer, empty where it is not known."""
        return self.prompt.expected if isinstance(self.prompt, Task) else ""

    @property
    def options(self) -> tuple[str, ...]:
        """What the prompt offers to choose from, where it says so."""
        return self.prompt.options if isinstance(self.prompt, Task) else ()


@dataclass(frozen=True)
class Found:
    """A label, and where the answer gives it away.

    Attributes:
        label: A number for a regression, a word for classes; `None` where the answer has no such attribute.
        at: Character of the answer's text from which the label can be read; states are probed up to the token before.
            `None`: the first word from which on the text so far has the label that the whole has.
    """

    label: Label
    at: int | None = None


@dataclass(frozen=True)
class Attribute:
    """A property of an answer that a model may plan.

    Attributes:
        name: For tables and files.
        kind: `"regression"` (a number) or `"classes"` (one of a few words).
        read: The function: an `Answer` to a label, or to a `Found`.
        about: What it measures, in a few words.
        whole: Whether it can be read off a finished answer only; the others are then set apart.
        needs: What it needs of prompts: `"expected"`, `"options"` or nothing.
        question: What to ask a model that is to foretell the attribute of its own answer; `{classes}` stands for the
            classes there are. `None`: it is not asked.
    """

    name: str
    kind: Kind
    read: Callable[[Answer], Label | Found]
    about: str = ""
    whole: bool = True
    needs: Literal["expected", "options"] | None = None
    question: str | None = None

    def __call__(self, answer: Answer) -> Label:
        """The label of an answer."""
        return self.find(answer).label

    def find(self, answer: Answer) -> Found:
        """The label, of the attribute's kind, and where it is given away, as far as the function says so.

        Raises:
            ProbeError: When the function fails, or gives NaN or what is not of its kind.
        """
        try:
            given = self.read(answer)
        except Exception as error:  # a user's own function raises whatever it likes
            raise ProbeError(f"{self._of(answer)} cannot be read: {type(error).__name__}: {error}") from error
        found = given if isinstance(given, Found) else Found(given)
        return Found(self._checked(found.label, answer), found.at)

    def _checked(self, label: Any, answer: Answer) -> Label:
        label = label.item() if hasattr(label, "item") else label
        if label is None:
            return None
        if self.kind == "classes":
            if isinstance(label, float) or not isinstance(label, str | int | bool):
                raise ProbeError(f"{self._of(answer)} is {label!r}: classes are words, whole numbers or booleans")
            return str(label)
        if isinstance(label, str) or not isinstance(label, int | float):
            raise ProbeError(f"{self._of(answer)} is {label!r}: a regression needs a number, or None for no label")
        if not math.isfinite(label):
            raise ProbeError(f"{self._of(answer)} is {label}: return None where an answer has no such attribute")
        return float(label)

    def _of(self, answer: Answer) -> str:
        return f"the attribute {self.name!r} of the answer {answer.text[:50]!r}"


REGISTRY: dict[str, Attribute] = {}
"""Every attribute that has a name: those that come with the project, and those that a user has added."""


def attribute(
    kind: Kind,
    *,
    name: str | None = None,
    whole: bool = True,
    needs: Literal["expected", "options"] | None = None,
    question: str | None = None,
) -> Callable[[Callable[[Answer], Label | Found]], Attribute]:
    """Make a function of an answer an attribute, known by its name.

    Example:
        >>> import probes
        >>> @probes.attribute("regression")
        ... def exclamations(answer):
        ...     return answer.text.count("!")
        >>> exclamations.kind
        'regression'

    Args:
        kind: `"regression"` or `"classes"`.
        name: What to call it; the function's own name by default.
        whole: Whether it can be read off a finished answer only.
        needs: What it needs of prompts: `"expected"` or `"options"` (see `interp.Task`).
        question: What to ask a model that is to foretell it; `{classes}` stands for the classes.

    Raises:
        ProbeError: For an unknown kind or need, or a name that comes with the project.
    """
    if kind not in ("regression", "classes"):
        raise ProbeError(f"there is no kind of attribute {kind!r}: give 'regression' or 'classes'")
    if needs is not None and needs not in NEEDS:
        raise ProbeError(f"needs={needs!r}: an attribute needs {' or '.join(map(repr, NEEDS))} of prompts, or nothing")

    def made(read: Callable[[Answer], Label | Found]) -> Attribute:
        own = name or read.__name__
        if read.__module__ != _KNOWN and own in _shipped():
            raise ProbeError(f"an attribute {own!r} comes with the project: give yours another name")
        about = (read.__doc__ or "").strip().partition("\n")[0].rstrip(".")
        REGISTRY[own] = Attribute(own, kind, read, about, whole, needs, question)
        return REGISTRY[own]

    return made


def as_attribute(given: Attribute | str) -> Attribute:
    """An attribute by name, or `FILE.py:function`, or as it is.

    Raises:
        ProbeError: When there is no such attribute, file or function, the file fails, or it is a plain function.
    """
    if isinstance(given, Attribute):
        return given
    if not isinstance(given, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        if callable(given):
            raise ProbeError(_no_attribute(getattr(given, "__name__", shorten(repr(given)))))
        raise ProbeError(f"{shorten(repr(given))} is no attribute: give one, its name, or FILE.py:function")
    if ".py:" in given or given.endswith(".py"):
        return _from_file(given)
    known = {**_shipped(), **REGISTRY}
    if given not in known:
        raise ProbeError(f"there is no attribute {given!r}: give {', '.join(known)}, or FILE.py:function")
    return known[given]


def check_name(given: str) -> None:
    """As `as_attribute`, but runs no file: says only whether its function is there.

    Raises:
        ProbeError: As there.
    """
    if ".py:" not in given and not given.endswith(".py"):
        as_attribute(given)
        return
    path, function = _file_and_function(given)
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError) as error:
        raise ProbeError(f"{path} is no Python file: {error}") from error
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    targets = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
    bound = [target.id for target in targets if isinstance(target, ast.Name)]
    if function not in (*names, *bound):
        raise ProbeError(f"{path} has no function {function!r}; it has {', '.join(names) or 'none'}")


def _file_and_function(given: str) -> tuple[Path, str]:
    name, _, function = given.rpartition(":") if ".py:" in given else (given, "", "")
    if not function:
        raise ProbeError(f"{given!r} names no function: give FILE.py:function")
    path = Path(name).expanduser()
    if not path.is_file():
        raise ProbeError(f"{path}: there is no such file: check the name and the folder ({Path.cwd()})")
    return path, function


def _from_file(given: str) -> Attribute:
    check_name(given)
    path, function = _file_and_function(given)
    spec = importlib.util.spec_from_file_location(f"refusalkit_attribute_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the user's own code
        raise ProbeError(f"{path} fails: {type(error).__name__}: {error}") from error
    found = getattr(module, function)
    if not isinstance(found, Attribute):
        raise ProbeError(_no_attribute(f"{function} of {path}"))
    return found


def _no_attribute(what: str) -> str:
    return (
        f"{what} is no attribute: put @probes.attribute('regression') (it gives numbers) or "
        "@probes.attribute('classes') (it gives words) before it"
    )


_KNOWN = "probes.planning.known"


def _shipped() -> Mapping[str, Attribute]:
    from probes.planning import known

    return known.SHIPPED
