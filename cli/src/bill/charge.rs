//! Amounts and prices make charges.

use catamaran_protocol::accounts::{HourAmounts, HourOfAccount};
use clap::ValueEnum;
use rust_decimal::Decimal;

use super::price::{Price, Prices};

/// Digits after the point of a quantity: to some microseconds of CPU time, to a byte.
const DIGITS: u32 = 9;

/// What is charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Basis {
    /// What was used: CPU time, memory over time, bytes read and written
    Usage,
    /// What was reserved: the requests of replicas over the time that they existed
    Request,
}

/// A resource that is charged for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meter {
    /// CPU.
    Cpu,
    /// Memory.
    Memory,
    /// Bytes read from and written to block devices.
    Io,
}

/// The charges of one hour of one account.
#[derive(Clone, Debug)]
pub struct Charged<'a> {
    /// The hour.
    pub hour: &'a HourOfAccount,
    /// On which basis.
    pub by: Basis,
    /// What was used or reserved, priced or not.
    pub quantities: Quantities,
    /// The currency of the charges; `None` without a price.
    pub currency: Option<&'a str>,
    /// One for each resource that has a price, and of which there was some.
    pub charges: Vec<Charge>,
}

/// Amounts in the units of prices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quantities {
    /// CPUs, times hours.
    pub cpu_hours: Decimal,
    /// GiB, times hours.
    pub memory_gib_hours: Decimal,
    /// GiB read and written; nothing by request, since nothing reserves it.
    pub io_gib: Decimal,
}

/// A charge for one resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    /// Which.
    pub meter: Meter,
    /// How much of it.
    pub quantity: Decimal,
    /// What one unit of it costs.
    pub unit_price: Decimal,
    /// Quantity times price.
    pub cost: Decimal,
}

impl Charged<'_> {
    /// The sum; `None` without a price.
    #[must_use]
    pub fn cost(&self) -> Option<Decimal> {
        self.currency
            .map(|_| self.charges.iter().map(|charge| charge.cost).fold(Decimal::ZERO, Decimal::saturating_add))
    }
}

/// Charges an hour.
#[must_use]
pub fn charge<'a>(hour: &'a HourOfAccount, by: Basis, prices: &'a Prices) -> Charged<'a> {
    let quantities = Quantities::charged(&hour.amounts, by);
    let price = hour.class.as_deref().and_then(|class| prices.get(class));
    let charges = price.map_or_else(Vec::new, |price| charges(&quantities, price));
    Charged { hour, by, quantities, currency: price.map(|price| price.currency.as_str()), charges }
}

fn charges(quantities: &Quantities, price: &Price) -> Vec<Charge> {
    let each = [
        (Meter::Cpu, quantities.cpu_hours, price.cpu_hour),
        (Meter::Memory, quantities.memory_gib_hours, price.memory_gib_hour),
        (Meter::Io, quantities.io_gib, price.io_gib),
    ];
    let priced = each.into_iter().filter(|(_, quantity, _)| !quantity.is_zero());
    priced
        .filter_map(|(meter, quantity, unit_price)| {
            let unit_price = unit_price?;
            Some(Charge { meter, quantity, unit_price, cost: quantity.saturating_mul(unit_price).normalize() })
        })
        .collect()
}

impl Quantities {
    fn charged(amounts: &HourAmounts, by: Basis) -> Self {
        let (cpu_usec, kib_seconds, io_bytes) = match by {
            Basis::Usage => (
                amounts.cpu_usage_usec,
                amounts.memory_usage_kib_seconds,
                amounts.io_read_bytes.saturating_add(amounts.io_write_bytes),
            ),
            Basis::Request => (amounts.cpu_requested_usec, amounts.memory_requested_kib_seconds, 0),
        };
        let divided = |amount: u64, by: u64| {
            let quotient = Decimal::from(amount).checked_div(Decimal::from(by)).unwrap_or_default();
            quotient.round_dp(DIGITS).normalize()
        };
        Self {
            cpu_hours: divided(cpu_usec, 3_600_000_000),
            memory_gib_hours: divided(kib_seconds, 3600 << 20),
            io_gib: divided(io_bytes, 1 << 30),
        }
    }

    /// Adds.
    pub fn add(&mut self, other: &Self) {
        self.cpu_hours = self.cpu_hours.saturating_add(other.cpu_hours);
        self.memory_gib_hours = self.memory_gib_hours.saturating_add(other.memory_gib_hours);
        self.io_gib = self.io_gib.saturating_add(other.io_gib);
    }
}
