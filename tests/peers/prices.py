"""Prices usage blocks with genai-prices; prints its price list and what each block costs, as one JSON object.

The list has the form of the project's own data.json, every model of every provider. The blocks are the same in each
run: fixed ones and, seeded by the model's name, some of any size.
"""

import datetime
import json
import random
import re
import sys
import zlib
from decimal import Decimal

from genai_prices import types
from genai_prices.data import providers
from genai_prices.units import _get_registry

TOKEN_KEYS = [key for key in _get_registry().units if key.endswith("_tokens")]
NOW = datetime.datetime(2026, 11, 23, 12, tzinfo=datetime.timezone.utc)
CONTEXTS = {
    "standard": None,
    "batch": {"processing": "batch"},
    "flex": {"service_tier": "flex"},
    "priority": {"service_tier": "priority"},
}
# The names of the filter's normal form.
BLOCKS = [
    {"input": 1000, "output": 100},
    {"input": 1, "output": 1},
    {"input": 0, "output": 0},
    {"output": 333},
    {"input": 7, "output": 0},
    {"input": 12345, "output": 678, "cache_read": 10000},
    {"input": 50000, "output": 999, "cache_read": 20000, "cache_write_5m": 10000, "cache_write_1h": 5000},
    {"input": 50000, "output": 1, "cache_write_5m": 50000},
    {"input": 200000, "output": 10, "cache_read": 150000},
    {"input": 200001, "output": 10, "cache_read": 150000, "cache_write_5m": 30000, "cache_write_1h": 20001},
    {"input": 272001, "output": 4321, "cache_read": 1},
    {"input": 999999, "output": 65535, "cache_read": 123456, "reasoning": 60000},
    {"input": 3000, "output": 500, "input_audio": 1200, "output_audio": 300},
    {"input": 3000, "output": 500, "cache_read": 2000, "input_audio": 1500, "cache_read_audio": 700},
    {"input": 100, "output": 5000, "reasoning": 4200},
    {"input": 2000, "output": 4000, "input_image": 1500, "output_image": 3900},
]
# Blocks for models that have such a price: without one the two charge cached images and video as different kinds.
PRICED_BLOCKS = {
    "cache_image_read_mtok": {"input": 3000, "output": 10, "cache_read": 2000, "input_image": 1500, "cache_read_image": 700},
    "input_video_mtok": {"input": 2000, "output": 10, "input_image": 1500, "input_video": 1500},
    "output_video_mtok": {"input": 20, "output": 4000, "output_image": 3900, "output_video": 3900},
}
THEIRS = {
    "input": "input_tokens",
    "output": "output_tokens",
    "cache_read": "cache_read_tokens",
    "cache_write_5m": "cache_write_5m_tokens",
    "cache_write_1h": "cache_write_1h_tokens",
    "input_audio": "input_audio_tokens",
    "cache_read_audio": "cache_audio_read_tokens",
    "input_image": "input_image_tokens",
    "cache_read_image": "cache_image_read_tokens",
    "input_video": "input_video_tokens",
    "reasoning": "output_reasoning_tokens",
    "output_audio": "output_audio_tokens",
    "output_image": "output_image_tokens",
    "output_video": "output_video_tokens",
}
# These are part of two kinds, or of a part.
INNER = ("cache_read_audio", "cache_read_image", "input_video", "output_video")


def any_block(seed: str) -> dict:
    """A block of every kind, whose parts fit into their wholes."""
    dice = random.Random(zlib.crc32(seed.encode()))
    size = 10 ** dice.randint(1, 6)
    block = {key: dice.randrange(size) for key in THEIRS if key not in ("input", "output", *INNER)}
    block["cache_read_audio"] = dice.randrange(min(block["cache_read"], block["input_audio"]) + 1)
    block["input"] = dice.randrange(size) + sum(
        block[key] for key in ("cache_read", "cache_write_5m", "cache_write_1h", "input_audio", "input_image")
    )
    block["output"] = dice.randrange(size) + sum(block[key] for key in ("reasoning", "output_audio", "output_image"))
    return block


def usage(block: dict) -> types.Usage:
    """Their form of a block; a zero says that there were none, of cached images for example."""
    counts = dict.fromkeys(TOKEN_KEYS, 0) | {THEIRS[key]: count for key, count in block.items()}
    # Their images are without video.
    for way in ("input", "output"):
        counts[f"{way}_image_tokens"] -= counts[f"{way}_video_tokens"]
    counts["cache_write_tokens"] = counts["cache_write_5m_tokens"] + counts["cache_write_1h_tokens"]
    return types.Usage(**counts)


