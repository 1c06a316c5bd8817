//! The public price lists, and which edition of one a card is made of.

use chrono::NaiveDate;

/// The public price lists that are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// LiteLLM's model_prices_and_context_window.json.
    Litellm,
    /// The api.json of models.dev.
    ModelsDev,
    /// The data.json of pydantic/genai-prices.
    GenaiPrices,
}

impl Source {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Litellm, Self::ModelsDev, Self::GenaiPrices];

    /// The name in commands and versions, such as `models.dev`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Litellm => "litellm",
            Self::ModelsDev => "models.dev",
            Self::GenaiPrices => "genai-prices",
        }
    }

    /// The file that the list is published as.
    pub const fn file(self) -> &'static str {
        match self {
            Self::Litellm => "LiteLLM's model_prices_and_context_window.json",
            Self::ModelsDev => "The api.json of models.dev",
            Self::GenaiPrices => "The data.json of pydantic/genai-prices",
        }
    }
}

/// What a card tells of itself.
#[derive(Clone, Debug)]
pub struct Edition {
    /// What events carry; `None` for the list's name and the date.
    pub version: Option<String>,
    /// The day of which the list's prices are, in UTC.
    pub date: NaiveDate,
}

impl Edition {
    /// The one of a list that was fetched today.
    pub fn today() -> Self {
        Self { version: None, date: chrono::Utc::now().date_naive() }
    }
}
