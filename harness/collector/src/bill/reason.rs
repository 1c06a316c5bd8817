//! The reasons for which a bill and the ledger differ.

use serde::Serialize;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $reason:ident = $name:literal;)+) => {
        /// Why a bill and the ledger differ. Each is decided on data; what none of them explains is
        /// [`Reason::Unexplained`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
        pub enum Reason { $($(#[doc = $doc])+ #[serde(rename = $name)] $reason,)+ }

        impl Reason {
            /// All of them.
            pub const ALL: &'static [Reason] = &[$(Reason::$reason),+];

            /// The name in reports.
            pub const fn name(self) -> &'static str {
                match self { $(Reason::$reason => $name,)+ }
            }
        }
    };
}

reasons! {
    /// Taxes.
    Tax = "tax";
    /// A credit of the provider.
    Credit = "credit";
    /// A discount that is a line of its own.
    Discount = "discount";
    /// A refund or an adjustment.
    Refund = "refund";
    /// A minimum, a subscription or a commitment.
    Fee = "fee";
    /// Something that no call makes which passes the filter, such as storage or fine-tuning.
    ServiceNotMetered = "service_not_metered";
    /// A batch of which nobody fetched the results through the filter.
    BatchNotMetered = "batch_not_metered";
    /// The ledger has no generation of this model on any of the days.
    ModelNotMetered = "model_not_metered";
    /// The ledger has generations of this model on other days only.
    DayNotMetered = "day_not_metered";
    /// The bill has nothing of what the ledger has.
    NotOnBill = "not_on_bill";
    /// Requests that ran over midnight: the provider has them on the day before.
    EdgeOfDay = "edge_of_day";
    /// Generations whose cost is not known here: the rate card has no price.
    NoPriceHere = "no_price_here";
    /// Generations whose usage nobody told, at most what the dearest other one of that day cost, each.
    UsageUnknownHere = "usage_unknown_here";
    /// Generations whose usage was estimated, at most their cost.
    EstimatedHere = "estimated_here";
    /// The two count other tokens.
    TokensDiffer = "tokens_differ";
    /// The two count the same tokens at other prices.
    PriceDiffers = "price_differs";
    /// The tokens agree, and the bill is rounded.
    Rounding = "rounding";
    /// None of these.
    Unexplained = "unexplained";
}
