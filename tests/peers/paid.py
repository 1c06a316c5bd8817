"""A server that sells by x402 and MPP: tools over MCP at `/mcp`, and an API at `/api`.

Prints `ready {"port": ...}` when it serves. Ends when its standard input does, and prints `executed {...}`: how often
each ran.
"""

import asyncio
import contextlib
from collections import Counter
from datetime import UTC, datetime

import mpp
import uvicorn  # noqa: F401
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from mcp.server.fastmcp import FastMCP
from x402.http.middleware.fastapi import payment_middleware
from x402.mcp import create_payment_wrapper
from x402.schemas import ResourceConfig

import cash
from serving import serve

executed: Counter[str] = Counter()
sells = cash.resource_server()
price = ResourceConfig(scheme=cash.SCHEME, network=cash.NETWORK, pay_to="till", price="250")
accepts = sells.build_payment_requirements(price)
tools = FastMCP("paid", log_level="CRITICAL", json_response=True, stateless_http=True)


@tools.tool()
@create_payment_wrapper(sells, accepts=accepts)
async def paid(what: str) -> str:
    """Costs 250 in cash."""
    executed["paid"] += 1
    return what


@tools.tool()
async def free(what: str) -> str:
    """Costs nothing on the wire."""
    executed["free"] += 1
    return what


@contextlib.asynccontextmanager
async def lifespan(_: FastAPI):
    async with tools.session_manager.run():
        yield


app = FastAPI(lifespan=lifespan)
routes = {"GET /api/x402": {"accepts": {"scheme": cash.SCHEME, "network": cash.NETWORK, "payTo": "till", "price": "40"}}}
app.middleware("http")(payment_middleware(routes, sells))


@app.get("/api/x402")
async def of_x402() -> dict:
    executed["/api/x402"] += 1
    return {"is": "paid"}


@app.get("/api/mpp")
async def of_mpp(request: Request) -> JSONResponse:
    header = request.headers.get("authorization", "")
    if not header.lower().startswith("payment "):
        challenge = mpp.Challenge.create(
            secret_key="secret", realm="paid", method="cash", intent="charge", request={"amount": "7", "currency": "usd"}
        )
        challenges = {"www-authenticate": challenge.to_www_authenticate("paid")}
        return JSONResponse({}, status_code=402, headers=challenges)
    mpp.Credential.from_authorization(header)
    executed["/api/mpp"] += 1
    receipt = mpp.Receipt(status="success", timestamp=datetime.now(UTC), reference="till-1", method="cash")
    return JSONResponse({}, headers={"payment-receipt": receipt.to_payment_receipt()})


app.mount("/", tools.streamable_http_app())
asyncio.run(serve(app, executed))
