"""The tables of knowledge bases (store/documents.py, store/vector_stores.py, store/chunks.py).

A document is a file as it was sent, in parts. A vector store takes documents: a row of `vector_store_file`
for each, and its chunks. All tables of chunks go with the row of their document in the store.
"""

from __future__ import annotations

TABLES = """
create table document (
    id text primary key,                -- "file-..."
    owner text not null,
    name text not null,
    purpose text not null,              -- assistants | user_data
    digest text not null,               -- SHA-256 of its content
    n_bytes integer not null,
    is_complete integer not null default 0,
    created_ms integer not null,
    is_held integer not null default 0
) strict;
create index document_owner on document (owner, created_ms);

create table document_part (
    document_id text not null references document (id) on delete cascade,
    position integer not null,
    body blob not null
) strict;
create unique index document_part_place on document_part (document_id, position);

create table vector_store (
    n integer primary key autoincrement,
    id text not null unique,            -- "vs_..."
    owner text not null,
    subject text,
    name text not null,
    description text,
    metadata text not null default '{}',
    model text,                         -- of its vectors; null before the first
    expires_days integer,               -- after its last use; null: never
    is_deleting integer not null default 0,
    created_ms integer not null,
    used_ms integer not null,
    is_held integer not null default 0
) strict;
create index vector_store_owner on vector_store (owner, created_ms);
create index vector_store_subject on vector_store (subject) where subject is not null;

create table vector_store_file (
    n integer primary key autoincrement,
    id text not null unique,            -- "vsf_..."
    owner text not null,
    store_n integer not null references vector_store (n) on delete cascade,
    document_id text not null references document (id) on delete cascade,
    batch_id text,                      -- "vsfb_..." where it came with others
    status text not null,               -- in_progress | completed | failed | cancelled
    is_parsed integer not null default 0,
    is_embedded integer not null default 0,
    error text,                         -- JSON: code, message
    attributes text not null default '{}',
    max_tokens integer not null,        -- sizes of its chunks
    overlap_tokens integer not null,
    n_chunks integer not null default 0,
    n_bytes integer not null default 0, -- of the text of its chunks
    created_ms integer not null
) strict;
create unique index vector_store_file_place on vector_store_file (store_n, document_id);
create index vector_store_file_document on vector_store_file (document_id);
create index vector_store_file_open on vector_store_file (n) where status = 'in_progress';
create index vector_store_file_wordy on vector_store_file (n)
    where status = 'completed' and not is_embedded;

create table chunk (
    rowid integer primary key autoincrement,
    file_n integer not null references vector_store_file (n) on delete cascade,
    position integer not null,
    page integer,
    headings text not null,
    body text not null,                 -- a question where there is an answer
    answer text,
    question_key text                   -- the question without case and marks, for exact matches
) strict;
create index chunk_place on chunk (file_n, position);
create index chunk_question on chunk (question_key, file_n) where question_key is not null;

-- A vector as signs, which are read for each search, and as int8, read for the nearest.
create table chunk_bits (
    store_n integer not null,
    chunk integer not null references chunk (rowid) on delete cascade,
    file_n integer not null,
    bits blob not null,
    primary key (store_n, chunk)
) strict, without rowid;
create index chunk_bits_chunk on chunk_bits (chunk);
create table chunk_vector (
    chunk integer primary key references chunk (rowid) on delete cascade,
    vector blob not null
) strict;

-- `scope` is the number of the vector store: a search reads the words of its stores only.
create virtual table chunk_fts using fts5 (
    scope, plain, content = '', contentless_delete = 1, tokenize = "porter unicode61 remove_diacritics 2"
);
create trigger chunk_gone after delete on chunk begin
    delete from chunk_fts where rowid = old.rowid;
end;
"""
