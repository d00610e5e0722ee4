"""What `edgeagent models recommend` says for each shipped profile, as a Markdown table."""

from __future__ import annotations

from edgeagent.catalog.catalog_file import load_catalog
from edgeagent.catalog.model_library import shipped_models_dir
from edgeagent.catalog.recommendation import Requirements, select
from edgeagent.cli.models_recommend import rates_of, target_of
from edgeagent.device.profile_files import load_all


def main() -> None:
    entries = load_catalog(shipped_models_dir() / "catalog.toml").entries
    print("| profile | for a model | recommended | context, KV, sequences | weights + KV + rest |"
          " predicted decode, prefill | next best |")  # fmt: skip
    print("|---|---|---|---|---|---|---|")
    for name, profile in sorted(load_all().items()):
        if profile.reference is None:
            continue
        target = target_of(profile, profile.reference, rates_of(profile.reference))
        ranking = select(entries.values(), target, Requirements())
        best, *others = ranking.one_per_model()
        memory = best.memory
        rest = memory.total_bytes - memory.weights_bytes - memory.kv_bytes
        print(
            f"| {name} | {target.budget_bytes / 1e6:,.0f} MB | {best.model_id} {best.quant}"
            f" | {best.n_ctx}, {best.kv_type}, {best.n_seq}"
            f" | {memory.weights_bytes / 1e6:,.0f} + {memory.kv_bytes / 1e6:,.0f}"
            f" + {rest / 1e6:,.0f} = {memory.total_bytes / 1e6:,.0f} MB"
            f" | {best.decode_tokens_per_s:.0f}, {best.prefill_tokens_per_s:.0f} tokens/s"
            f" | {others[0].model_id if others else ''} |"
        )


main()
