"""Markdown: its blocks by markdown-it-py, each as it is written."""

from __future__ import annotations

import re

from markdown_it import MarkdownIt

from edgeagent.knowledge.document import Block
from edgeagent.knowledge.formats.headings import HeadingPath
from edgeagent.knowledge.formats.plain_text import decoded

_FRONT_MATTER = re.compile(r"\A---\n.*?\n(?:---|\.\.\.)\n", re.DOTALL)
_MARKUP = re.compile(r"!?\[([^\]]*)\]\([^)]*\)|[*_`]+")
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)


def read(data: bytes) -> list[Block]:
    text = _FRONT_MATTER.sub("", decoded(data), count=1)
    lines = text.split("\n")
    path = HeadingPath()
    blocks: list[Block] = []
    # Only the block structure is needed: inline markup is left as it is, and not parsed.
    parser = MarkdownIt("commonmark", {"html": True}).enable("table").disable("inline")
    is_title = 0
    for token in parser.parse(text):
        if token.type == "heading_open":
            is_title = int(token.tag[1:])
        elif token.type == "inline" and is_title:
            path.enter(is_title, _MARKUP.sub(r"\1", token.content))
            is_title = 0
        elif token.level == 0 and token.map is not None and token.nesting != -1:
            source = _COMMENT.sub("", "\n".join(lines[token.map[0] : token.map[1]])).strip()
            if source and token.type != "hr":
                blocks.append(Block(text=source, headings=path.titles))
    return blocks
