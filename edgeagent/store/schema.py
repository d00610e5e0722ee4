"""The database schema as SQL. Published steps are never changed; see `migrations.py`.

Content and metadata are in separate tables, so that each can have its own retention: deleting a row of
`*_content` leaves the main row without content. Every row that a client made names its `owner`, the owner
of the API key that made it. `subject` is the person whom a row is about (a patient, a customer), if the
client named one. Times are UTC in milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator

from edgeagent.store import (
    audio_job_schema,
    batch_schema,
    knowledge_schema,
    route_schema,
    row_deletion,
    warm_prefixes,
)
from edgeagent.store.connection import StoreConnection, complete_statement
from edgeagent.store.sql import scalar

FIRST = """
create table key (
    id text primary key,                -- "key_" and 24 hex digits; shown, logged, audited
    name text not null,
    owner text not null,
    digest blob not null unique,        -- SHA-256 of the secret
    hint text not null,                 -- its last four characters
    scopes text not null,               -- JSON array
    limits text not null,               -- JSON object
    tools text,                         -- JSON array of tool names it may use; null: any
    is_break_glass integer not null default 0,
    created_ms integer not null,
    expires_ms integer,
    revoked_ms integer,
    replaced_by text references key (id)
) strict;

create table conversation (
    id text primary key,
    owner text not null,
    subject text,
    metadata text not null default '{}',
    created_ms integer not null,
    updated_ms integer not null,
    is_held integer not null default 0  -- legal hold: neither retention nor erasure touches it
) strict;
create index conversation_owner on conversation (owner, updated_ms);
create index conversation_subject on conversation (subject) where subject is not null;

create table response (
    id text primary key,
    owner text not null,
    subject text,
    conversation_id text references conversation (id) on delete cascade,
    previous_id text,
    model text not null,
    status text not null,               -- in_progress | completed | incomplete | failed | cancelled
    created_ms integer not null,
    is_held integer not null default 0
) strict;
create index response_owner on response (owner, created_ms);
create index response_subject on response (subject) where subject is not null;
create index response_conversation on response (conversation_id) where conversation_id is not null;

create table response_content (
    response_id text primary key references response (id) on delete cascade,
    body text not null                  -- JSON: the response object without its items
) strict, without rowid;

create table item (
    rowid integer primary key,
    id text not null unique,
    owner text not null,
    conversation_id text references conversation (id) on delete cascade,
    response_id text references response (id) on delete cascade,
    position integer not null,
    kind text not null,                 -- message | function_call | function_call_output | reasoning
    role text,                          -- of a message
    is_input integer not null default 0,
    created_ms integer not null
) strict;
create index item_conversation on item (conversation_id, position) where conversation_id is not null;
create index item_response on item (response_id, position) where response_id is not null;
create index item_owner on item (owner, created_ms);

create table item_content (
    item_rowid integer primary key references item (rowid) on delete cascade,
    body text not null,                 -- JSON of the item's content
    plain text not null default ''      -- its text, for search
) strict;

create table request (
    rowid integer primary key,
    id text not null unique,            -- "req_...", the response's x-request-id
    owner text not null,
    key_id text,
    endpoint text not null,
    model text not null,
    route text not null,                -- why this model
    status integer not null,            -- HTTP status, or that of the final error event
    finish text,                        -- of the first answer
    n_prompt integer not null default 0,
    n_cached integer not null default 0,
    n_generated integer not null default 0,
    queue_ms real,
    ttft_ms real,
    tpot_ms real,
    total_ms real not null,
    energy_j real,
    audio_s real,
    created_ms integer not null
) strict;
create index request_owner on request (owner, created_ms);
create index request_created on request (created_ms);

create table transcript (
    id text primary key,
    owner text not null,
    subject text,
    model text not null,
    language text,
    audio_s real not null,
    audio_digest text,                  -- SHA-256 of what was sent
    created_ms integer not null,
    is_held integer not null default 0
) strict;
create index transcript_owner on transcript (owner, created_ms);
create index transcript_subject on transcript (subject) where subject is not null;

create table segment (
    rowid integer primary key,
    transcript_id text not null references transcript (id) on delete cascade,
    position integer not null,
    start_s real not null,
    end_s real not null,
    confidence real,
    unique (transcript_id, position)
) strict;

