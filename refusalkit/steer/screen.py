"""The chat on a terminal, two columns where it is wide enough, or over a pipe."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from interp.errors import RefusalkitError
from refusalkit.steer.chat import HELP, SIDES, Chat, Turn, Written, command

if TYPE_CHECKING:
    from refusalkit.steer.acting import Acting

WIDE = 96
"""Characters from which two columns are easier to read than one."""


def talk(chat: Chat, reload: Callable[[Path], Acting]) -> None:
    """Read messages and commands until there are no more.

    Args:
        chat: The chat.
        reload: Reads another vector's file, for `/vector FILE`.
    """
    _readline()
    console = Console(highlight=False)
    _say(console, f"{chat.model.name}, plain and with {chat.acting.name} ({chat.acting.said(chat.strength)})", *HELP)
    while True:
        try:
            line = _ask(console)
            if line is None:
                return
            if not line.strip():
                continue
            if line.startswith("/"):
                said = command(chat, line.strip(), reload)
                if said is None:
                    return
                _say(console, *said)
                continue
            with _shown(console, chat) as show:
                turn = chat.say(line, show)
            console.print(_sides(console, chat, (_text(turn, 0), _text(turn, 1)), turn))
        except RefusalkitError as error:
            _say(console, f"{error}")
        except KeyboardInterrupt:
            _say(console, "", "/quit or Ctrl-D leaves.")


def _ask(console: Console) -> str | None:
    """A line from whoever is there; `None` at the end of input."""
    try:
        if sys.stdin.isatty():
            return input("\n> ")
        line = sys.stdin.readline()
    except EOFError:
        return None
    except UnicodeDecodeError as error:
        raise RefusalkitError("that line is not UTF-8 text") from error
    if line:
        _say(console, f"\n> {line.rstrip()}")
    return line.rstrip("\r\n") if line else None


@contextlib.contextmanager
def _shown(console: Console, chat: Chat) -> Generator[Written]:
    """Text as it is written, where there is a terminal to draw it again and again on."""
    texts = ["", ""]

    def show(side: int, text: str) -> None:
        texts[side] = text

    if not console.is_terminal:
        yield show
        return

    def drawn() -> RenderableType:
        return _sides(console, chat, (tame(texts[0]), tame(texts[1])), None)

    with Live(console=console, get_renderable=drawn, transient=True, refresh_per_second=8):
        yield show


def _sides(
    console: Console, chat: Chat, texts: tuple[Text, Text], turn: Turn | None
) -> RenderableType:  # fmt: skip
    how = chat.acting.said(chat.strength)
    if turn is not None and turn.score is not None:
        how += f"; the guard {'flags this' if turn.acted else 'lets this be'}, score {turn.score:.2f}"
    titles = (Text(SIDES[0], style="bold blue"), Text(f"{SIDES[1]} ({how})", style="bold dark_orange"))
    if turn is not None and turn.plain.answer == turn.steered.answer and not turn.stopped:
        titles[1].append(", the same text", style="not bold")
    if console.width < WIDE:
        return Group(titles[0], texts[0], titles[1], texts[1])
    table = Table.grid(padding=(0, 2), expand=True)
    for _ in SIDES:
        table.add_column(ratio=1, overflow="fold")
    table.add_row(*titles)
    table.add_row(*texts)
    return Group(Rule(style="dim"), table)


def _text(turn: Turn, side: int) -> Text:
    said = (turn.plain, turn.steered)[side]
    text = Text()
    if said.thinking:
        text.append_text(tame(said.thinking.strip() + "\n", "dim italic"))
    text.append_text(tame(said.answer or "(nothing)"))
    if not said.finished:
        text.append(" [stopped]" if turn.stopped else " [cut off at --max-new-tokens]", style="dim")
    return text


def tame(text: str, style: str = "") -> Text:
    """What a model wrote, with nothing in it that a terminal would take for an order."""
    return Text("".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text), style=style)


def _say(console: Console, *lines: str) -> None:
    for line in lines:
        console.print(Text(line, style="dim"), soft_wrap=True)


def _readline() -> None:
    """Editing and history of lines, where the system has it."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  # pyright: ignore[reportUnusedImport]
