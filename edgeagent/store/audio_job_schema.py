"""The tables of transcription jobs and of their recordings (store/audio_jobs.py)."""

from __future__ import annotations

# A job belongs to its transcript, which exists from the start and gets its segments window by window:
# hold, retention and erasure of the transcript cover the job. `recording` has the key of the sealed file
# of its audio; without the row nobody can read the file, and a job that still needs it has failed.
TABLES = """
create table audio_job (
    id text primary key,
    transcript_id text not null unique references transcript (id) on delete cascade,
    owner text not null,
    key_id text not null,               -- the API key whose audio seconds it uses
    name text,
    metadata text not null default '{}',
    options text not null,              -- JSON: how it is transcribed and shown
    status text not null,               -- uploading | queued | running | completed | failed | cancelled
    n_bytes integer not null,           -- of the recording, as announced
    audio_s real,                       -- null until the recording was decoded once
    until_s real not null default 0,    -- everything before it is transcribed
    checkpoint text,                    -- JSON: what the next window needs; null once the job has ended
    error text,                         -- JSON: code and message
    created_ms integer not null,
    updated_ms integer not null
) strict;
create index audio_job_owner on audio_job (owner, created_ms);
create index audio_job_status on audio_job (status);

create table recording (
    id text primary key references audio_job (id) on delete cascade,
    owner text not null,
    key blob not null,
    n_received integer not null default 0,  -- bytes of audio
    n_records integer not null default 0,
    file_bytes integer not null default 0,
    created_ms integer not null
) strict;

create trigger recording_gone after delete on recording begin
    update audio_job set status = 'failed', checkpoint = null, error = json_object(
        'code', 'recording_deleted',
        'message', 'The recording was deleted before it was transcribed: send it again.')
    where id = old.id and status in ('uploading', 'queued', 'running');
end;
"""
