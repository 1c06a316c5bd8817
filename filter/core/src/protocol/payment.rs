//! Reads payments on the wire: of x402 (versions 1 and 2) in HTTP headers, in `_meta` of MCP and in
//! the metadata of A2A messages; of the `Payment` authentication scheme (draft-httpauth-payment-01,
//! draft-payment-transport-mcp-00) in HTTP headers and in `_meta`.
//!
//! To the next maintainer: the readers of MCP and A2A follow the objects here under the node numbers
//! of this file, and the headers are read by the same table.

use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::base::limits::PAYMENT_HEADER_BYTES_MAX;
use crate::domain::payment::{Payment, PaymentProtocol};
use crate::wire::http::Headers;
use crate::wire::json::{Scalar, Scanner, Visitor, Want};

/// The objects, with numbers that the readers of messages do not use themselves.
pub(super) mod node {
    /// x402 `PaymentPayload`: what the client offers.
    pub(in crate::protocol) const X402_PAYLOAD: u8 = 200;
    pub(super) const X402_ACCEPTED: u8 = 201;
    /// x402 `SettlementResponse`.
    pub(in crate::protocol) const X402_SETTLEMENT: u8 = 202;
    /// The credential with which a client answers a challenge.
    pub(in crate::protocol) const MPP_CREDENTIAL: u8 = 203;
    pub(super) const MPP_CHALLENGE: u8 = 204;
    pub(super) const MPP_TERMS: u8 = 205;
    pub(in crate::protocol) const MPP_RECEIPT: u8 = 206;
}

mod field {
    pub(super) const NETWORK: u8 = 200;
    pub(super) const CURRENCY: u8 = 201;
    pub(super) const AMOUNT: u8 = 202;
    pub(super) const RECEIPT: u8 = 203;
    /// `success` of x402, a literal.
    pub(super) const SUCCESS: u8 = 204;
    /// `status` of a receipt, a text.
    pub(super) const STATUS: u8 = 205;
    /// The terms of a challenge as base64 of JSON.
    pub(super) const TERMS: u8 = 206;
}

/// A payment as far as it has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PaymentReading {
    payment: Payment,
    is_success: bool,
}

impl PaymentReading {
    /// What was read. A receipt counts only if it says that the payment succeeded.
    pub(crate) fn payment(&self) -> Payment {
        let receipt = self.payment.receipt.clone().filter(|_| self.is_success);
        Payment { receipt, ..self.payment.clone() }
    }
}

/// Begins to read an object, if it is one of a payment.
pub(super) fn open(reading: &mut Option<Box<PaymentReading>>, node: u8) {
    let protocol = match node {
        node::X402_PAYLOAD | node::X402_SETTLEMENT => PaymentProtocol::X402,
        node::MPP_CREDENTIAL | node::MPP_RECEIPT => PaymentProtocol::Mpp,
        _ => return,
    };
    let payment = Payment::new(protocol);
    *reading = Some(Box::new(PaymentReading { payment, is_success: false }));
}

/// What is of interest of a member of these objects.
pub(super) fn member(node: u8, key: &[u8]) -> Want {
    match (node, key) {
        (node::X402_PAYLOAD, b"accepted") => Want::object(node::X402_ACCEPTED),
        (node::X402_ACCEPTED, b"asset") | (node::MPP_TERMS, b"currency") => {
            Want::scalar(field::CURRENCY)
        }
        (node::X402_ACCEPTED | node::X402_SETTLEMENT | node::MPP_TERMS, b"amount") => {
            Want::scalar(field::AMOUNT)
        }
        (node::X402_PAYLOAD | node::X402_ACCEPTED | node::X402_SETTLEMENT, b"network")
        | (node::MPP_CHALLENGE | node::MPP_RECEIPT, b"method") => Want::scalar(field::NETWORK),
        (node::X402_SETTLEMENT, b"transaction") | (node::MPP_RECEIPT, b"reference") => {
            Want::scalar(field::RECEIPT)
        }
        (node::X402_SETTLEMENT, b"success") => Want::scalar(field::SUCCESS),
        (node::MPP_RECEIPT, b"status") => Want::scalar(field::STATUS),
        (node::MPP_RECEIPT, b"settlement") => Want::object(node::MPP_TERMS),
        (node::MPP_CREDENTIAL, b"challenge") => Want::object(node::MPP_CHALLENGE),
        // An object over MCP, a text in a header.
        (node::MPP_CHALLENGE, b"request") => {
            Want { scalar: Some(field::TERMS), ..Want::object(node::MPP_TERMS) }
        }
        _ => Want::NOTHING,
    }
}

