"""`[knowledge]`: documents, vector stores and the answers from them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgeagent.settings.settings_table import SettingsTable


class KnowledgeSettings(SettingsTable):
    max_file_bytes: int = Field(
        default=16 << 20, ge=1024, le=128 << 20, description="size limit of a document"
    )
    max_files: int = Field(
        default=20_000, ge=1, le=1_000_000, description="documents of one owner, and in one store"
    )
    max_owner_bytes: int = Field(
        default=1 << 30, ge=1024, le=1 << 40, description="bytes in the documents of one owner"
    )
    max_stores: int = Field(default=200, ge=1, le=10_000, description="vector stores of one owner")
    max_chunks: int = Field(
        default=50_000, ge=1, le=1_000_000, description="chunks of one document"
    )
    chunk_tokens: int = Field(
        default=200,
        ge=50,
        le=4096,
        description="largest chunk, in estimated tokens; embedding models read 256 and more of a text",
    )
    overlap_tokens: int = Field(
        default=40, ge=0, le=2048, description="what a chunk repeats of the one before it"
    )
    parse_timeout_s: float = Field(
        default=60.0, ge=1, le=3600, description="time limit for parsing one document"
    )
    embedding_model: str | None = Field(
        default=None,
        description="model of the vectors of new stores; default: the installed embedding model",
    )
    reranks: bool = Field(
        default=True, description="rank the best chunks by an installed cross-encoder"
    )
    least_evidence: float = Field(
        default=0.46,
        ge=0,
        le=1,
        description="evidence below which an answer from documents says that it found nothing, unless a "
        "sentence tells enough; 0: always answer",
    )
    least_sentence_evidence: float = Field(
        default=0.55,
        ge=0,
        le=1,
        description="evidence of a single sentence that is enough where that of its passage is thin",
    )
    sure_evidence: float = Field(
        default=0.61,
        ge=0,
        le=1,
        description="evidence below which quotes from documents are told as uncertain; 0: never",
    )
    judge_model: str = Field(
        default="edge-judge",
        max_length=200,
        description="rank model that tells whether passages answer a question, used where it is installed; "
        "empty: none",
    )
    least_answerability: float = Field(
        default=0.45,
        ge=0,
        le=1,
        description="what the judge has to say of the best sentence and its passage, on average, else an "
        "answer from documents says that it found nothing; 0: it is not asked",
    )
    sure_answerability: float = Field(
        default=0.8,
        ge=0,
        le=1,
        description="the same for quotes, else they are told as uncertain; 0: never. Without a judge "
        "`sure_evidence` decides",
    )
    on_thin_evidence: Literal["decline", "answer", "router", "human"] = Field(
        default="decline",
        description="where the documents tell nothing: say so; let the model answer; ask "
        "`thin_evidence_model`; or say that a person has to be asked. A request may choose another",
    )
    thin_evidence_model: str = Field(
        default="auto", description='model or route that is asked with "router"'
    )
    human_contact: str = Field(
        default="Please ask a person.",
        max_length=500,
        description='what an answer says at its end with "human": whom to ask, and how',
    )
    verbatim_similarity: float = Field(
        default=0.88,
        ge=0,
        le=1.01,
        description="similarity of a question to a stored one from which on the stored answer is given "
        "unchanged; above 1: never",
    )
