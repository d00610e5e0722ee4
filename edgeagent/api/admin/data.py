"""`/admin/audit`, `/admin/export`, `/admin/erase`: stored data for owners and inspectors.

A key with the scope `data` acts on the data of its owner, one with `admin` on all data. The selection is in
the body, since names of people do not belong in URLs, which are logged.
"""

from __future__ import annotations

from typing import Annotated

from litestar import get, post
from litestar.di import NamedDependency
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
from edgeagent.api.http.caller import ApiRequest, caller_of
from edgeagent.api.http.request_context import context_of
from edgeagent.api.http.response_doc import response_doc
from edgeagent.api.openai.schemas.shared_request_fields import ErrorBody
from edgeagent.serving.stored_data import StoredData

MAX_PAGE = 1000
_TAGS = ["data"]

_REFUSED = {
    400: response_doc(ErrorBody, description="No owner, conversation or subject is given"),
    403: response_doc(
        ErrorBody, description="The data of another owner, or a key without the scope"
    ),
    404: response_doc(ErrorBody, description="Nothing is stored for this selection"),
}
_HELD = {
    409: response_doc(
        ErrorBody, description="Some rows are on legal hold, or another erasure is running"
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
    stored_data: NamedDependency[StoredData],
    after: Annotated[
        int, Parameter(ge=0, le=1 << 62, description="`next_after` of the last page")
    ] = 0,
    limit: Annotated[int, Parameter(ge=1, le=MAX_PAGE, description="maximum of one page")] = 100,
) -> AuditPage:
    page = await stored_data.audit_page(after, limit)
    return AuditPage(
        data=[AuditRow.model_validate(row) for row in page.rows],
        next_after=page.next_after,
        head=page.head,
    )


@post(
    "/admin/export",
    operation_class=body_operation(WhoseData),
    operation_id="export_data",
    summary="Export everything that is stored about an owner, a conversation or a subject",
    description=(
        "One JSON document, streamed: a list of rows for each table. It is read in pages while others "
        "write; `edgeagent data export` reads one state of the database. An incomplete document was cut off."
    ),
    tags=_TAGS,
    status_code=200,
    responses=_REFUSED,
)
async def export_data(request: ApiRequest, stored_data: NamedDependency[StoredData]) -> Stream:
    body = await read_body(request, WhoseData)
    pieces = await stored_data.export(caller_of(request), body.selection())
    return Stream(pieces, media_type="application/json", headers={"cache-control": "no-store"})


@post(
    "/admin/erase",
    operation_class=body_operation(EraseRequest),
    operation_id="erase_data",
    summary="Erase everything that is stored about an owner, a conversation or a subject",
    description=(
        "Answers after the erasure and a search of the state directory for traces. Rows on legal "
        "hold prevent the erasure, unless `except_held`. API keys and the audit stay. An owner's erasures "
        "run one at a time. A key without `admin` gets no counts that reveal data of others."
    ),
    tags=_TAGS,
    status_code=200,
    responses=_REFUSED | _HELD,
)
async def erase_data(request: ApiRequest, stored_data: NamedDependency[StoredData]) -> ReceiptBody:
    body = await read_body(request, EraseRequest)
    receipt = await stored_data.erase(
        caller_of(request),
        body.selection(),
        except_held=body.except_held,
        drop_backups=body.drop_backups,
        alone=context_of(request.scope).known_admission.alone("erasure"),
    )
    return ReceiptBody.model_validate(receipt)


HANDLERS = [read_audit, export_data, erase_data]