/// Takes a member's value. Half a value is none.
pub(super) fn scalar(reading: &mut Option<Box<PaymentReading>>, field: u8, value: Scalar<'_>) {
    let Some(reading) = reading else { return };
    let told = || {
        let is_whole = !value.is_null() && !value.is_truncated && !value.text.is_empty();
        is_whole.then(|| String::from_utf8_lossy(value.text).into_owned())
    };
    let payment = &mut reading.payment;
    match field {
        field::NETWORK => payment.network = told(),
        field::CURRENCY => payment.currency = told(),
        field::AMOUNT => payment.amount_atomic = told(),
        field::RECEIPT => payment.receipt = told(),
        field::SUCCESS => reading.is_success = !value.is_string && value.text == b"true",
        field::STATUS => reading.is_success = value.is_string && value.text == b"success",
        field::TERMS if value.is_string && !value.is_truncated => {
            if let Some(terms) = read(value.text, node::MPP_TERMS, Payment::new(payment.protocol)) {
                payment.currency = terms.currency;
                payment.amount_atomic = terms.amount_atomic;
            }
        }
        _ => {}
    }
}

/// What a request's headers offer.
pub(crate) fn offered(headers: Headers<'_>) -> Option<Payment> {
    let x402 = only(headers, "payment-signature").or_else(|| only(headers, "x-payment"));
    if let Some(value) = x402 {
        let unread = Payment::new(PaymentProtocol::X402);
        return Some(read(value, node::X402_PAYLOAD, unread.clone()).unwrap_or(unread));
    }
    let (scheme, credential) = only(headers, "authorization")?.split_at_checked(8)?;
    let unread = Payment::new(PaymentProtocol::Mpp);
    scheme.eq_ignore_ascii_case(b"payment ").then(|| {
        read(credential.trim_ascii(), node::MPP_CREDENTIAL, unread.clone()).unwrap_or(unread)
    })
}

/// The receipt in a response's headers.
pub(crate) fn settled(headers: Headers<'_>) -> Option<Payment> {
    let x402 = only(headers, "payment-response").or_else(|| only(headers, "x-payment-response"));
    if let Some(value) = x402 {
        return read(value, node::X402_SETTLEMENT, Payment::new(PaymentProtocol::X402));
    }
    let value = only(headers, "payment-receipt")?;
    read(value, node::MPP_RECEIPT, Payment::new(PaymentProtocol::Mpp))
}

/// The value of a header that comes once: of two, nobody knows which is meant.
fn only<'a>(headers: Headers<'a>, name: &str) -> Option<&'a [u8]> {
    let mut values = headers.all(name);
    values.next().filter(|_| values.next().is_none())
}

/// Reads base64 of one of these objects, in either alphabet, with padding or without.
fn read(base64: &[u8], node: u8, unread: Payment) -> Option<Payment> {
    if base64.len() > PAYMENT_HEADER_BYTES_MAX {
        return None;
    }
    let is_url_safe = base64.iter().any(|byte| matches!(byte, b'-' | b'_'));
    let alphabet = if is_url_safe { &URL_SAFE } else { &STANDARD };
    let padding = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let json = GeneralPurpose::new(alphabet, padding).decode(base64).ok()?;
    let reading = PaymentReading { payment: unread, is_success: false };
    let mut visitor = Object { node, reading: Some(Box::new(reading)) };
    Scanner::default().feed(&json, &mut visitor);
    visitor.reading.map(|reading| reading.payment())
}

/// Reads one such object.
struct Object {
    node: u8,
    reading: Option<Box<PaymentReading>>,
}

impl Visitor for Object {
    fn top(&mut self) -> Want {
        Want::object(self.node)
    }

    fn member(&mut self, node: u8, key: &[u8]) -> Want {
        member(node, key)
    }

    fn element(&mut self, _node: u8) -> Want {
        Want::NOTHING
    }

    fn scalar(&mut self, field: u8, value: Scalar<'_>) {
        scalar(&mut self.reading, field, value);
    }

    fn open(&mut self, _node: u8) {}

    fn close(&mut self, _node: u8) {}
}
