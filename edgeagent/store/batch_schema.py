"""The tables of batches (store/batches.py).

Files are kept by line: an answer is stored with its count in one transaction, and a large file is never
rewritten. Files of answers belong to their batch, but may be deleted before it.
"""

from __future__ import annotations

TABLES = """
create table batch_file (
    id text primary key,
    owner text not null,
    name text not null,
    purpose text not null,              -- batch | batch_output
    n_bytes integer not null,
    created_ms integer not null
) strict;
create index batch_file_owner on batch_file (owner, created_ms);

create table batch_line (
    file_id text not null references batch_file (id) on delete cascade,
    position integer not null,          -- of the request in the input
    body text not null
) strict;
create unique index batch_line_place on batch_line (file_id, position);

create table batch (
    id text primary key,
    owner text not null,
    key_id text not null,               -- the API key under whose limits it is done
    endpoint text not null,
    window text not null,
    status text not null,               -- see store/batches.py
    input_file_id text not null,
    output_file_id text not null,
    error_file_id text not null,
    metadata text not null default '{}',
    errors text,                        -- JSON: why the input was refused
    n_total integer not null default 0,
    n_completed integer not null default 0,
    n_failed integer not null default 0,
    created_ms integer not null,
    expires_ms integer not null,
    in_progress_ms integer,
    finalizing_ms integer,
    completed_ms integer,
    failed_ms integer,
    expired_ms integer,
    cancelling_ms integer,
    cancelled_ms integer
) strict;
create index batch_owner on batch (owner, created_ms);
create index batch_status on batch (status);
"""

# Whom a request names in its `metadata`, and its conversation. Lines may be no JSON at all.
SUBJECT = """case when json_valid({body}) then
    nullif(json_extract({body}, '$.body.metadata.subject'), '') end"""
CONVERSATION = """case when json_valid({body}) then coalesce(
    json_extract({body}, '$.body.conversation.id'), json_extract({body}, '$.body.conversation')) end"""

ORIGINS = f"""
alter table batch_line add column subject text;       -- an answer has those of its request
alter table batch_line add column conversation text;
alter table batch add column subject text;            -- of its metadata
update batch_line set subject = {SUBJECT.format(body="body")},
    conversation = {CONVERSATION.format(body="body")}
    where file_id in (select id from batch_file where purpose = 'batch');
update batch_line set (subject, conversation) = (
    select i.subject, i.conversation from batch b join batch_line i on i.file_id = b.input_file_id
    where batch_line.file_id in (b.output_file_id, b.error_file_id) and i.position = batch_line.position)
    where file_id in (select id from batch_file where purpose != 'batch');
update batch set subject = nullif(json_extract(metadata, '$.subject'), '');
create index batch_line_subject on batch_line (subject) where subject is not null;
create index batch_line_conversation on batch_line (conversation) where conversation is not null;
create trigger batch_line_gone after delete on batch_line begin
    update batch_file set n_bytes = max(0, n_bytes - octet_length(old.body) - 1) where id = old.file_id;
end;
"""

HOLDS = """
alter table batch_line add column is_held integer not null default 0;   -- an answer as its request
create index batch_line_held on batch_line (file_id) where is_held;
"""
