"""Chat templates of well-known families, as they behave: marks, roles, what they refuse and leave out.

Written for these tests. Each names its vocabulary's special tokens, and whether the vocabulary itself puts
a BOS first.
"""

# ruff: noqa: E501
from __future__ import annotations

from typing import NamedTuple

from edgeagent.engine.prompt.special_token_search import CONTROL, USER_DEFINED
from tests.engine.letters import ModelVocabulary

ROLES = "{% for m in messages %}"
REFUSE_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
TURNS = (
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
)
HERMES_TOOLS = (
    "{% if tools %}<|im_start|>system\n{% if messages[0].role == 'system' %}{{ messages[0].content }}\n\n"
    "{% endif %}# Tools\n<tools>{% for t in tools %}\n{{ t | tojson }}{% endfor %}\n</tools><|im_end|>\n"
    "{% elif messages[0].role == 'system' %}<|im_start|>system\n{{ messages[0].content }}<|im_end|>\n"
    "{% endif %}"
)
HERMES_CALLS = (
    "{% for c in m.tool_calls or [] %}{% if c.function %}{% set c = c.function %}{% endif %}\n<tool_call>\n"
    '{"name": "{{ c.name }}", "arguments": {{ c.arguments | tojson }}}\n</tool_call>{% endfor %}'
)
HERMES_RESULT = (
    "{% if loop.first or messages[loop.index0 - 1].role != 'tool' %}<|im_start|>user{% endif %}\n"
    "<tool_response>\n{{ m.content }}\n</tool_response>"
    "{% if loop.last or messages[loop.index0 + 1].role != 'tool' %}<|im_end|>\n{% endif %}"
)
OPEN_CHATML = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
IM = {"<|endoftext|>": CONTROL, "<|im_start|>": CONTROL, "<|im_end|>": CONTROL}
TOOL_MARKS = dict.fromkeys(
    ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"],
    USER_DEFINED,
)
QWEN_LOOP = (
    ROLES + "{% if m.role == 'user' or (m.role == 'system' and not loop.first) %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% elif m.role == 'assistant' %}<|im_start|>assistant\n{{ REASONED }}" + HERMES_CALLS
    + "<|im_end|>\n{% elif m.role == 'tool' %}" + HERMES_RESULT + "{% endif %}{% endfor %}" + OPEN_CHATML
)  # fmt: skip


class FamilyTemplate(NamedTuple):
    template: str
    specials: dict[str, int]
    bos: str | None
    eos: str
    adds_bos: bool = False
    adds_space: bool = False

    def vocabulary(self) -> ModelVocabulary:
        return ModelVocabulary(
            self.specials, self.bos, self.eos, adds_bos=self.adds_bos, adds_space=self.adds_space
        )


