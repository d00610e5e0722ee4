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
