"""Built-in chat templates of well-known families, for models whose file has none or a broken one.

The special tokens of the vocabulary show the family of a model. The templates render roles and contents as
the families were trained on them, without tools.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class BuiltInTemplate(NamedTuple):
    """A template, and the special tokens by which its family is recognized."""

    family: str
    marks: tuple[str, ...]
    template: str


_LOOP, _END = "{% for message in messages %}", "{% endfor %}"


def _headed(opening: str, closing: str, end: str, begin: str = "") -> str:
    """Each turn after its role, between two markers."""
    return (
        f"{begin}{_LOOP}{opening}{{{{ message.role }}}}{closing}{{{{ message.content }}}}{end}{_END}"
        f"{{% if add_generation_prompt %}}{opening}assistant{closing}{{% endif %}}"
    )


_GEMMA = (
    "{{ bos_token }}{% for message in messages %}"
    "<start_of_turn>{{ 'model' if message.role == 'assistant' else 'user' }}\n"
    "{{ message.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
_MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'assistant' %}"
    " {{ message.content | trim }}{{ eos_token }}{% else %}[INST] {{ message.content }}[/INST]{% endif %}"
    "{% endfor %}"
)
_DEEPSEEK = (
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'user' %}"
    "<｜User｜>{{ message.content }}"
    "{% elif message.role == 'assistant' %}<｜Assistant｜>{{ message.content }}{{ eos_token }}"
    "{% else %}{{ message.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<｜Assistant｜>{% endif %}"
)

FAMILIES: tuple[BuiltInTemplate, ...] = (
    BuiltInTemplate(
        "llama3",
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        _headed("<|start_header_id|>", "<|end_header_id|>\n\n", "<|eot_id|>", "{{ bos_token }}"),
    ),
    BuiltInTemplate("gemma", ("<start_of_turn>", "<end_of_turn>"), _GEMMA),
    BuiltInTemplate(
        "granite",
        ("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"),
        _headed("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>\n"),
    ),
    BuiltInTemplate("deepseek", ("<｜User｜>", "<｜Assistant｜>"), _DEEPSEEK),
    BuiltInTemplate("chatml", ("<|im_start|>", "<|im_end|>"),
            _headed("<|im_start|>", "\n", "<|im_end|>\n")),
    BuiltInTemplate("phi3", ("<|user|>", "<|assistant|>", "<|end|>"),
            _headed("<|", "|>\n", "<|end|>\n")),
    BuiltInTemplate("mistral", ("[INST]", "[/INST]"), _MISTRAL),
)  # fmt: skip


def fitting(is_token: Callable[[str], bool]) -> str | None:
    """The template of the family whose markers the vocabulary has. Gemma and Mistral have no system role; the
    dialogue is adapted to that as for any other template."""
    for family in FAMILIES:
        if all(map(is_token, family.marks)):
            return family.template
    return None