create table segment_content (
    segment_rowid integer primary key references segment (rowid) on delete cascade,
    body text not null,                 -- JSON: words, alternatives
    plain text not null
) strict;

create table feedback (
    rowid integer primary key,
    owner text not null,
    target_id text not null,            -- a request, response, item or transcript
    rating integer not null,            -- -1, 0, 1
    created_ms integer not null
) strict;
create index feedback_owner on feedback (owner, created_ms);

create table feedback_content (
    feedback_rowid integer primary key references feedback (rowid) on delete cascade,
    body text not null
) strict;

create table measurement (
    fingerprint text primary key,
    body text not null,
    created_ms integer not null
) strict, without rowid;

create table audit (
    seq integer primary key,            -- 1, 2, 3, ... without a gap
    utc_ms integer not null,
    boot_id text not null,
    actor text not null,                -- a key id, "local", "cli:USER", "system"
    action text not null,
    object text not null,
    digest text,                        -- SHA-256 of the object where it has content
    mac blob not null                   -- HMAC over this row and the mac before it
) strict;

create table checkpoint (
    name text primary key,              -- what must be remembered between starts: sweeper, clock
    body text not null
) strict, without rowid;

-- Search over content; rows are there only while the setting `search` allows. Tokens are content.
create virtual table item_fts using fts5 (
    plain, content = '', contentless_delete = 1, tokenize = 'unicode61'
);
create virtual table segment_fts using fts5 (
    plain, content = '', contentless_delete = 1, tokenize = 'unicode61'
);
create trigger item_content_gone after delete on item_content begin
    delete from item_fts where rowid = old.item_rowid;
end;
create trigger segment_content_gone after delete on segment_content begin
    delete from segment_fts where rowid = old.segment_rowid;
end;
"""

# `thread` names what belongs together: a conversation, or the first response of a chain. A row of
# `prefix` is a piece of what a model has computed of a thread: the tokens from `first` on, whose state
# lies encrypted in a file of the row's name. Whatever of a thread is deleted, by whatever way, takes
# its prefixes along; a file without its row, which has the key, is noise.
SECOND = """
alter table response add column thread text;
update response set thread = coalesce(conversation_id, id);
create index response_thread on response (thread);

create table prefix (
    id text primary key,
    owner text not null,
    scope text not null,                -- the API key whose requests may share it
    thread text not null,
    response_id text not null references response (id) on delete cascade,
    fits text not null,                 -- digest of model file, context and llama.cpp
    base_id text,                       -- the piece before it, of which it follows `first` tokens
    first integer not null,
    tokens blob not null,               -- int32, little-endian
    key blob not null,                  -- of the file
    n_bytes integer not null,           -- of the file
    used_ms integer not null
) strict;
create index prefix_thread on prefix (thread);
create index prefix_response on prefix (response_id);

create trigger response_gone after delete on response begin
    delete from prefix where thread = old.thread;
end;
create trigger item_gone after delete on item begin
    delete from prefix where thread = old.conversation_id
        or thread = (select thread from response where id = old.response_id);
end;
create trigger item_content_purged after delete on item_content begin
    delete from prefix where thread in (
        select conversation_id from item where rowid = old.item_rowid
        union select thread from response where id =
            (select response_id from item where rowid = old.item_rowid));
end;
"""

# A comment says something of its target, and goes with it: feedback with the row it is about, and a
# comment with the content. Of a request, which has no content, the rating stays for its own time.
# `subject` becomes what the metadata says, also where it was set after the row was made.
THIRD = """
create table erasure (
    n integer primary key autoincrement,
    owner text,                         -- keyed pseudonyms; null: whoever it is
    subject text,
    conversation text,
    began_ms integer not null
) strict;

create index feedback_target on feedback (target_id);
create trigger feedback_of_response after delete on response begin
    delete from feedback where target_id = old.id;
end;
create trigger feedback_of_item after delete on item begin
    delete from feedback where target_id = old.id;
end;
create trigger feedback_of_transcript after delete on transcript begin
    delete from feedback where target_id = old.id;
