"""What the request log knows of routes (serving/routes.py)."""

from __future__ import annotations

COLUMNS = """
alter table request add column route_name text;  -- sent in place of a model; null: a model or none
alter table request add column rule text;        -- the rule that matched
"""

# What a route chose, with the features of the text (routing/feature_record.py). Feedback says more than a
# rating, and a request what it cost. The text is the last of the user: of a turn without one of its own (the
# result of a tool; a turn that is not stored itself), any before it in its conversation or its chain. The
# features of such a turn go with each of those.
DECISIONS = """
create table decision (
    rowid integer primary key,
    request_id text not null unique,
    owner text not null,
    subject text,
    response_id text,                   -- of the stored answer
    conversation_id text,
    route text not null,
    domain text,
    reason text not null,
    chosen text not null,               -- by the route
    answered text not null,             -- the model that answered in the end
    default_model text not null,        -- for texts that a policy does not know
    propensity real,                    -- of the chosen model; null: nothing was open
    chances text,                       -- JSON: of each candidate
    features blob,                      -- hashed words and shape of the text; null: not kept
    created_ms integer not null
) strict;
create index decision_owner on decision (owner, created_ms);
create index decision_created on decision (created_ms);
create index decision_subject on decision (subject) where subject is not null;
create index decision_response on decision (response_id) where response_id is not null;
create index decision_conversation on decision (conversation_id) where conversation_id is not null;

create trigger decision_of_request after delete on request begin
    delete from decision where request_id = old.id;
end;
create trigger decision_of_response after delete on response begin
    delete from decision where response_id = old.id;
    update decision set features = null where features is not null and response_id in
        (select id from response where thread = old.thread and not exists
            (select 1 from item where response_id = response.id and role = 'user'));
end;
create trigger decision_of_response_content after delete on response_content begin
    update decision set features = null where features is not null and (response_id = old.response_id
        or response_id in (select id from response where not exists
            (select 1 from item where response_id = response.id and role = 'user')
            and thread = (select thread from response where id = old.response_id)));
end;
create trigger decision_of_item after delete on item begin
    update decision set features = null where features is not null and (response_id = old.response_id
        or conversation_id = iif(old.role = 'user', old.conversation_id, null) and not exists
            (select 1 from item where response_id = decision.response_id and role = 'user'));
end;
create trigger decision_of_item_content after delete on item_content begin
    update decision set features = null where features is not null and (
        response_id = (select response_id from item where rowid = old.item_rowid)
        or conversation_id =
            (select conversation_id from item where rowid = old.item_rowid and role = 'user')
            and not exists
            (select 1 from item where response_id = decision.response_id and role = 'user'));
end;
create trigger decision_of_conversation after delete on conversation begin
    delete from decision where conversation_id = old.id;
end;

alter table feedback add column label text;            -- right | partly | wrong
alter table feedback add column is_corrected integer not null default 0;  -- a better answer was given
alter table feedback_content add column correction text;
"""
