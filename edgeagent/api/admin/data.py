"""`/admin/audit`, `/admin/export`, `/admin/erase`: what owners and inspectors may want of stored data.

A key with the scope `data` acts on what its own owner has; one with `admin` on everybody's. Whose data is
meant comes in the body: the names of people do not belong into addresses, which get logged.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

from litestar import Request, get, post
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import Parameter
from litestar.response import Stream

from edgeagent.api.admin.data_schemas import (
    AuditPage,
    AuditRow,
    EraseRequest,
    ReceiptBody,
    WhoseData,
)
from edgeagent.api.http.body import body_operation, read_body
from edgeagent.api.http.caller import caller_of
from edgeagent.api.openai.schemas.common import ErrorBody
from edgeagent.errors import InsufficientScope
from edgeagent.store import audit_anchor, erasure
from edgeagent.store.lifecycle import Custody
from edgeagent.store.ownership import Selector
from edgeagent.types.caller import Caller

MAX_PAGE = 1000
_TAGS = ["data"]

Call = Request[Any, Any, Any]

_REFUSED = {
    400: ResponseSpec(ErrorBody, description="Nothing says whose data is meant"),
    403: ResponseSpec(
        ErrorBody, description="The data of another owner, or a key without the scope"
    ),
    404: ResponseSpec(ErrorBody, description="Nothing is stored for it"),
}
_HELD = {
    409: ResponseSpec(
        ErrorBody, description="Some of it is under legal hold, or another erasure of it runs"
    )
}


@get(
    "/admin/audit",
    operation_id="audit",
    summary="Read the audit",
    description="Oldest first, page by page. Rows name objects and hold no content.",
    tags=_TAGS,
)
async def read_audit(
    custody: NamedDependency[Custody],
    after: Annotated[
        int, Parameter(ge=0, le=1 << 62, description="`next_after` of the last page")
    ] = 0,
    limit: Annotated[int, Parameter(ge=1, le=MAX_PAGE, description="most of one page")] = 100,
) -> AuditPage:
    rows, head = await custody.audit_page(after, limit)
    return AuditPage(
        data=[AuditRow.model_validate(row.shown()) for row in rows],
        next_after=rows[-1].seq if rows and rows[-1].seq < head.seq else None,
        head=audit_anchor.shown(head),
    )


@post(
    "/admin/export",
    operation_class=body_operation(WhoseData),
    operation_id="export_data",
    summary="Everything that is kept of an owner, a conversation or a subject",
    description=(
        "One JSON document, streamed: a list of rows for each table. Written in pages while others "
        "write; `edgeagent data export` gives one state of the database. A broken document was cut off."
    ),
    tags=_TAGS,
    status_code=200,
    responses=_REFUSED,
)
async def export_data(request: Call, custody: NamedDependency[Custody]) -> Stream:
    caller = caller_of(request)
    body = await read_body(request, WhoseData)
    pieces = await custody.export(_allowed(caller, body), caller.key_id)
    return Stream(pieces, media_type="application/json", headers={"cache-control": "no-store"})


@post(
    "/admin/erase",
    operation_class=body_operation(EraseRequest),
    operation_id="erase_data",
    summary="Erase what is kept of an owner, a conversation or a subject",
    description=(
        "Answers when it is done and the state directory has been searched for traces. Rows under legal "
        "hold refuse the whole, unless `except_held`. API keys and the audit stay. An owner's erasures "
        "run one at a time. A key without `admin` gets no counts that tell of others' data."
    ),
    tags=_TAGS,
    status_code=200,
    responses=_REFUSED | _HELD,
)
async def erase_data(request: Call, custody: NamedDependency[Custody]) -> ReceiptBody:
    caller = caller_of(request)
    body = await read_body(request, EraseRequest)
    selector = _allowed(caller, body)
    if body.drop_backups and "admin" not in caller.scopes:
        raise InsufficientScope(
            "`drop_backups` deletes what backups hold of everybody, this key lacks the scope `admin`: "
            "leave it out, or use a key that has it.",
            param="drop_backups",
        )
    # Erasing takes the whole store; who owns a part of it must not keep it busy.
    is_admin = "admin" in caller.scopes
    with nullcontext() if is_admin else request.scope["state"]["admission"].alone("erasure"):
        receipt = await custody.erase(
            erasure.Request(selector, caller.key_id, body.except_held, body.drop_backups)
        )
    if is_admin:
        return ReceiptBody.model_validate(_without_folders(receipt.shown()))
    return ReceiptBody.model_validate(custody.shown_to_owner(receipt))


def _allowed(caller: Caller, body: WhoseData) -> Selector:
    """What this caller may reach of what was meant. Raises: InsufficientScope, Forbidden, BadRequest."""
    if "admin" in caller.scopes:
        return body.selector()
    if "data" not in caller.scopes:
        raise InsufficientScope(
            f"This key has the scopes {', '.join(sorted(caller.scopes))}, this request needs `data` or "
            "`admin`: use a key that has it."
        )
    if body.owner is None and body.conversation is None and body.subject is None:
        return Selector(owner=caller.owner)
    return body.selector().within(caller.owner)


def _without_folders(receipt: dict[str, Any]) -> dict[str, Any]:
    """Where files lie on this device is no caller's business; their names are enough."""
    proof = dict(receipt["proof"])
    for name in ("residue", "backups"):
        proof[name] = {Path(path).name: n for path, n in proof[name].items()}
    proof["unreadable"] = [Path(path).name for path in proof["unreadable"]]
    return receipt | {"proof": proof}


HANDLERS = [read_audit, export_data, erase_data]
