"""Prices usages with LiteLLM's own calculator, from the list in its package; prints the list and what each usage costs.

Every model of the list is priced for the same usages, as far as the list has a price that they need: the plain counts,
each kind of tokens, each length of the context that has a price of its own, each service tier, and units beside tokens.
What LiteLLM refuses to price, or prices at nothing, is left out.
"""

import datetime
import json
import os
import re
import sys

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
from litellm.cost_calculator import default_image_cost_calculator, default_video_cost_calculator
from litellm.litellm_core_utils.llm_cost_calc.tool_call_cost_tracking import StandardBuiltInToolCostTracking
from litellm.litellm_core_utils.llm_cost_calc import utils
from litellm.types.utils import CacheCreationTokenDetails
from litellm.llms.gemini.cost_calculator import cost_per_web_search_request
from litellm.types.utils import CompletionTokensDetailsWrapper, PromptTokensDetailsWrapper, Usage

litellm.suppress_debug_info = True

# A Friday, in an hour of high prices at DeepSeek and in one of low ones.
PEAK = datetime.datetime(2026, 11, 27, 8, 30, tzinfo=datetime.timezone.utc)
OFF_PEAK = PEAK.replace(hour=12)

# By the names of the filter's normal form.
USAGES = {
    "plain": {"input": 1000, "output": 100},
    "output only": {"input": 0, "output": 333},
    "cache read": {"input": 12345, "output": 678, "cache_read": 10000},
    "cache write": {"input": 50000, "output": 999, "cache_read": 20000, "cache_write_5m": 10000},
    "long cache write": {"input": 50000, "output": 9, "cache_write_5m": 10000, "cache_write_1h": 5000},
    "reasoning": {"input": 100, "output": 5000, "reasoning": 4200},
    "audio": {"input": 3000, "output": 500, "input_audio": 1200, "output_audio": 300},
    "image": {"input": 2000, "output": 4000, "input_image": 1500, "output_image": 3900},
}
# What a usage needs of the list: a model without it makes and gets no such tokens.
NEEDS = {"audio": "audio_token", "image": "image_token"}
TIERS = {"batch": "_batches", "flex": "_flex", "priority": "_priority", "fast": "_fast", "ultrafast": "_ultrafast",
         "balanced": "_balanced"}


def theirs(usage: dict, long_writes: str) -> Usage:
    """LiteLLM's form of a usage."""
    writes = usage.get("cache_write_5m", 0), usage.get("cache_write_1h", 0)
    details = {}
    if any(writes):
        details = {
            "cache_creation_tokens": sum(writes),
            "cache_creation_token_details": CacheCreationTokenDetails(
                **{"ephemeral_5m_input_tokens": writes[0], long_writes: writes[1]}
            ),
        }
    return Usage(
        prompt_tokens=usage["input"],
        completion_tokens=usage["output"],
        total_tokens=usage["input"] + usage["output"],
        prompt_tokens_details=PromptTokensDetailsWrapper(
            cached_tokens=usage.get("cache_read"),
            audio_tokens=usage.get("input_audio"),
            image_tokens=usage.get("input_image"),
            **details,
        ),
        completion_tokens_details=CompletionTokensDetailsWrapper(
            reasoning_tokens=usage.get("reasoning"),
            audio_tokens=usage.get("output_audio"),
            image_tokens=usage.get("output_image"),
        ),
    )


def thresholds(entry: dict) -> list[int]:
    """From how many input tokens on prices differ."""
    found = set()
    for name in entry:
        match = re.search(r"_above_(\d+)(k?)_tokens", name)
        if match:
            found.add(int(match[1]) * (1000 if match[2] else 1))
    for tier in entry.get("tiered_pricing") or []:
        found.update(int(start) for start in tier.get("range", [])[:1])
    return sorted(found - {0})


