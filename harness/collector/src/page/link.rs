//! URLs of views.

use std::fmt;

use crate::page::View;

/// A view with its parameters, each at most once, in the order in which they were set.
#[derive(Debug, Clone)]
pub(super) struct Link {
    view: View,
    pairs: Vec<(&'static str, String)>,
}

impl Link {
    pub(super) fn new(view: View) -> Link {
        Link { view, pairs: Vec::new() }
    }

    /// Sets a parameter.
    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Link {
        let value = value.into();
        match self.pairs.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.pairs.push((name, value)),
        }
        self
    }

    /// Sets a parameter if there is a value.
    pub(super) fn maybe(self, name: &'static str, value: Option<impl Into<String>>) -> Link {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    pub(super) fn without(mut self, name: &str) -> Link {
        self.pairs.retain(|(known, _)| *known != name);
        self
    }

    /// What a form must send beside its own inputs.
    pub(super) fn pairs(&self) -> &[(&'static str, String)] {
        &self.pairs
    }

    pub(super) fn view(&self) -> View {
        self.view
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.view.path())?;
        for (at, (name, value)) in self.pairs.iter().enumerate() {
            write!(f, "{}{name}=", if at == 0 { '?' } else { '&' })?;
            for byte in value.bytes() {
                match byte {
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => {
                        write!(f, "{}", char::from(byte))?;
                    }
                    byte => write!(f, "%{byte:02X}")?,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_value_has_stays_in_it() {
        let link = Link::new(View::Usage).with("customer", "a&b=c d/ü\"").with("by", "team");
        let link = link.with("by", "agent").maybe("q", None::<String>);
        assert_eq!(link.to_string(), "/usage?customer=a%26b%3Dc%20d%2F%C3%BC%22&by=agent");
        assert_eq!(link.without("customer").to_string(), "/usage?by=agent");
    }
}
