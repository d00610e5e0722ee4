"""Reads YAML within limits, with the line of every key and value. Anchors, aliases and tags are refused: a
few of them can describe a document of gigabytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeagent.errors import ForgeFailed
from edgeagent.forge.domain.readers.text_lines import read_text

MAX_DEPTH = 40


@dataclass(frozen=True)
class Node:
    """A value of a document: `text` of a scalar, else `items` or `keys`. `line` counts from 1."""

    path: Path
    line: int
    text: str | None = None
    items: tuple[Node, ...] | None = None
    keys: dict[str, Node] | None = None
    is_block: bool = False

    def get(self, name: str) -> Node | None:
        return self.keys.get(name) if self.keys is not None else None

    def texts(self) -> list[Node]:
        """The scalars of a list, or the scalar itself."""
        return [n for n in (self.items or (self,)) if n.text is not None]

    def error(self, said: str) -> ForgeFailed:
        return ForgeFailed(f"{self.path}:{self.line}: {said}")


def read_yaml(path: Path) -> Node:
    """Raises: ForgeFailed for what is not YAML, with the line."""
    try:
        import yaml
    except ImportError as exc:
        raise ForgeFailed("YAML needs PyYAML: run pip install 'edgeagent[intents]'.") from exc
    text = read_text(path)
    depth = 0
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        for event in yaml.parse(text, Loader=loader):
            line = event.start_mark.line + 1
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise ForgeFailed(f"{path}:{line}: more than {MAX_DEPTH} levels: flatten the file.")
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise ForgeFailed(
                    f"{path}:{line}: anchors (&) and aliases (*) are not read: write the value out, or put a "
                    "text that begins so into quotes."
                )
            if getattr(event, "tag", None):
                raise ForgeFailed(f"{path}:{line}: tags (!) are not read: remove the tag.")
        root = yaml.compose(text, Loader=loader)
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        line = mark.line + 1 if mark is not None else 1
        problem = getattr(exc, "problem", None) or "it cannot be parsed"
        raise ForgeFailed(f"{path}:{line}: not YAML ({problem}): correct the line.") from exc
    if root is None:
        raise ForgeFailed(f"{path} is empty: write examples into it, or remove it.")
    return _node(root, path)


def _node(node: object, path: Path) -> Node:
    import yaml

    assert isinstance(node, yaml.Node)
    line = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        keys: dict[str, Node] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise ForgeFailed(f"{path}:{line}: a key is not a text: correct it.")
            keys[key.value] = _node(value, path)
        return Node(path, line, keys=keys)
    if isinstance(node, yaml.SequenceNode):
        return Node(path, line, items=tuple(_node(value, path) for value in node.value))
    return Node(path, line, text=str(node.value), is_block=node.style in ("|", ">"))
