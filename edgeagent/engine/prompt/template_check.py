"""Tests a chat template before it is installed."""

from __future__ import annotations

from functools import partial

from edgeagent.engine.prompt.template_abilities import complaint
from edgeagent.engine.prompt.template_client import TemplateHost
from edgeagent.errors import InstallFailed

TIMEOUT_S = 5.0


def check_template(text: str, name: str) -> None:
    """Render a question with the template, in a template process.

    Raises: InstallFailed with the reason, and the line of the template if it is known.
    """
    host = TemplateHost(text, TIMEOUT_S)
    try:
        problem = complaint(partial(_rendered, host))
    finally:
        host.close()
    if problem is not None:
        raise InstallFailed(
            f"The chat template {name} is refused: {problem.rstrip('.')}. Correct it."
        )


def _rendered(host: TemplateHost, variables: dict[str, object]) -> str:
    return host.render(
        {"bos_token": "", "eos_token": "", "add_generation_prompt": True, **variables}
    )
