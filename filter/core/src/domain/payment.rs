//! Payments that client and server settle between themselves, beside the call that they are for.

use serde::{Deserialize, Serialize};

/// The protocol of a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PaymentProtocol {
    /// x402, versions 1 and 2.
    X402,
    /// The `Payment` authentication scheme (draft-httpauth-payment-01), and the same over MCP.
    Mpp,
}

/// A payment for one call: what the client offers and, once the server says so, that it is settled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    /// The protocol.
    pub protocol: PaymentProtocol,
    /// Where it is settled: of x402 the network, such as `eip155:8453`; of MPP the payment method.
    pub network: Option<String>,
    /// What is paid with: the asset or the currency, as the protocol names it.
    pub currency: Option<String>,
    /// How much, in the smallest unit of the currency, as the protocol writes it.
    pub amount_atomic: Option<String>,
    /// The transaction, or the reference of the server's receipt. `None` while nothing is settled.
    pub receipt: Option<String>,
}

impl Payment {
    /// A payment of which nothing else is known.
    pub(crate) const fn new(protocol: PaymentProtocol) -> Self {
        Self { protocol, network: None, currency: None, amount_atomic: None, receipt: None }
    }

    /// Whether the server says that it is settled.
    pub fn is_settled(&self) -> bool {
        self.receipt.is_some()
    }

    /// The offer with what the server's receipt says of it. A receipt of another protocol is none.
    pub(crate) fn settled_by(self, receipt: Self) -> Self {
        if receipt.protocol != self.protocol || !receipt.is_settled() {
            return self;
        }
        Self {
            protocol: self.protocol,
            network: receipt.network.or(self.network),
            currency: receipt.currency.or(self.currency),
            amount_atomic: receipt.amount_atomic.or(self.amount_atomic),
            receipt: receipt.receipt,
        }
    }
}
