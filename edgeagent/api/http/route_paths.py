"""The paths and methods of the API, for layers that run before the routing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from edgeagent.api.http.errors import no_such_method, nothing_here
from edgeagent.api.http.path_scopes import parts

# Prefixes of our ids. A path with an impossible id does not exist: POST /v1/responses/compact is an
# endpoint of OpenAI that is missing here, not a response of that name.
_PREFIXES = {
    "response_id": "resp_",
    "conversation_id": "conv_",
    "completion_id": "chatcmpl-",
    "key_id": "key_",
    "file_id": "file-",
    "batch_id": "batch_",
    "job_id": "job_",
}


class _Shape:
    """A path with its parameters: `{id:str}` matches one part, `{id:path}` the rest."""

    def __init__(self, path: str) -> None:
        self._parts = parts(path)

    def fits(self, path: list[str]) -> bool:
        if self._parts and self._parts[-1].endswith(":path}"):
            fixed = self._parts[:-1]
            return len(path) > len(fixed) and _all_fit(fixed, path)
        return len(path) == len(self._parts) and _all_fit(self._parts, path)

    def has_possible_ids(self, path: list[str]) -> bool:
        """Whether each id in `path` begins as ids of its kind do."""
        named = zip(self._parts, path, strict=False)
        return all(
            value.startswith(_PREFIXES.get(part[1:].partition(":")[0], ""))
            for part, value in named
            if part.startswith("{")
        )


def _all_fit(shape: list[str], path: list[str]) -> bool:
    return all(
        part.startswith("{") or part == value for part, value in zip(shape, path, strict=False)
    )


class Paths:
    """The methods of each path. GET includes HEAD."""

    def __init__(self, methods: Mapping[str, Iterable[str]]) -> None:
        self._shapes = [(_Shape(path), frozenset(names)) for path, names in methods.items()]

    @classmethod
    def of(cls, routes: Iterable[object]) -> Paths:
        """The paths of an application's routes."""
        found: dict[str, set[str]] = {}
        for route in routes:
            names: Iterable[str] = getattr(route, "methods", ("GET",))
            found.setdefault(str(getattr(route, "path", "/")), set()).update(map(str, names))
        return cls(found)

    def methods(self, path: str) -> frozenset[str]:
        """The methods of a path; empty where it does not exist."""
        wanted = parts(path)
        fitting = [(shape, names) for shape, names in self._shapes if shape.fits(wanted)]
        return frozenset().union(*(names for _, names in fitting))

    def is_there(self, method: str, path: str) -> bool:
        """Whether the path exists for any method."""
        wanted = parts(path)
        return any(
            method in names or shape.has_possible_ids(wanted)
            for shape, names in self._shapes
            if shape.fits(wanted)
        )

    def check(self, method: str, path: str) -> None:
        """Raises: NotFound, MethodNotAllowed."""
        if not self.is_there(method, path):
            raise nothing_here()
        if method not in self.methods(path):
            raise no_such_method()
