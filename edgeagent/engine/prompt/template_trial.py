"""A chat template that somebody gives, tried before anything is done with it."""

from __future__ import annotations

from functools import partial

from edgeagent.engine.prompt.template_abilities import complaint
from edgeagent.engine.prompt.template_host import TemplateHost
from edgeagent.errors import InstallFailed

TIMEOUT_S = 5.0


def check_template(text: str, name: str) -> None:
    """Render a question with it, in the process that templates run in.

    Raises: InstallFailed with what is wrong with it, and its line where that is known.
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
