"""What threatens a daemon, and the tests and harnesses that show what it does then.

`number` is the place in the project's list of threats, the most important ones first.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Threat:
    """`tests` are files below tests/; `harnesses` are names of `HARNESSES`; `open` says what is not shown."""

    number: int
    name: str
    tests: tuple[str, ...] = ()
    harnesses: tuple[str, ...] = ()
    open: str = ""


@dataclass(frozen=True)
class Harness:
    """A script of this folder with the arguments of a short and of a long run. `needs` what a machine may
    lack: "root", "disks" (mkfs.ext4, loop devices), "containers" (mmdebstrap and systemd-nspawn), "proxies"
    (Caddy and nginx), "models"."""

    script: str
    short: tuple[str, ...] = ()
    long: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


STORIES = "../shared/models/stories260K.gguf"

HARNESSES = {
    "gguf_mutants": Harness("gguf_mutants.py", (STORIES,), (STORIES,)),
    "store_kills": Harness("store_kills.py", ("--kills", "20"), ("--kills", "1000")),
    "daemon_kills": Harness("daemon_kills.py", ("--kills", "5"), ("--kills", "500")),
    "knowledge_kills": Harness("knowledge_kills.py", ("--kills", "2"), ("--kills", "20")),
    "power_cuts": Harness("power_cuts.py", ("--cuts", "100"), ("--cuts", "2500")),
    "wal_race": Harness("wal_race.py", ("--seconds", "5"), ("--seconds", "60")),
    "entry_kills": Harness("entry_kills.py", ("--kills", "5"), ("--kills", "100")),
    "audit_cases": Harness("audit_cases.py", ("--cases", "100"), ("--cases", "2000")),
    "schemas": Harness("schemas.py", (STORIES, "--every", "20"), (STORIES,)),
    "closing": Harness("closing.py", ("--schemas", "50"), ("--schemas", "3000")),
    "fuzz_http": Harness("fuzz_http.py", ("--requests", "500"), ("--requests", "50000")),
    "connections": Harness("connections.py", ("--connections", "50", "--seconds", "1"), ()),
    "loop_holds": Harness("loop_holds.py", ("--rounds", "1"), ("--rounds", "3")),
    "openapi": Harness("openapi.py", ("--minutes", "0.5"), ("--minutes", "10")),
    "audio": Harness("audio.py", ("--files", "60"), ("--files", "2000"), ("models",)),
    "speech_jobs": Harness(
        "speech_jobs.py", ("--kills", "2", "--seconds", "120"), ("--kills", "20"), ("models",)
    ),
    "overload": Harness("overload.py", ("--seconds", "10"), ("--seconds", "300")),
    "soak": Harness("soak.py", ("--minutes", "1"), ("--minutes", "60"), ("models",)),
    "upstreams": Harness(
        "upstreams.py", ("--private", "500", "--rounds", "3", "--seconds", "3", "--kills", "1"), ()
    ),
    "disks": Harness("disks.py", ("--faults", "full"), ("--rounds", "5"), ("root", "disks")),
    "worker_reach": Harness("worker_reach.py", needs=("root",)),
    "proxies": Harness("proxies.py", needs=("proxies",)),
    "upgrades": Harness(
        "upgrades.py",
        ("--reloads", "5", "--upgrades", "2"),
        ("--reloads", "200", "--upgrades", "50"),
    ),
    "service": Harness(
        "service.py",
        ("--kills", "1", "--restarts", "1"),
        ("--kills", "10", "--restarts", "50"),
        ("root", "containers"),
    ),
}

THREATS = (
    Threat(
        1,
        "native crash of an engine",
        ("api/test_worker_death.py", "worker/test_breaker.py"),
        open="time to the next first token: scripts/bench recovery",
    ),
    Threat(
        2,
        "hostile grammar or schema",
        ("engine/structured/test_schema_bounds.py", "engine/structured/test_grammar_compiler.py"),
        ("schemas", "closing"),
    ),
    Threat(
        3,
        "malformed GGUF",
        ("catalog/gguf/test_header.py", "catalog/test_mutants_served.py"),
        ("gguf_mutants",),
    ),
    Threat(
        4,
        "acknowledged write lost",
        ("store/test_killed.py", "store/test_power.py"),
        ("store_kills", "daemon_kills", "power_cuts", "speech_jobs", "knowledge_kills"),
    ),
    Threat(
        5,
        "SQLite's WAL-reset fault",
        ("store/test_wal_check.py", "store/test_wal_race.py"),
        ("wal_race",),
    ),
    Threat(6, "open address without keys", ("api/http/test_auth.py", "api/test_keys_served.py")),
    Threat(7, "DNS rebinding", ("api/http/test_host_and_origin.py",)),
    Threat(8, "request of a foreign web page", ("api/http/test_csrf.py",)),
    Threat(9, "headers without end", ("api/http/test_connection.py",), ("connections",)),
    Threat(
        10,
        "slow and unfinished connections",
        (
            "api/http/test_connection.py",
            "api/http/test_connection_limits.py",
            "api/http/test_body_rate.py",
        ),
        ("connections",),
    ),
    Threat(
        11,
        "recording that unpacks to hours",
        ("speech/test_audio.py", "api/openai/test_audio.py", "api/openai/test_realtime.py"),
        ("audio",),
    ),
    Threat(12, "attack on audio decoders", ("speech/test_audio.py",), ("audio",)),
    Threat(
        13,
        "data leaves the device",
        ("daemon/test_offline.py", "cli/shared/test_egress.py", "api/test_upstreams.py"),
        ("upstreams",),
    ),
    Threat(14, "data of another key", ("api/test_owners.py",)),
    Threat(
        15,
        "prefix cache tells of other keys",
        ("api/test_prefixes.py", "api/test_warm_prefixes.py", "engine/batching/test_kv_cache.py"),
    ),
    Threat(
        16,
        "parameters without bounds",
        ("serving/test_json_structure.py", "engine/structured/test_tool_grammar.py"),
        ("loop_holds", "fuzz_http"),
    ),
    Threat(17, "NaN, negative and huge numbers", ("api/test_bad_requests.py",), ("fuzz_http",)),
    Threat(
        18,
        "overload",
        (
            "engine/batching/test_engine.py",
            "engine/batching/test_wait_estimate.py",
            "api/http/test_deadline.py",
            "api/http/test_idempotency.py",
            "api/openai/test_batches.py",
        ),
        ("overload",),
    ),
    Threat(19, "client leaves, generation goes on", ("api/test_disconnect.py",)),
    Threat(
        20,
        "client that reads slowly",
        ("api/http/test_connection_limits.py", "api/http/test_websocket.py"),
        ("connections",),
    ),
    Threat(21, "code in a chat template", ("engine/prompt/test_template_process.py",)),
    Threat(
        22,
        "chat template that computes or fills memory for ever",
        ("engine/prompt/test_template_process.py", "engine/prompt/test_template_check.py"),
    ),
    Threat(23, "poisoned template", ("catalog/test_chat_template.py",)),
    Threat(
        24,
        "path in the name of a model",
        ("catalog/test_model_ids.py", "catalog/install/test_model_reference.py"),
    ),
    Threat(
        25,
        "altered or unsigned model",
        (
            "catalog/test_integrity.py",
            "catalog/bundles/test_signing.py",
            "catalog/bundles/test_minisign.py",
        ),
    ),
    Threat(26, "rollback to an older bundle", ("catalog/bundles/test_installer.py",)),
    Threat(
        27,
        "installation interrupted",
        ("catalog/test_install_killed.py", "catalog/test_bundle_killed.py"),
    ),
    Threat(28, "stolen card", ("store/test_database.py", "store/test_recording_files.py")),
    Threat(29, "key beside the data", ("store/test_store_key.py",)),
    Threat(
        30,
        "residue of deletion",
        (
            "store/test_erasure.py",
            "store/test_residue_scan.py",
            "store/test_erasure_hub.py",
            "store/test_erasure_epochs.py",
            "store/test_relabel.py",
            "daemon/test_erasure_participants.py",
        ),
        ("entry_kills",),
    ),
    Threat(31, "retention at the wrong time", ("store/test_retention.py", "store/test_clock.py")),
    Threat(32, "audit edited or cut", ("store/test_audit.py",), ("audit_cases",)),
    Threat(33, "content in logs", ("api/test_logged.py",)),
    Threat(34, "content in metrics", ("serving/test_metrics.py", "api/http/test_metrics.py")),
    Threat(35, "timing of keys", ("store/test_keys.py", "store/test_key_cache.py")),
    Threat(
        36,
        "secrets in the memory of a worker",
        ("worker/test_confinement.py", "worker/test_seccomp.py", "worker/test_spawn.py"),
        ("worker_reach",),
    ),
    Threat(
        37,
        "injected text calls a tool, or speaks as another role",
        (
            "api/http/test_tool_calls.py",
            "api/test_literal.py",
            "engine/prompt/test_special_token_guard.py",
            "engine/prompt/test_rendered_prompt.py",
        ),
    ),
    Threat(
        38,
        "structured output fails open",
        ("engine/structured/test_structured_decoder.py",),
        ("closing", "schemas"),
    ),
    Threat(
        39,
        "words invented on silence",
        ("speech/test_hallucination_filter.py", "api/wyoming/test_silence.py"),
    ),
    Threat(
        40, "bad JSON", ("api/test_bad_requests.py", "api/test_fuzz.py"), ("fuzz_http", "openapi")
    ),
    Threat(41, "forms of a million parts", ("api/http/test_forms.py",)),
    Threat(42, "rate limit by a forged address", ("api/http/test_key_limits.py",), ("proxies",)),
    Threat(
        43,
        "regular expression without end",
        ("engine/structured/test_schema_bounds.py",),
        ("schemas",),
    ),
    Threat(44, "disk full or gone", ("store/test_disk_full.py",), ("disks",)),
    Threat(
        45,
        "wear of the card",
        ("store/test_writer.py",),
        open="bytes for each turn: scripts/bench turns",
    ),
    Threat(
        46,
        "clock jumps, no clock at all",
        ("store/test_clock.py", "store/test_key_expiry_clock.py"),
    ),
    Threat(47, "growing memory", ("worker/test_heap.py", "pool/test_pool.py"), ("soak",)),
    Threat(48, "out of memory", ("worker/test_enter.py",)),
    Threat(
        49,
        "hang",
        (
            "api/test_worker_death.py",
            "worker/test_heartbeat.py",
            "daemon/test_notify.py",
            "engine/prompt/test_template_process.py",
        ),
        ("service", "upgrades"),
    ),
    Threat(
        50,
        "heat",
        (
            "daemon/test_governor.py",
            "daemon/test_governor_decision.py",
            "device/test_thermal.py",
            "device/test_contention.py",
            "api/http/test_degraded_header.py",
        ),
    ),
    Threat(
        51,
        "corrupt database at the start",
        (
            "store/test_recovery.py",
            "store/test_rollback_detection.py",
            "store/test_client_deletion.py",
        ),
    ),
    Threat(52, "bad backup", ("store/test_backup.py", "store/test_restore_killed.py")),
    Threat(53, "shell in the way of a recording", ("speech/test_audio.py",), ("audio",)),
    Threat(54, "forged lines in logs", ("worker/test_log_format.py",)),
    Threat(55, "known-bad dependency", ("cli/shared/test_outdated_libraries.py",)),
)
