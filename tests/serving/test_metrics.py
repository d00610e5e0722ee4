"""The metrics as Prometheus reads them, and the dashboard that shows them."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edgeagent.device.energy import EnergyReading
from edgeagent.serving.gauges import PREFIX, DeviceGauges, Gauges, ModelGauges, UpstreamGauges
from edgeagent.serving.metrics import Metrics, RequestCounts
from edgeagent.types.histogram import TOKEN_GAP_BOUNDS_S, Histogram

ROOT = Path(__file__).resolve().parents[2]
MONITORING = ROOT / "systemd" / "monitoring"

MODEL = ModelGauges(
    model_id="a", is_loaded=True, n_running=2, n_waiting=1, rss_bytes=1000, kv_used=0.25,
    n_preempted=3, token_gaps=Histogram((1,) * (len(TOKEN_GAP_BOUNDS_S) + 1), 7.5), n_loads=2,
    n_deaths=1, unloads={"memory": 1}, n_threads=2, n_drafted=9, n_accepted=7,
)  # fmt: skip
GAUGES = Gauges(
    version="1.2.3",
    models=(MODEL,),
    memory_budget_bytes=5000,
    device=DeviceGauges(
        {"zone0:cpu": 61.5}, frozenset({"throttled"}), ("throttled",), False,
        EnergyReading(7.5, {"ina": 4.5}),
    ),
    store_bytes={"database": 4096},
    degraded=frozenset({"heat"}),
    upstreams=(UpstreamGauges("basement", 2, True, {"answered": 7, "silent": 1}),),
)  # fmt: skip
ANSWER = RequestCounts(
    model="a", route="named", status=200, finish="stop,length", n_prompt=10, n_cached=4,
    n_generated=3, queue_s=0.01, ttft_s=0.2, tpot_s=0.03, total_s=0.5, audio_s=None,
    route_name="auto", rule="long",
)  # fmt: skip
TRANSCRIPT = RequestCounts(
    model="w", route="default", status=200, finish=None, n_prompt=0, n_cached=0, n_generated=0,
    queue_s=None, ttft_s=0.1, tpot_s=None, total_s=2.0, audio_s=10.0,
)  # fmt: skip
FAILURE = RequestCounts(
    model="a", route="named", status=503, finish="error", n_prompt=0, n_cached=0, n_generated=0,
    queue_s=None, ttft_s=None, tpot_s=None, total_s=0.1, audio_s=None,
)  # fmt: skip

LISTENED = RequestCounts(
    model="l", route="default", status=200, finish="live", n_prompt=0, n_cached=0, n_generated=0,
    queue_s=None, ttft_s=None, tpot_s=None, total_s=3600.0, audio_s=3000.0,
)  # fmt: skip


JOB = dataclasses.replace(LISTENED, model="j", finish="job", total_s=900.0)


def samples(text: bytes) -> dict[str, float]:
    """Each sample by its name and labels, as they are written."""
    found = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


@pytest.fixture
def text() -> bytes:
    metrics = Metrics()
    for request in (ANSWER, TRANSCRIPT, FAILURE, LISTENED, JOB):
        metrics.end_request(request)
    metrics.refuse("queue_full", is_temporary=True)
    metrics.refuse("invalid_parameter", is_temporary=False)
    return metrics.text(GAUGES)


def test_counts_and_times_of_requests_are_shown(text: bytes):
    shown = samples(text)
    by_route = "model_name=a,route=named"
    assert shown[f"edgeagent:e2e_request_latency_seconds_count{{{by_route}}}"] == 2
    assert shown[f"edgeagent:time_to_first_token_seconds_sum{{{by_route}}}"] == 0.2
    assert shown[f"edgeagent:request_queue_time_seconds_count{{{by_route}}}"] == 1
    assert shown["edgeagent:prefix_cache_queries_total{model_name=a}"] == 10
    assert shown["edgeagent:prefix_cache_hits_total{model_name=a}"] == 4
    assert shown["edgeagent:generation_tokens_total{model_name=a}"] == 3
    assert shown["edgeagent:request_success_total{finished_reason=stop,model_name=a}"] == 1
    assert shown["edgeagent:request_failure_total{model_name=a,status=503}"] == 1
    assert shown["edgeagent:requests_rejected_total{reason=queue_full}"] == 1
    assert shown["edgeagent:request_errors_total{code=invalid_parameter}"] == 1


def test_transcripts_have_a_real_time_factor(text: bytes):
    shown = samples(text)
    assert shown["edgeagent:speech_audio_seconds_total{model_name=w}"] == 10
    assert shown["edgeagent:speech_real_time_factor_sum{model_name=w}"] == 0.2
    assert not any("real_time" in name and "model_name=a" in name for name in shown)


@pytest.mark.parametrize(("model", "finish"), [("l", "live"), ("j", "job")])
def test_the_length_of_live_transcriptions_and_jobs_is_no_latency(
    text: bytes, model: str, finish: str
):
    shown = samples(text)
    name = f"model_name={model}"
    assert shown[f"edgeagent:speech_audio_seconds_total{{{name}}}"] == 3000
    assert shown[f"edgeagent:request_success_total{{finished_reason={finish},{name}}}"] == 1
    assert not any("latency" in found and name in found for found in shown)
    assert not any("real_time" in found and name in found for found in shown)


def test_the_state_of_models_device_and_store_is_shown(text: bytes):
    shown = samples(text)
    assert shown["edgeagent:num_requests_running{model_name=a}"] == 2
    assert shown["edgeagent:num_requests_waiting{model_name=a}"] == 1
    assert shown["edgeagent:kv_cache_usage_perc{model_name=a}"] == 0.25
    assert shown["edgeagent:spec_decode_num_draft_tokens_total{model_name=a}"] == 9
    assert shown["edgeagent:spec_decode_num_accepted_tokens_total{model_name=a}"] == 7
    assert shown["edgeagent:model_unloads_total{model_name=a,reason=memory}"] == 1
    assert shown["edgeagent:worker_deaths_total{model_name=a}"] == 1
    assert shown["edgeagent:device_temperature_celsius{zone=zone0:cpu}"] == 61.5
    assert shown["edgeagent:device_throttled{cause=throttled}"] == 1
    assert shown["edgeagent:threads{model_name=a}"] == 2
    assert shown["edgeagent:device_energy_joules_total"] == 7.5
    assert shown["edgeagent:device_power_watts{source=ina}"] == 4.5
    assert shown["edgeagent:degraded{reason=heat}"] == 1
    assert shown["edgeagent:degraded{reason=contention}"] == 0
    assert shown["edgeagent:store_size_bytes{file=database}"] == 4096
    assert shown["edgeagent:build_info{version=1.2.3}"] == 1
    assert shown["edgeagent:upstream_requests_running{upstream=basement}"] == 2
    assert shown["edgeagent:upstream_open{upstream=basement}"] == 1
    assert shown["edgeagent:upstream_requests_total{outcome=silent,upstream=basement}"] == 1
    assert shown["process_resident_memory_bytes"] > 0


def test_gaps_of_workers_become_cumulative_buckets(text: bytes):
    shown = samples(text)
    n = len(TOKEN_GAP_BOUNDS_S)
    name = "edgeagent:inter_token_latency_seconds"
    assert shown[f"{name}_bucket{{le=0.005,model_name=a}}"] == 1
    assert shown[f"{name}_bucket{{le=10.0,model_name=a}}"] == n
    assert shown[f"{name}_bucket{{le=+Inf,model_name=a}}"] == n + 1
    assert shown[f"{name}_count{{model_name=a}}"] == n + 1
    assert shown[f"{name}_sum{{model_name=a}}"] == 7.5


def test_histograms_add_up_also_before_the_first_value():
    one, none = Histogram((1, 2), 3.0), Histogram()
    assert one.plus(one) == Histogram((2, 4), 6.0)
    assert one.plus(none) == none.plus(one) == one


def test_the_dashboard_shows_metrics_that_there_are_and_all_of_them(text: bytes):
    dashboard = json.loads((MONITORING / "grafana-dashboard.json").read_text(encoding="utf-8"))
    asked = " ".join(t["expr"] for panel in dashboard["panels"] for t in panel["targets"])
    used = set(re.findall(r"edgeagent:[a-z0-9_]+", asked))
    shown = {name.partition("{")[0] for name in samples(text)}
    assert used <= shown
    families = {family.name for family in text_string_to_metric_families(text.decode())}
    ours = {name for name in families if name.startswith(PREFIX)}
    missing = {name for name in ours if not any(other.startswith(name) for other in used)}
    assert not missing


def test_labels_in_the_dashboard_are_labels_of_their_metrics(text: bytes):
    dashboard = json.loads((MONITORING / "grafana-dashboard.json").read_text(encoding="utf-8"))
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            names = re.findall(r"edgeagent:[a-z0-9_]+|process_[a-z_]+", target["expr"])
            legend = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert all(legend <= labels[name] for name in names), target["expr"]
