"""A conversation held twice: with the model as it is, and with the model steered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from interp.edits import decide, for_prompts
from interp.errors import FormatError, RefusalkitError
from interp.model.generate import completion_of
from interp.model.model import Model
from interp.provenance import write_json
from interp.text.prompts import Prompt
from refusalkit.steer.acting import Acting
from refusalkit.steer.numbers import number

SIDES = ("plain", "steered")
SCHEMA = "refusalkit/steered-chat/1"
Written = Callable[[int, str], None]


@dataclass(frozen=True)
class Said:
    """What one side answered.

    Attributes:
        answer: The text after the thought.
        thinking: The thought, where the model has one.
        finished: Whether it ended by itself.
    """

    answer: str
    thinking: str | None
    finished: bool


@dataclass(frozen=True)
class Turn:
    """A message with both answers.

    Attributes:
        text: The message.
        steering: `strength 1.5` or `ablated`, and which vector.
        acted: Whether the vector acted; a guard may have kept it from doing so.
        score: The guard's score, where there is a guard.
        plain: The plain model's answer.
        steered: The steered model's.
        stopped: Whether it was interrupted; such a turn is no part of the history.
    """

    text: str
    steering: str
    acted: bool
    score: float | None
    plain: Said
    steered: Said
    stopped: bool


class Chat:
    """A history for each side, and what is done to the steered one.

    Both sides answer in one batch, greedily, so that they differ by the vector alone; at strength 0 they are the same.

    Args:
        model: The model.
        acting: The vector and how it acts.
        strength: Times the vector's own coefficient.
        max_new_tokens: Longest answer.
    """

    def __init__(self, model: Model, acting: Acting, strength: float = 1.0, max_new_tokens: int = 256) -> None:
        acting.check(model)
        self.model, self.acting, self.strength, self.max_new_tokens = model, acting, strength, max_new_tokens
        self.turns: list[Turn] = []
        self._history: tuple[list[dict[str, str]], list[dict[str, str]]] = ([], [])
        self._saved: Path | None = None

    def use(self, acting: Acting) -> None:
        """Go on with another vector.

        Raises:
            RefusalkitError: When it does not fit the model; the old one stays.
        """
        acting.check(self.model)
        self.acting = acting

    def reset(self) -> None:
        """Begin anew: both sides forget what was said, and the record of it stays for `save`."""
        self._history = ([], [])

    def say(self, text: str, show: Written | None = None) -> Turn:
        """Send a message to both sides.

        Args:
            text: The message.
            show: Called with a side, 0 plain and 1 steered, and all that it has written, whenever there is more.

        Returns:
            The turn; where the answer was interrupted (Ctrl-C), what there was until then.

        Raises:
            PromptError: For an empty message, or a conversation that does not fit the context. Nothing changes then.
        """
        message = {"role": "user", "content": Prompt(text).text}
        asked = [self.model.encode([[*history, message]])[0] for history in self._history]
        written: tuple[list[int], list[int]] = ([], [])
        acts, score, stopped = True, None, False

        def each(row: int, token: int) -> None:
            written[row].append(token)
            if show is not None:
                show(row, completion_of(self.model, asked[row], written[row]).text)

        try:
            if (condition := self.acting.condition(self.model)) is not None:
                decisions = decide(self.model, asked[1:], condition)
                acts, score = bool(decisions.acts[0]), float(decisions.scores[0, 0])
            self.model.generate(
                asked, max_new_tokens=self.max_new_tokens, each=each,
                edits=for_prompts(self.acting.edits(self.strength), [False, acts]),
            )  # fmt: skip
        except KeyboardInterrupt:
            stopped = True
        plain, steered = (
            Said(c.answer, c.thinking, c.finished)
            for c in (completion_of(self.model, e, ids) for e, ids in zip(asked, written, strict=True))
        )
        turn = Turn(
            text, f"{self.acting.name}, {self.acting.said(self.strength)}", acts, score, plain, steered, stopped
        )
        self.turns.append(turn)
        if not stopped:
            for history, said in zip(self._history, (plain, steered), strict=True):
                history += [message, {"role": "assistant", "content": said.answer}]
        return turn

    def save(self, path: Path) -> None:
        """Write all turns as JSON, those before a reset and interrupted ones included.

        Raises:
            FormatError: When the file cannot be written, or is there already and not of this chat.
        """
        if path.exists() and path != self._saved:
            raise FormatError(f"{path} is there already: give another name")
        about = {
            "schema": SCHEMA, "turns": [asdict(turn) for turn in self.turns], "acting": self.acting.told(),
            "max_new_tokens": self.max_new_tokens, "provenance": self.model.provenance(),
        }  # fmt: skip
        try:
            write_json(path, about)
        except OSError as error:
            raise FormatError(f"cannot write {path}: {error.strerror or error}") from error
        self._saved = path


def command(chat: Chat, line: str, reload: Callable[[Path], Acting]) -> Sequence[str] | None:
    """What a line that starts with a slash does; what to say about it, or `None` to leave.

    Args:
        chat: The chat.
        line: `/strength 2`.
        reload: Reads another vector's file.

    Raises:
        RefusalkitError: For a command that there is not, or that cannot be done. Nothing changes then.
    """
    name, _, rest = line.partition(" ")
    rest = rest.strip()
    match name:
        case "/quit":
            return None
        case "/reset":
            chat.reset()
            return ["Both sides begin anew."]
        case "/strength":
            if chat.acting.ablated is not None:
                raise RefusalkitError("an ablation has no strength")
            if rest:
                chat.strength = number(rest)
            return [f"strength {chat.strength:g}"]
        case "/vector":
            if rest:
                chat.use(reload(Path(rest).expanduser()))
            return [f"{chat.acting.name}: {chat.acting.vector!r}"]
        case "/save":
            if not rest:
                raise RefusalkitError("say where to: /save FILE.json")
            chat.save(Path(rest).expanduser())
            return [f"{len(chat.turns)} turns written: {rest}"]
        case "/help":
            return HELP
        case _:
            raise RefusalkitError(f"there is no {name[:40]}; {HELP[0]}")


HELP = (
    "commands: /strength S, /vector [FILE], /reset, /save FILE, /quit",
    "Ctrl-C stops an answer, which is then no part of the conversation; Ctrl-D leaves.",
)
