"""What a model's name can be: the organism, a folder, or an id of the Hub.

Needs no torch, so that a wrong name is said at once.
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from interp.errors import ModelError
from interp.text.checks import shorten

_HUB_ID_LIMIT = 96


def organism_variant(name: str) -> str | None:
    """The variant that `organism` or `organism:VARIANT` names; `None` for another model.

    Raises:
        ModelError: For an unknown variant.
    """
    if name != "organism" and not name.startswith("organism:"):
        return None
    from interp.organism import VARIANTS

    variant = name.partition(":")[2] or "chat"
    if variant not in VARIANTS:
        raise ModelError(f"there is no organism variant {variant!r}; known: {', '.join(VARIANTS)}")
    return variant


def model_folder(name: str) -> Path | None:
    """The folder a name stands for; `None` where it can only be an id of the Hub.

    Raises:
        ModelError: For a path with no model behind it.
    """
    try:
        folder = Path(name).expanduser()
        here = folder.exists()
    except (OSError, RuntimeError, ValueError) as error:  # too long, or the home of somebody unknown
        raise ModelError(f"there is no model folder at {shorten(name, 200)}: {error.args[-1]}") from error
    if here and not folder.is_dir():
        raise ModelError(f"there is no model folder at {name}: that is a file; give the folder it is in")
    if here and not (folder / "config.json").is_file():
        raise ModelError(
            f"the folder {folder} is no model: it has no config.json; give a folder written by save_pretrained"
        )
    if not here and get_close_matches(name.partition(":")[0], ["organism"], cutoff=0.8):
        raise ModelError(f"there is no model {name!r}: did you mean organism?")
    looks_like_a_path = name.startswith((".", "/", "~")) or name.endswith("/") or name.count("/") > 1
    if not here and (looks_like_a_path or len(name) > _HUB_ID_LIMIT):
        raise ModelError(f"there is no model folder at {shorten(name, 200)}: check the path")
    return folder if here else None