def usages(entry: dict):
    """The usages of an entry: kind, tier and counts."""
    names = [name for name, price in entry.items() if price is not None]
    if not any("token" in name and "cost" in name for name in names) and not entry.get("tiered_pricing"):
        return
    for kind, usage in USAGES.items():
        if kind in NEEDS and not any(NEEDS[kind] in name for name in names):
            continue
        yield kind, "standard", usage
    tiers = [tier for tier, suffix in TIERS.items() if any(name.endswith(suffix) and "token" in name for name in names)]
    for tier in tiers:
        for kind in ("plain", "cache read", "reasoning"):
            yield kind, tier, USAGES[kind]
    if entry.get("off_peak_pricing"):
        yield "cache read off peak", "standard", USAGES["cache read"]
    for place in places(entry):
        yield f"cache read at {place}", "standard", USAGES["cache read"]
    for threshold in thresholds(entry):
        above = {"input": threshold + 1, "output": 4321, "cache_read": threshold // 2, "reasoning": 321}
        for tier in ["standard", *tiers]:
            yield f"at {threshold}", tier, above | {"input": threshold}
            yield f"above {threshold}", tier, above


def places(entry: dict) -> list[str]:
    """Locations with prices of their own, as the filter tells them."""
    named = {
        "regional_processing_uplift_multiplier_eu": "eu",
        "regional_processing_uplift_multiplier_us": "us",
        "fedramp_uplift_multiplier": "gov",
        "regional_endpoint_uplift_multiplier": "europe-west4",
    }
    found = [place for name, place in named.items() if entry.get(name)]
    return found + ["global"] if "europe-west4" in found else found


def priced(name: str, provider: str | None, tier: str, usage: Usage, place: str | None, at: datetime.datetime) -> float:
    utils.current_billing_time = lambda: at
    more = {"service_tier": None if tier in ("standard", "batch") else tier}
    if tier == "batch":
        more["call_type"] = "retrieve_batch"
    if place in ("eu", "us", "gov"):
        more["data_residency"] = "fedramp" if place == "gov" else place
    elif place:
        more["vertex_location"] = place
    return sum(litellm.cost_per_token(model=name, custom_llm_provider=provider, usage_object=usage, **more))


def units(name: str, provider: str, entry: dict):
    """What units cost: kind, units and cost."""
    mode = entry.get("mode")
    if mode == "rerank" and entry.get("input_cost_per_query"):
        cost = litellm.cost_per_token(
            model=name, custom_llm_provider=provider, call_type="rerank", rerank_billed_units={"search_units": 3}
        )
        yield "rerank", {"search_units": "3"}, sum(cost)
    if mode == "audio_speech" and entry.get("input_cost_per_character"):
        cost = litellm.cost_per_token(
            model=name, custom_llm_provider=provider, call_type="speech", prompt_characters=1234
        )
        yield "speech", {"input_characters": "1234"}, sum(cost)
    if mode == "audio_transcription" and (entry.get("input_cost_per_second") or entry.get("output_cost_per_second")):
        cost = litellm.cost_per_token(
            model=name, custom_llm_provider=provider, call_type="transcription", audio_transcription_file_duration=90
        )
        yield "transcription", {"input_audio_seconds": "90"}, sum(cost)
    if mode == "image_generation" and (entry.get("output_cost_per_image") or entry.get("input_cost_per_image") or entry.get("input_cost_per_pixel")):
        parts = name.split("/")
        sizes = [part for part in parts if re.fullmatch(r"\d+-x-\d+", part)]
        words = [part for part in parts if part in ("hd", "standard", "low", "medium", "high", "xhigh", "auto")]
        if len(sizes) <= 1 and len(words) <= 1 and not any(part.endswith("-steps") for part in parts):
            size, quality = (sizes or [None])[0], (words or [None])[0]
            bare = "/".join(part for part in parts if part not in (size, quality))
            cost = default_image_cost_calculator(
                model=bare, custom_llm_provider=provider, quality=quality, n=2, **({"size": size} if size else {})
            )
            variant = ":".join(word for word in (quality, size and size.replace("-x-", "x")) if word)
            yield "images", {"output_images" + (f":{variant}" if variant else ""): "2"}, cost
    if mode == "video_generation" and (entry.get("output_cost_per_second") or entry.get("output_cost_per_video_per_second")):
        cost = default_video_cost_calculator(model=name, duration_seconds=8, custom_llm_provider=provider)
        yield "video", {"output_video_seconds": "8"}, cost
    if mode == "ocr" and entry.get("ocr_cost_per_page"):
        yield "pages", {"pages": "7"}, 7 * entry["ocr_cost_per_page"]
    if entry.get("search_context_cost_per_query"):
        info = litellm.get_model_info(model=name, custom_llm_provider=provider)
        if "gemini" in name:
            usage = Usage(prompt_tokens_details=PromptTokensDetailsWrapper(web_search_requests=3))
            yield "searches", {"web_searches": "3"}, cost_per_web_search_request(usage, info)
        else:
            cost = StandardBuiltInToolCostTracking.get_cost_for_web_search({"search_context_size": "high"}, info)
            unit = "requests" if "perplexity/sonar" in name and "deep" not in name else "web_searches"
            yield "searches", {f"{unit}:high": "1"}, cost


def region(name: str) -> str | None:
    """The location in an entry's name."""
    match = re.match(r"azure/(eu|us)/|bedrock(?:_mantle)?/([a-z]{2}-[a-z-]+-\d)/", name)
    return match and (match[1] or match[2])


def provider_of(name: str, entry: dict) -> str:
    if name.startswith(entry["litellm_provider"] + "/"):
        return entry["litellm_provider"]
    try:
        return litellm.get_llm_provider(model=name)[1]
    except Exception:
        return entry["litellm_provider"]


def cases(name: str, entry: dict) -> list[dict]:
    found, provider = [], provider_of(name, entry)
    long_writes = "ephemeral_12h_input_tokens" if "cache_creation_input_token_cost_above_12hr" in entry else "ephemeral_1h_input_tokens"
    for kind, tier, usage in usages(entry):
        at = OFF_PEAK if kind.endswith("off peak") else PEAK
        place = kind.partition("cache read at ")[2] or None
        try:
            total = priced(name, provider, tier, theirs(usage, long_writes), place, at)
        except Exception:
            continue
        if total > 0:
            told = {"kind": kind, "tier": tier, "usage": usage, "units": {}, "total": total}
            found.append(told | {"location": place or region(name), "at": int(at.timestamp() * 1000)})
    try:
        for kind, quantities, total in units(name, provider, entry):
            if total and total > 0:
                told = {"kind": kind, "tier": "standard", "usage": {}, "units": quantities, "total": total}
                found.append(told | {"location": region(name), "at": int(PEAK.timestamp() * 1000)})
    except Exception:
        pass
    return found


def main() -> None:
    file = os.path.join(os.path.dirname(litellm.__file__), "model_prices_and_context_window_backup.json")
    with open(file) as opened:
        text = opened.read()
    # The calculator resolves aliases itself, so it gets the entries that they lead to.
    entries = {name: entry for name, entry in json.loads(text).items() if name != "sample_spec"}
    models = []
    for name, entry in entries.items():
        while "alias_of" in entry:
            entry = entries.get(entry["alias_of"], {})
        if entry.get("litellm_provider"):
            models.append({"name": name, "provider": entry["litellm_provider"], "cases": cases(name, entry)})
    json.dump({"list": text, "models": models}, sys.stdout)


main()
