"""Model ids: the one place that decides what an id may look like and which folder it names.

An id comes from a URL, a JSON body, a command line or a file name, and becomes part of a path, so it is
checked here and nowhere else. `owner/model` becomes the folder `owner__model`; ids therefore must not
contain a double underscore, and no two ids share a folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from edgeagent.errors import ModelNotFound

MAX_ID_LENGTH = 96
_PART = r"[a-z0-9](?:[a-z0-9-]|[._](?![._]))*"
_ID = re.compile(rf"{_PART}(?:/{_PART})?")
RULE = (
    "lower-case letters, digits, '.', '_' and '-', at most one '/',"
    f" beginning with a letter or digit, up to {MAX_ID_LENGTH} characters"
)


def is_id(text: str) -> bool:
    """Whether `text` is a valid model id."""
    return len(text) <= MAX_ID_LENGTH and _ID.fullmatch(text) is not None


def check_id(text: str) -> str:
    """Return `text` if it is an id.

    Raises: ModelNotFound, because for a caller a malformed id is a model that does not exist.
    """
    if not is_id(text):
        raise ModelNotFound(f"{text[:120]!r} is not a model id: an id has {RULE}", param="model")
    return text


def folder_name(model_id: str) -> str:
    """The folder of a model below the models directory; never more than one path component."""
    return check_id(model_id).replace("/", "__")


def id_of_file(file_name: str) -> str | None:
    """The id of a bare model file, or None if its name gives no valid id."""
    stem = file_name.rpartition(".")[0].lower()
    text = re.sub(r"([._])[._]+", r"\1", re.sub(r"[^a-z0-9._-]+", "-", stem)).strip("._-")
    text = text[:MAX_ID_LENGTH]
    return text if is_id(text) else None


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most similar to `name`, or None if none is similar.

    An incomplete name ("smollm2-135m") is compared with the beginnings of the known names; those that
    begin with it take precedence.
    """
    name = name.lower()[:MAX_ID_LENGTH]
    known = list(known)
    known = [candidate for candidate in known if name and candidate.startswith(name)] or known

    import difflib  # takes 0.2 MB, for names that are wrong

    def likeness(candidate: str) -> float:
        whole = difflib.SequenceMatcher(None, name, candidate).ratio()
        begun = difflib.SequenceMatcher(None, name, candidate[: len(name)]).ratio()
        return whole + begun

    best = max(known, key=likeness, default=None)
    return best if best is not None and likeness(best) >= 1.0 else None
