"""Every error that edgeagent raises on purpose, in one tree.

    EdgeAgentError                      code
    |- BadRequest                       bad_request              the request is wrong
    |  |- InvalidParameter              invalid_parameter        one field is wrong; `param` names it
    |  |- UnsupportedParameter          unsupported_parameter    a known field that is not supported
    |  |  `- ThreadUnsupported          thread_unsupported_request  Anthropic's threads: send it all
    |  |- ContextLengthExceeded         context_length_exceeded  can never fit into a slot
    |  |- BodyTooLarge                  body_too_large
    |  |- UnsupportedMediaType          unsupported_media_type
    |  |  `- UnsupportedEncoding        unsupported_content_encoding  an unknown `Content-Encoding`
    |  |- Misdirected                   misdirected_request      the Host header is not accepted
    |  |- SchemaUnsatisfiable           schema_unsatisfiable     no answer can satisfy the schema
    |  |- PreviousNotFound              previous_response_not_found  no response to continue
    |  `- TemplateFailed                template_failed          the model's chat template refused or failed
    |- Unauthorized                     invalid_api_key          no valid key
    |- Forbidden                        forbidden
    |  |- InsufficientScope             insufficient_scope       a valid key without this scope
    |  `- ModelNotApproved              model_not_approved       a model file that is not approved
    |- Conflict                         conflict                 not possible in the current state
    |  |- IdempotencyKeyReused          idempotency_key_reused   a key that came with another request
    |  |- StoreOff                      store_off                this daemon stores nothing
    |  |- Erased                        erased                   the data was erased meanwhile
    |  `- LegalHold                     legal_hold               rows under legal hold
    |- NotFound                         not_found
    |  |- ModelNotFound                 model_not_found
    |  `- KeyNotFound                   key_not_found
    |- Unavailable                      unavailable              try again after `retry_after_s`
    |  |- QueueFull                     queue_full
    |  |- QueueTimeout                  queue_timeout
    |  |- RateLimited                   rate_limit_exceeded      a limit of the caller's key
    |  |- ShuttingDown                  shutting_down            the daemon stops before the answer is done
    |  |- ConversationLocked            conversation_locked      another answer of it is running
    |  |- ErasureRunning                erasure_running          another erasure of the same owner is running
    |  |- EngineDied                    engine_died              the worker ended during a request
    |  |- EngineStarting                engine_starting          a worker did not become ready in time
    |  |- EngineBroken                  engine_broken            the breaker is open
    |  |- StoreBusy                     store_busy               too many writes wait for the disk
    |  `- UpstreamUnavailable           upstream_unavailable     no upstream has begun the request
    |- UpstreamFailed                   upstream_failed          an upstream has failed, or answered nonsense
    |  `- UpstreamTimeout               upstream_timeout         an upstream was silent for too long
    |- DeadlineExceeded                 deadline_exceeded        the client's deadline passed before the start
    |- InsufficientMemory               insufficient_memory      a model that the budget cannot hold
    |- Interrupted                      interrupted              the daemon was stopped before the end
    |- EngineFailed                     engine_failed            llama.cpp refused or failed a step
    |- SchemaViolated                   schema_violated          an answer that does not satisfy its schema
    |- ModelUnusable                    model_unusable           a model file that cannot be loaded
    |  |- GGUFRefused                   gguf_refused             refused by the header reader
    |  `- ModelAltered                  model_altered            not the file that was approved
    |- InstallFailed                    install_failed
    |  `- BundleRefused                 bundle_refused           altered, unsigned or replayed
    |- KeyUnusable                      key_unusable             a wrong, untrusted or unreadable key
    |- StoreError                       store_error              the database of this device
    |  |- StoreUnusable                 store_unusable           cannot be opened: too new, in use, wrong mode
    |  |- StoreDamaged                  store_damaged            the file is not what was written
    |  |- StorageFull                   storage_full             the disk is full; reads still work
    |  |- StoreLocked                   store_locked             keys or their journal are lost: see access.py
    |  |- StorageFailed                 storage_failed           the disk refused a read or a write
    |  `- BackupFailed                  backup_failed            a damaged backup, or one that cannot be made
    |- ForgeFailed                      forge_failed             training: a recipe, a data set, a checkpoint
    |- SettingsError                    settings_error           a configuration value is wrong
    |- StartFailed                      start_failed             the daemon cannot start: port, directory
    `- ServiceFailed                    service_failed           the systemd service cannot be installed

A message has four parts: what, the value, the bound, the way out. `api/http/errors.py` maps each
code to an HTTP status; the CLI prints the message on one line and exits with 2.
"""

from __future__ import annotations

from typing import Any, ClassVar


