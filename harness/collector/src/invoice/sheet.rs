//! A document as it is printed: what is on it and in which order, for text and HTML alike. Whoever
//! makes one has formatted all amounts.

/// One document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sheet {
    pub(crate) title: String,
    /// Labels and values, such as the customer and the period.
    pub(crate) head: Vec<(&'static str, String)>,
    pub(crate) parts: Vec<Part>,
    pub(crate) totals: Vec<TotalLine>,
}

/// What belongs together under a title, such as one product.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) title: String,
    pub(crate) blocks: Vec<Block>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Block {
    Table(Table),
    /// A label and its value.
    Fact(&'static str, String),
    /// A sentence about what stands before it.
    Note(String),
}

/// The first `names` columns are names, aligned to the left; the others are numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Table {
    /// One with a caption explains a fact before it.
    pub(crate) caption: Option<String>,
    /// Empty for a table without a head.
    pub(crate) head: Vec<&'static str>,
    pub(crate) rows: Vec<Vec<String>>,
    pub(crate) names: usize,
}

/// One line of the totals at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TotalLine {
    pub(crate) label: &'static str,
    pub(crate) value: String,
    /// True for what the lines before it come to.
    pub(crate) is_sum: bool,
}

impl Part {
    pub(crate) fn table(&mut self, table: Table) {
        if !table.rows.is_empty() {
            self.blocks.push(Block::Table(table));
        }
    }

    pub(crate) fn fact(&mut self, label: &'static str, value: String) {
        self.blocks.push(Block::Fact(label, value));
    }
}
