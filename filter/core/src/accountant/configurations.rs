//! The configurations by which the accountant prices: its own, and those before it of which a VM may
//! still serve streams. What a VM recorded is priced by the VM's own configuration.

use std::rc::Rc;

use crate::config::Config;
use crate::config::product::Product;
use crate::domain::ids::ConfigId;
use crate::domain::session::SessionRef;
use crate::host::Host;
use crate::shared_data::configurations::text_of;

/// The accountant's configuration, and the others that are known.
#[derive(Debug)]
pub(super) struct Configurations {
    own: Rc<Config>,
    others: Vec<Rc<Config>>,
    announced: Vec<ConfigId>,
}

impl Configurations {
    /// Knows one configuration.
    pub(super) fn new(own: Rc<Config>) -> Self {
        Self { own, others: Vec::new(), announced: Vec::new() }
    }

    /// Reads those of the announced configurations that were not known the last time.
    pub(super) fn refresh(&mut self, host: &mut impl Host, prefix: &str, announced: &[ConfigId]) {
        if announced == self.announced {
            return;
        }
        for id in announced {
            if *id == self.own.id || self.others.iter().any(|other| other.id == *id) {
                continue;
            }
            let text = text_of(host, prefix, *id);
            if let Some(mut other) = text.and_then(|text| Config::from_bytes(&text).ok()) {
                other.identify(*id);
                self.others.push(Rc::new(other));
            }
        }
        self.others.retain(|other| announced.contains(&other.id));
        self.announced = announced.to_vec();
    }

    /// All of them, the own first.
    pub(super) fn all(&self) -> impl Iterator<Item = &Rc<Config>> {
        core::iter::once(&self.own).chain(&self.others)
    }

    /// The product with this id for a session, with its configuration: that by which the session is
    /// priced, or any that has the product.
    pub(super) fn product(
        &self,
        session: &SessionRef,
        product_id: &str,
    ) -> Option<(&Rc<Config>, &Rc<Product>)> {
        let of_session = self.all().find(|config| config.id == session.config);
        let mut places = of_session.into_iter().chain(self.all());
        places.find_map(|config| Some((config, config.product(product_id)?)))
    }
}
