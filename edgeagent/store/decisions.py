"""The decisions of routes: what was chosen with which probability, and what became of it. Functions run
inside `Database.write` or `read`.

A decision goes with its request, its response and its conversation (store/route_schema.py), and is erased
with its owner and its subject: the hashed words of a text are as good as content, and go with the item that
had the text, too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from edgeagent.store.connection import StoreConnection
from edgeagent.store.row_queries import fetch


class DecisionRow(msgspec.Struct, frozen=True, kw_only=True):
    """One decision. `chosen` by the route, `answered` by the model that answered in the end.

    `chances`: the probability of each candidate; None where the choice was not open. `features` makes the
    record of the text, on the writer's thread. `began_s` by the monotonic clock.
    """

    request_id: str
    owner: str
    route: str
    reason: str
    chosen: str
    answered: str
    default_model: str
    created_ms: int
    began_s: float
    chances: Mapping[str, float] | None = None
    features: Callable[[], bytes] | None = None
    domain: str | None = None
    subject: str | None = None
    response_id: str | None = None
    conversation_id: str | None = None


_INSERT = """insert or ignore into decision (request_id, owner, subject, response_id, conversation_id, route,
    domain, reason, chosen, answered, default_model, propensity, chances, features, created_ms)
    values (:request_id, :owner, :subject, :response_id, :conversation_id, :route, :domain, :reason, :chosen,
    :answered, :default_model, :propensity, :chances, :features, :created_ms)"""


def insert(db: StoreConnection, row: DecisionRow) -> None:
    values = msgspec.structs.asdict(row)
    chances = row.chances
    values["propensity"] = chances[row.chosen] if chances is not None else None
    values["chances"] = json.dumps(dict(chances)) if chances is not None else None
    values["features"] = row.features() if row.features is not None else None
    db.execute(_INSERT, values)


# The newest feedback counts. It may name the request, its response or an item of the response. The plus keeps
# SQLite from reading all feedback of the owner for each decision.
_RATED = """(select f.rowid from feedback f where +f.owner = d.owner and f.target_id in
    (select d.request_id union all select d.response_id
     union all select id from item where response_id = d.response_id)
    order by f.created_ms desc, f.rowid desc limit 1)"""
PAGE = f"""select d.rowid as at, d.owner, d.domain, d.reason, d.chosen, d.answered, d.default_model,
    d.chances, d.features, d.created_ms, f.rating, f.label, f.is_corrected, r.status, r.n_prompt,
    r.n_generated, r.queue_ms, r.ttft_ms, r.total_ms, r.energy_j
    from decision d left join request r on r.id = d.request_id
    left join feedback f on f.rowid = {_RATED}
    where d.rowid > :after and d.created_ms >= :since order by d.rowid limit :limit"""


def page(
    db: StoreConnection, *, since_ms: int = 0, after: int = 0, limit: int = 1000
) -> list[dict[str, Any]]:
    """Decisions with the cost of their requests and the newest feedback, in order of `at`."""
    return fetch(db, PAGE, {"since": since_ms, "after": after, "limit": limit})
