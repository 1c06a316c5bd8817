"""A payment scheme of x402 without a chain: the client signs with its name, and settling gives a receipt."""

import itertools

from x402 import x402Client, x402Facilitator, x402ResourceServer
from x402.payment_flow import AUTHORIZATION_PAYMENT_FLOW
from x402.schemas import AssetAmount, PaymentRequirements, SettleResponse, VerifyResponse

NETWORK = "x402:cash"
SCHEME = "cash"
RECEIPTS = itertools.count(1)


class Client:
    scheme = SCHEME

    def __init__(self, payer: str) -> None:
        self.payer = payer

    def create_payment_payload(self, requirements: PaymentRequirements) -> dict:
        return {"payer": self.payer, "amount": requirements.amount}


class Server:
    scheme = SCHEME
    default_asset_transfer_method = "default"
    payment_flows = {"default": AUTHORIZATION_PAYMENT_FLOW}

    def parse_price(self, price, network) -> AssetAmount:
        return AssetAmount(amount=str(price).removeprefix("$"), asset="CASH", extra={})

    def enhance_payment_requirements(self, requirements, supported_kind, extensions):
        return requirements


class Facilitator:
    scheme = SCHEME
    caip_family = "x402:*"

    def get_extra(self, network):
        return None

    def get_signers(self, network):
        return []

    def verify(self, payload, requirements, context=None) -> VerifyResponse:
        payer = payload.payload["payer"]
        if payer == "pauper":
            return VerifyResponse(is_valid=False, invalid_reason="insufficient_funds", payer=payer)
        return VerifyResponse(is_valid=True, payer=payer)

    def settle(self, payload, requirements, context=None) -> SettleResponse:
        return SettleResponse(
            success=True,
            payer=payload.payload["payer"],
            transaction=f"cash-{next(RECEIPTS)}",
            network=requirements.network,
        )


class InProcess:
    """The facilitator as the server's client of it, without HTTP between them."""

    def __init__(self) -> None:
        self.facilitator = x402Facilitator()
        self.facilitator.register([NETWORK], Facilitator())

    async def verify(self, payload, requirements):
        return await self.facilitator.verify(payload, requirements)

    async def settle(self, payload, requirements):
        return await self.facilitator.settle(payload, requirements)

    def get_supported(self):
        return self.facilitator.get_supported()


def resource_server() -> x402ResourceServer:
    server = x402ResourceServer(InProcess())
    server.register(NETWORK, Server())
    server.initialize()
    return server


def client(payer: str) -> x402Client:
    # Its own list of assets knows no cash.
    paying = x402Client().set_spend_controls(False)
    paying.register(NETWORK, Client(payer))
    return paying