class EdgeAgentError(Exception):
    """The root. `message` is for the user; `param` names the field that is wrong, if any."""

    code: ClassVar[str] = "internal_error"
    # Additional fields in Anthropic's API.
    details: ClassVar[dict[str, Any] | None] = None

    def __init__(
        self, message: str, *, param: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s


class BadRequest(EdgeAgentError):
    code = "bad_request"


class InvalidParameter(BadRequest):
    code = "invalid_parameter"


class UnsupportedParameter(BadRequest):
    code = "unsupported_parameter"


class ThreadUnsupported(UnsupportedParameter):
    """With these details Anthropic's SDK continues without `thread`."""

    code = "thread_unsupported_request"
    details: ClassVar[dict[str, Any] | None] = {
        "error_code": "thread_unsupported_request",
        "unsupported": ["thread"],
    }


class ContextLengthExceeded(BadRequest):
    code = "context_length_exceeded"


class BodyTooLarge(BadRequest):
    code = "body_too_large"


class UnsupportedMediaType(BadRequest):
    code = "unsupported_media_type"


class UnsupportedEncoding(UnsupportedMediaType):
    code = "unsupported_content_encoding"


class Misdirected(BadRequest):
    code = "misdirected_request"


class SchemaUnsatisfiable(BadRequest):
    code = "schema_unsatisfiable"


class PreviousNotFound(BadRequest):
    code = "previous_response_not_found"


class TemplateFailed(BadRequest):
    code = "template_failed"


class Unauthorized(EdgeAgentError):
    code = "invalid_api_key"


class Forbidden(EdgeAgentError):
    code = "forbidden"


class InsufficientScope(Forbidden):
    code = "insufficient_scope"


class ModelNotApproved(Forbidden):
    code = "model_not_approved"


class NotFound(EdgeAgentError):
    code = "not_found"


class ModelNotFound(NotFound):
    code = "model_not_found"


class KeyNotFound(NotFound):
    code = "key_not_found"


class Unavailable(EdgeAgentError):
    code = "unavailable"


class QueueFull(Unavailable):
    code = "queue_full"


class QueueTimeout(Unavailable):
    code = "queue_timeout"


class RateLimited(Unavailable):
    code = "rate_limit_exceeded"


class ShuttingDown(Unavailable):
    code = "shutting_down"


class ConversationLocked(Unavailable):
    code = "conversation_locked"


class ErasureRunning(Unavailable):
    code = "erasure_running"


class EngineDied(Unavailable):
    code = "engine_died"


class EngineStarting(Unavailable):
    code = "engine_starting"


class EngineBroken(Unavailable):
    code = "engine_broken"


class StoreBusy(Unavailable):
    code = "store_busy"


class UpstreamUnavailable(Unavailable):
    code = "upstream_unavailable"


class UpstreamFailed(EdgeAgentError):
    code = "upstream_failed"


class UpstreamTimeout(UpstreamFailed):
    code = "upstream_timeout"


class DeadlineExceeded(EdgeAgentError):
    code = "deadline_exceeded"


class InsufficientMemory(EdgeAgentError):
    code = "insufficient_memory"


class Interrupted(EdgeAgentError):
    code = "interrupted"


class EngineFailed(EdgeAgentError):
    code = "engine_failed"


class SchemaViolated(EdgeAgentError):
    code = "schema_violated"


class ModelUnusable(EdgeAgentError):
    code = "model_unusable"


class ModelAltered(ModelUnusable):
    code = "model_altered"


class GGUFRefused(ModelUnusable):
    code = "gguf_refused"


class InstallFailed(EdgeAgentError):
    code = "install_failed"


class BundleRefused(InstallFailed):
    code = "bundle_refused"


class KeyUnusable(EdgeAgentError):
    code = "key_unusable"


class Conflict(EdgeAgentError):
    code = "conflict"


class IdempotencyKeyReused(Conflict):
    code = "idempotency_key_reused"


class StoreOff(Conflict):
    code = "store_off"


class Erased(Conflict):
    code = "erased"


class LegalHold(Conflict):
    code = "legal_hold"


class StoreError(EdgeAgentError):
    code = "store_error"


class StoreUnusable(StoreError):
    code = "store_unusable"


class StoreDamaged(StoreError):
    code = "store_damaged"


class StoreLocked(StoreError):
    code = "store_locked"


class StorageFull(StoreError):
    code = "storage_full"


class StorageFailed(StoreError):
    code = "storage_failed"


class BackupFailed(StoreError):
    code = "backup_failed"


class ForgeFailed(EdgeAgentError):
    code = "forge_failed"


class SettingsError(EdgeAgentError):
    code = "settings_error"


class StartFailed(EdgeAgentError):
    code = "start_failed"


class ServiceFailed(EdgeAgentError):
    code = "service_failed"


def by_code(
    code: str, message: str, param: str | None = None, retry_after_s: float | None = None
) -> EdgeAgentError:
    """The error with `code`, received from another process."""
    return _CLASSES.get(code, EdgeAgentError)(message, param=param, retry_after_s=retry_after_s)


def _walk(root: type[EdgeAgentError]) -> dict[str, type[EdgeAgentError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found |= _walk(child)
    return found


_CLASSES = _walk(EdgeAgentError)