FAMILIES: dict[str, FamilyTemplate] = {
    "chatml": FamilyTemplate(
        ROLES + "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}" + OPEN_CHATML,
        IM, None, "<|im_end|>",
    ),
    "smollm2": FamilyTemplate(
        ROLES + "{% if loop.first and m.role != 'system' %}<|im_start|>system\nYou are SmolLM<|im_end|>\n"
        "{% endif %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}" + OPEN_CHATML,
        IM, None, "<|im_end|>",
    ),
    "smollm3": FamilyTemplate(
        "{% if messages[0].role == 'system' %}{% set s = messages[0].content %}{% set rest = messages[1:] %}"
        "{% else %}{% set s = '' %}{% set rest = messages %}{% endif %}"
        "<|im_start|>system\n## Metadata\nReasoning Mode: {{ '/no_think' if '/no_think' in s else '/think' }}\n"
        "{{ s.replace('/no_think', '') | trim }}\n{% if tools %}{% for t in tools %}{{ t.function | string }}\n"
        "{% endfor %}{% endif %}<|im_end|>\n{% for m in rest %}"
        "{% if m.role == 'tool' %}<|im_start|>user\n{{ m.content }}<|im_end|>\n"
        "{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% if enable_thinking is defined and not "
        "enable_thinking %}<think>\n\n</think>\n{% endif %}{% endif %}",
        IM | TOOL_MARKS, None, "<|im_end|>",
    ),
    "qwen2.5": FamilyTemplate(
        HERMES_TOOLS + QWEN_LOOP.replace("{{ REASONED }}", "{{ m.content }}"),
        IM | TOOL_MARKS, None, "<|im_end|>",
    ),
    "qwen3": FamilyTemplate(
        HERMES_TOOLS + QWEN_LOOP.replace(
            "{{ REASONED }}",
            "{% set said = m.content %}{% if '</think>' in said %}"
            "{% set said = said.split('</think>')[-1].lstrip('\\n') %}{% endif %}{{ said }}",
        ) + "{% if add_generation_prompt and enable_thinking is defined and enable_thinking is false %}"
        "<think>\n\n</think>\n\n{% endif %}",
        IM | TOOL_MARKS, None, "<|im_end|>",
    ),
    "llama3": FamilyTemplate(
        "{{ bos_token }}{% if messages[0].role == 'system' %}{% set s = messages[0].content | trim %}"
        "{% set messages = messages[1:] %}{% else %}{% set s = '' %}{% endif %}"
        "<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n\n{{ s }}"
        "<|eot_id|>{% if tools %}{% if messages | length == 0 %}{{ raise_exception('no first message') }}"
        "{% endif %}<|start_header_id|>user<|end_header_id|>\n\n{% for t in tools %}{{ t | tojson(indent=4) }}"
        "\n\n{% endfor %}{{ messages[0].content | trim }}<|eot_id|>{% set messages = messages[1:] %}{% endif %}"
        + ROLES + "{% if m.tool_calls %}{% if m.tool_calls | length != 1 %}{{ raise_exception('This model "
        "only supports single tool-calls at once!') }}{% endif %}{% set c = m.tool_calls[0].function %}"
        '<|start_header_id|>assistant<|end_header_id|>\n\n{"name": "{{ c.name }}", "parameters": '
        "{{ c.arguments | tojson }}}<|eot_id|>{% elif m.role == 'tool' %}"
        "<|start_header_id|>ipython<|end_header_id|>\n\n{{ m.content | tojson }}<|eot_id|>"
        "{% else %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}"
        "<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
        dict.fromkeys(["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
                       "<|eot_id|>", "<|eom_id|>", "<|python_tag|>"], CONTROL),
        "<|begin_of_text|>", "<|eot_id|>", adds_bos=True,
    ),
    "gemma2": FamilyTemplate(
        "{{ bos_token }}" + REFUSE_SYSTEM + ROLES + TURNS
        + "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}"
        "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
        {"<bos>": CONTROL, "<eos>": CONTROL, "<start_of_turn>": CONTROL, "<end_of_turn>": CONTROL,
         "<table>": USER_DEFINED, "\n\n": USER_DEFINED},
        "<bos>", "<eos>", adds_bos=True,
    ),
    "gemma3": FamilyTemplate(
        "{{ bos_token }}{% if messages[0].role == 'system' %}{% set first = messages[0].content + '\n\n' %}"
        "{% set loop_messages = messages[1:] %}{% else %}{% set first = '' %}"
        "{% set loop_messages = messages %}{% endif %}{% for m in loop_messages %}" + TURNS
        + "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ first if loop.first else '' }}"
        "{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
        "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
        {"<bos>": CONTROL, "<eos>": CONTROL, "<start_of_turn>": USER_DEFINED, "<end_of_turn>": CONTROL,
         "<table>": USER_DEFINED},
        "<bos>", "<eos>", adds_bos=True,
    ),
    "mistral": FamilyTemplate(
        "{% if messages[0].role == 'system' %}{% set s = messages[0].content %}{% set rest = messages[1:] %}"
        "{% else %}{% set rest = messages %}{% endif %}{% set ns = namespace(i=0, asked=-1) %}{% for m in rest %}{% if m.role == 'user' %}{% set ns.asked = loop.index0 %}{% endif %}"
        "{% if m.role == 'user' or (m.role == 'assistant' and not m.tool_calls) %}"
        "{% if (m.role == 'user') != (ns.i % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
        "{% set ns.i = ns.i + 1 %}{% endif %}{% endfor %}{{ bos_token }}{% for m in rest %}"
        "{% if m.role == 'user' %}{% if tools and loop.index0 == ns.asked %}[AVAILABLE_TOOLS] {{ tools | tojson }}"
        "[/AVAILABLE_TOOLS]{% endif %}[INST] {% if loop.last and s is defined %}{{ s }}\n\n{% endif %}"
        "{{ m.content }}[/INST]{% elif m.tool_calls %}[TOOL_CALLS] [{% for c in m.tool_calls %}"
        "{% if c.id | length != 9 %}{{ raise_exception('an id has nine letters') }}{% endif %}"
        '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}, "id": "{{ c.id }}"}'
        "{{ ', ' if not loop.last }}{% endfor %}]{{ eos_token }}{% elif m.role == 'assistant' %}"
        " {{ m.content }}{{ eos_token }}{% elif m.role == 'tool' %}"
        '[TOOL_RESULTS] {"content": {{ m.content | tojson }}, "call_id": "{{ m.tool_call_id }}"}[/TOOL_RESULTS]'
        "{% else %}{{ raise_exception('Only user and assistant roles are supported') }}{% endif %}{% endfor %}",
        dict.fromkeys(["<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]",
                       "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"], CONTROL),
        "<s>", "</s>", adds_bos=True, adds_space=True,
    ),
    "phi3": FamilyTemplate(
        ROLES + "{% if m.role in ('system', 'user', 'assistant') %}{{ '<|' + m.role + '|>\n' + m.content "
        "+ '<|end|>\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>\n"
        "{% else %}{{ eos_token }}{% endif %}",
        dict.fromkeys(["<s>", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"], CONTROL),
        "<s>", "<|endoftext|>", adds_bos=True, adds_space=True,
    ),
    "granite": FamilyTemplate(
        "{% if messages[0].role == 'system' %}{% set s = messages[0].content %}{% set rest = messages[1:] %}"
        "{% else %}{% set s = 'You are Granite.' %}{% set rest = messages %}{% endif %}"
        "<|start_of_role|>system<|end_of_role|>{{ s }}<|end_of_text|>\n{% if tools %}"
        "<|start_of_role|>available_tools<|end_of_role|>{{ tools | tojson(indent=4) }}<|end_of_text|>\n{% endif %}"
        "{% for m in rest %}<|start_of_role|>{{ m.role }}<|end_of_role|>{{ m.content }}"
        "{% for c in m.tool_calls or [] %}<|tool_call|>{{ c.function | tojson }}{% endfor %}<|end_of_text|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif %}",
        dict.fromkeys(["<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>", "<|tool_call|>"], CONTROL),
        None, "<|end_of_text|>",
    ),
    "deepseek-distill": FamilyTemplate(
        "{% set ns = namespace(s='') %}" + ROLES + "{% if m.role == 'system' %}{% set ns.s = m.content %}"
        "{% endif %}{% endfor %}{{ bos_token }}{{ ns.s }}" + ROLES + "{% if m.role == 'user' %}"
        "<｜User｜>{{ m.content }}{% elif m.role == 'assistant' %}{% set said = m.content %}"
        "{% if '</think>' in said %}{% set said = said.split('</think>')[-1] %}{% endif %}"
        "<｜Assistant｜>{{ said }}<｜end▁of▁sentence｜>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<｜Assistant｜><think>\n{% endif %}",
        {"<｜begin▁of▁sentence｜>": CONTROL, "<｜end▁of▁sentence｜>": CONTROL, "<｜User｜>": USER_DEFINED,
         "<｜Assistant｜>": USER_DEFINED, "<think>": USER_DEFINED, "</think>": USER_DEFINED},
        "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", adds_bos=True,
    ),
    "zephyr": FamilyTemplate(  # TinyLlama: its vocabulary has no tokens for the roles
        ROLES + "{% if m.role in ('user', 'system', 'assistant') %}{{ '<|' ~ m.role ~ '|>\n' ~ m.content ~ "
        "eos_token ~ '\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
        {"<s>": CONTROL, "</s>": CONTROL}, "<s>", "</s>", adds_bos=True, adds_space=True,
    ),
    "lfm2": FamilyTemplate(
        "{{ bos_token }}{% set s = namespace(t='') %}{% if messages[0].role == 'system' %}"
        "{% set s.t = messages[0].content %}{% set messages = messages[1:] %}{% endif %}{% if tools %}"
        "{% set s.t = s.t ~ '\nList of tools: <|tool_list_start|>' ~ (tools | tojson) ~ '<|tool_list_end|>' %}"
        "{% endif %}{% if s.t %}<|im_start|>system\n{{ s.t }}<|im_end|>\n{% endif %}" + ROLES
        + "<|im_start|>{{ m.role }}\n{% if m.role == 'tool' %}<|tool_response_start|>{{ m.content }}"
        "<|tool_response_end|>{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}" + OPEN_CHATML,
        IM | dict.fromkeys(["<|startoftext|>", "<|tool_list_start|>", "<|tool_list_end|>",
                            "<|tool_response_start|>", "<|tool_response_end|>"], CONTROL),
        "<|startoftext|>", "<|im_end|>", adds_bos=True,
    ),
    "assistant": FamilyTemplate(  # the shipped edge-assistant models: the last question alone
        "{%- set ns = namespace(text='') -%}{%- for m in messages -%}{%- if m.role == 'user' -%}"
        "{%- set ns.text = m.content -%}{%- endif -%}{%- endfor -%}<|user|>{{ ns.text }}<|assistant|>",
        {"<|user|>": CONTROL, "<|assistant|>": CONTROL, "<|end|>": CONTROL}, None, "<|end|>",
    ),
}  # fmt: skip