end;
create trigger feedback_of_conversation after delete on conversation begin
    delete from feedback where target_id = old.id;
end;
create trigger comment_of_request after delete on request begin
    delete from feedback_content where feedback_rowid in
        (select rowid from feedback where target_id = old.id);
end;
create trigger comment_of_response_content after delete on response_content begin
    delete from feedback_content where feedback_rowid in
        (select rowid from feedback where target_id = old.response_id);
end;
create trigger comment_of_item_content after delete on item_content begin
    delete from feedback_content where feedback_rowid in
        (select f.rowid from feedback f join item i on i.id = f.target_id
            where i.rowid = old.item_rowid);
end;

delete from feedback where target_id not like 'req@_%' escape '@'
    and not exists (select 1 from response where id = target_id)
    and not exists (select 1 from item where id = target_id)
    and not exists (select 1 from transcript where id = target_id)
    and not exists (select 1 from conversation where id = target_id)
    and not exists (select 1 from request where id = target_id);
delete from feedback_content where feedback_rowid in (select rowid from feedback f
    where not exists (select 1 from response where id = f.target_id)
    and not exists (select 1 from item where id = f.target_id)
    and not exists (select 1 from transcript where id = f.target_id)
    and not exists (select 1 from conversation where id = f.target_id)
    and not exists (select 1 from request where id = f.target_id));

update conversation set subject = nullif(json_extract(metadata, '$.subject'), '')
    where json_valid(metadata) and json_extract(metadata, '$.subject') is not null
    and subject is not nullif(json_extract(metadata, '$.subject'), '');
update response set subject =
    (select nullif(json_extract(body, '$.metadata.subject'), '') from response_content
        where response_id = response.id)
    where conversation_id is null and substr(id, 1, 9) = 'chatcmpl-' and exists
    (select 1 from response_content where response_id = response.id and json_valid(body));
update response set subject = coalesce(
    (select nullif(json_extract(body, '$.metadata.subject'), '') from response_content
        where response_id = response.id and json_valid(body)),
    (select subject from conversation where id = response.conversation_id))
    where conversation_id is not null;
"""


def first(db: StoreConnection) -> None:
    """Make all tables."""
    _run(db, FIRST)


def second(db: StoreConnection) -> None:
    """Threads of responses, and what models have computed of them."""
    _run(db, SECOND)


def third(db: StoreConnection) -> None:
    """Numbers of erasures, feedback that goes with its target, subjects as the metadata has them."""
    is_any = scalar(db, "select 1 from feedback limit 1") is not None
    _run(db, THIRD)
    if is_any:  # what the step deletes is cleaned up by the next sweep
        row_deletion.mark(db)


def fourth(db: StoreConnection) -> None:
    """Transcription jobs and their recordings."""
    _run(db, audio_job_schema.TABLES)


def fifth(db: StoreConnection) -> None:
    """Batches and their files."""
    _run(db, batch_schema.TABLES)


def sixth(db: StoreConnection) -> None:
    """Subjects and conversations of the requests in batches."""
    _run(db, batch_schema.ORIGINS)


def seventh(db: StoreConnection) -> None:
    """Legal holds of the requests in batches."""
    _run(db, batch_schema.HOLDS)


def eighth(db: StoreConnection) -> None:
    """The route that a request named in place of a model, and the rule that matched it."""
    _run(db, route_schema.COLUMNS)


def ninth(db: StoreConnection) -> None:
    """Decisions of routes, corrections and labels of answers."""
    _run(db, route_schema.DECISIONS)


def tenth(db: StoreConnection) -> None:
    """Documents, vector stores and their chunks."""
    _run(db, knowledge_schema.TABLES)


def eleventh(db: StoreConnection) -> None:
    """What models have computed of system prompts and tools."""
    _run(db, warm_prefixes.TABLES)


def _run(db: StoreConnection, script: str) -> None:
    """Statement by statement: a script would end the transaction."""
    for statement in _statements(script):
        db.execute(statement)


def _statements(script: str) -> Iterator[str]:
    gathered = ""
    for line in script.splitlines(keepends=True):
        gathered += line
        if complete_statement(gathered):
            yield gathered
            gathered = ""
    assert not gathered.strip(), "the script ends with a whole statement"
