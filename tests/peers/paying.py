"""A client that pays by x402 and MPP. Prints what it saw as JSON."""

import asyncio
import json
import sys

import httpx
import mpp
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client
from x402.http.clients import wrapHttpxWithPayment
from x402.mcp import x402MCPClient

import cash

url = sys.argv[1]


class Session:
    """A session as x402's client calls it: with the parameters as one object."""

    def __init__(self, session: ClientSession) -> None:
        self.session = session

    async def call_tool(self, params: dict, **more: object) -> object:
        meta = params.get("_meta")
        return await self.session.call_tool(params["name"], params["arguments"], meta=meta, **more)


def headers(payer: str) -> dict[str, str]:
    return {"x-customer-id": payer}


async def over_mcp(payer: str) -> list[bool]:
    async with streamablehttp_client(f"{url}/mcp", headers=headers(payer)) as (reads, writes, _):
        async with ClientSession(reads, writes) as session:
            await session.initialize()
            client = x402MCPClient(Session(session), cash.client(payer))
            paid = await client.call_tool("paid", {"what": "a"})
            free = await session.call_tool("free", {"what": "b"})
            return [not paid.is_error, not free.isError]


async def over_http(payer: str) -> list[int]:
    async with wrapHttpxWithPayment(cash.client(payer), base_url=url, headers=headers(payer)) as client:
        of_x402 = await client.get("/api/x402")
    async with httpx.AsyncClient(base_url=url, headers=headers(payer)) as client:
        asked = await client.get("/api/mpp")
        challenge = mpp.Challenge.from_www_authenticate(asked.headers["www-authenticate"])
        credential = mpp.Credential(challenge=challenge.to_echo(), payload={"coin": "1"})
        paid = await client.get("/api/mpp", headers={"authorization": credential.to_authorization()})
        return [of_x402.status_code, asked.status_code, paid.status_code]


async def main() -> None:
    for payer in ["acme", "pauper"]:
        print(json.dumps({"payer": payer, "mcp": await over_mcp(payer), "http": await over_http(payer)}), flush=True)


asyncio.run(main())
