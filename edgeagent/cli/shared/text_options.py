"""Options of commands that compute models on texts."""

from __future__ import annotations

import click

context_option = click.option(
    "--ctx", "n_ctx", type=click.IntRange(16, 1 << 20), default=512, show_default=True,
    help="Tokens of a chunk of text.",
)  # fmt: skip
special_option = click.option(
    "--special", is_flag=True, help="The texts have names of special tokens, such as <|im_start|>."
)
threads_option = click.option(
    "--threads", type=click.IntRange(1, 256), help="Threads. Default: one per performance core."
)
