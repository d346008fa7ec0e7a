//! What classes cost.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};
use catamaran_crds::WorkloadClass;
use kube::{Api, Client, ResourceExt, api::ListParams};
use rust_decimal::Decimal;

use crate::connection::describe;

/// The price of each class that has one.
pub type Prices = BTreeMap<String, Price>;

/// A price in numbers. What has none is free.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Price {
    /// The code of ISO 4217.
    pub currency: String,
    /// Of one CPU for one hour.
    pub cpu_hour: Option<Decimal>,
    /// Of one GiB for one hour.
    pub memory_gib_hour: Option<Decimal>,
    /// Of one GiB read or written.
    pub io_gib: Option<Decimal>,
}

/// The prices that the cluster's classes have now.
///
/// # Errors
/// When they may not be listed, or one of them is none.
pub async fn of_classes(client: &Client) -> Result<Prices> {
    let classes: Api<WorkloadClass> = Api::all(client.clone());
    let listed = classes.list(&ListParams::default()).await;
    let listed =
        listed.map_err(|error| anyhow!("the prices of WorkloadClasses cannot be read: {}", describe(&error)))?;
    let mut prices = Prices::new();
    for class in listed {
        if let Some(price) = &class.spec.price {
            let name = class.name_any();
            prices.insert(
                name.clone(),
                Price::from_class(price).map_err(|error| anyhow!("WorkloadClass {name}: {error}"))?,
            );
        }
    }
    Ok(prices)
}

impl Price {
    /// From the words of the class.
    ///
    /// # Errors
    /// When one is no number; the API server lets none of those in.
    pub fn from_class(price: &catamaran_crds::Price) -> Result<Self, rust_decimal::Error> {
        let amount = |text: &Option<String>| text.as_deref().map(Decimal::from_str_exact).transpose();
        Ok(Self {
            currency: price.currency.clone(),
            cpu_hour: amount(&price.cpu_hour)?,
            memory_gib_hour: amount(&price.memory_gib_hour)?,
            io_gib: amount(&price.io_gib)?,
        })
    }
}