def names(match) -> list[str]:
    """Names that a clause matches."""
    match match:
        case types.ClauseEquals():
            return [match.equals]
        case types.ClauseStartsWith():
            return [match.starts_with, match.starts_with + "-2099-01-01"]
        case types.ClauseEndsWith():
            return ["x-" + match.ends_with]
        case types.ClauseContains():
            return ["x-" + match.contains + "-x"]
        case types.ClauseOr():
            return [name for clause in match.or_ for name in names(clause)]
    return []


def instants(model) -> list[datetime.datetime]:
    """Now, each day before a price changes, and other hours if these have prices of their own."""
    prices = model.prices if isinstance(model.prices, list) else []
    starts = {
        one.constraint.start_date
        for one in [*prices, *(model.price_variants or [])]
        if isinstance(one.constraint, types.StartDateConstraint)
    }
    by_hour = any(isinstance(one.constraint, types.TimeOfDateConstraint) for one in prices)
    hours = [NOW.replace(hour=hour) for hour in (0, 2, 8, 20)] if by_hour else []
    last = datetime.time(23, 59, 59, tzinfo=datetime.timezone.utc)
    return [NOW, *hours, *(datetime.datetime.combine(start - datetime.timedelta(days=1), last) for start in sorted(starts))]


def has(model, price: str) -> bool:
    """Whether the model has this price at any time."""
    prices = [one.prices for one in model.prices] if isinstance(model.prices, list) else [model.prices]
    prices += [variant.prices for variant in model.price_variants or []]
    return all(getattr(one, price, None) is not None for one in prices)


def cases(provider, model) -> list[dict]:
    found = []
    # The first clause names it for all blocks; the others only once, which is enough for the name.
    for nth, name in enumerate(dict.fromkeys(names(model.match))):
        if provider.find_model(name, all_providers=providers) is not model:
            continue
        further = [block for price, block in PRICED_BLOCKS.items() if has(model, price)]
        blocks = [*BLOCKS, *further, any_block(name), any_block(name + "again")] if not found else [BLOCKS[9]]
        for at in instants(model):
            for tier, context in CONTEXTS.items():
                if context and not any(context == variant.when for variant in model.price_variants or []):
                    continue
                for block in blocks:
                    case = {"name": name, "at": int(at.timestamp() * 1000), "tier": tier, "usage": block}
                    try:
                        price = model.calc_price(
                            usage(block), provider, genai_request_timestamp=at, price_context=context
                        )
                        case["total"] = f"{price.total_price:f}"
                    except ValueError as error:
                        case["error"] = str(error)
                    found.append(case)
    return found


def plain(value):
    """The form of data.json; decimals are marked, so that they become numbers digit for digit."""
    match value:
        case Decimal():
            return f"@{value}@"
        case types.TieredPrices():
            return {"base": plain(value.base), "tiers": [{"start": t.start, "price": plain(t.price)} for t in value.tiers]}
        case types.ModelPrice():
            return {key: plain(price) for key, price in value.__dict__.items() if price is not None}
        case types.StartDateConstraint():
            return {"start_date": value.start_date.isoformat()}
        case types.TimeOfDateConstraint():
            return {"start_time": value.start_time.isoformat(), "end_time": value.end_time.isoformat()}
        case types.ConditionalPrice():
            return {"prices": plain(value.prices)} | ({"constraint": plain(value.constraint)} if value.constraint else {})
        case types.PriceVariant():
            rest = {"constraint": plain(value.constraint)} if value.constraint else {}
            return {"when": value.when, "prices": plain(value.prices)} | rest
        case types.ClauseOr():
            return {"or": [plain(clause) for clause in value.or_]}
        case types.ClauseAnd():
            return {"and": [plain(clause) for clause in value.and_]}
        case types.ModelInfo():
            return {
                "id": value.id,
                "match": plain(value.match),
                "prices": plain(value.prices),
                "price_variants": [plain(variant) for variant in value.price_variants or []],
            }
        case list():
            return [plain(one) for one in value]
    # The other clauses have one member, of their own name.
    return dict(value.__dict__)


def listed(provider) -> dict:
    return {
        "id": provider.id,
        "fallback_model_providers": provider.fallback_model_providers,
        "models": plain(provider.models),
    }


def main() -> None:
    by_id = {provider.id: provider for provider in providers}
    out = {}
    for provider in providers:
        fallbacks = [by_id[fallback] for fallback in provider.fallback_model_providers or []]
        models = {f"{provider.id}/{model.id}": cases(provider, model) for model in provider.models}
        for fallback in fallbacks:
            models |= {f"{fallback.id}/{model.id}": cases(provider, model) for model in fallback.models}
        out[provider.id] = {"list": [listed(one) for one in [provider, *fallbacks]], "models": models}
    sys.stdout.write(re.sub(r'"@([0-9.E+-]+)@"', r"\1", json.dumps(out)))


main()
