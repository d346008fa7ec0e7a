//! The bill in the columns of FOCUS 1.2 (FinOps Open Cost and Usage Specification), as CSV. A null is an empty field.
//!
//! Columns are the mandatory ones, and of the others those whose condition holds: there are list prices, SKUs, resources, sub-accounts
//! and tags; there are no regions, no commitments, no reservations of capacity and one currency for prices and bills.

use anyhow::{Context, Result};
use catamaran_crds::{Hull, names::GROUP};
use clap::Args;
use jiff::{Timestamp, ToSpan, tz::TimeZone};
use serde::Serialize;
use serde_json::json;

use super::{
    charge::{Basis, Charge, Charged, Meter},
    period::HOUR,
};

/// Who bills whom, with --output focus.
#[derive(Args, Debug)]
#[command(next_help_heading = "FOCUS")]
pub struct FocusArguments {
    /// ProviderName, PublisherName and InvoiceIssuerName: who runs the cluster
    #[arg(long, value_name = "NAME", default_value = "Catamaran")]
    provider: String,
    /// BillingAccountId and BillingAccountName: the cluster
    #[arg(long, value_name = "NAME", default_value = "cluster")]
    billing_account: String,
}

/// A row. The order of fields is that of columns.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row<'a> {
    billed_cost: String,
    billing_account_id: &'a str,
    billing_account_name: &'a str,
    billing_account_type: &'a str,
    billing_currency: &'a str,
    billing_period_end: String,
    billing_period_start: String,
    charge_category: &'a str,
    /// Null: no correction.
    charge_class: Option<&'a str>,
    charge_description: String,
    charge_frequency: &'a str,
    charge_period_end: String,
    charge_period_start: String,
    consumed_quantity: String,
    consumed_unit: &'a str,
    contracted_cost: String,
    contracted_unit_price: String,
    effective_cost: String,
    /// Null: this is no invoice.
    invoice_id: Option<&'a str>,
    invoice_issuer_name: &'a str,
    list_cost: String,
    list_unit_price: String,
    pricing_category: &'a str,
    pricing_quantity: String,
    pricing_unit: &'a str,
    provider_name: &'a str,
    publisher_name: &'a str,
    resource_id: String,
    resource_name: &'a str,
    resource_type: &'a str,
    service_category: &'a str,
    service_name: &'a str,
    service_subcategory: &'a str,
    sku_id: String,
    sku_meter: &'a str,
    /// Null: the class says all.
    sku_price_details: Option<&'a str>,
    sku_price_id: String,
    sub_account_id: &'a str,
    sub_account_name: &'a str,
    sub_account_type: &'a str,
    tags: String,
}

/// One row for each charge.
///
/// # Errors
/// When an hour is outside of the calendar.
pub fn focus(charged: &[Charged<'_>], arguments: &FocusArguments) -> Result<String> {
    let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    writer.write_record(COLUMNS)?;
    for one in charged {
        for charge in &one.charges {
            writer.serialize(row(one, charge, arguments)?)?;
        }
    }
    String::from_utf8(writer.into_inner()?).context("text")
}

/// The columns, in the order of [`Row`]: there are some without a row, too.
const COLUMNS: [&str; 41] = [
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingAccountType",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "ContractedUnitPrice",
    "EffectiveCost",
    "InvoiceId",
    "InvoiceIssuerName",
    "ListCost",
    "ListUnitPrice",
    "PricingCategory",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "ServiceCategory",
    "ServiceName",
    "ServiceSubcategory",
    "SkuId",
    "SkuMeter",
    "SkuPriceDetails",
    "SkuPriceId",
    "SubAccountId",
    "SubAccountName",
    "SubAccountType",
    "Tags",
];

fn row<'a>(one: &'a Charged<'_>, charge: &Charge, arguments: &'a FocusArguments) -> Result<Row<'a>> {
    let hour = one.hour;
    let (month, next_month) = month(hour.start).context("an hour within the calendar")?;
    let end = Timestamp::from_second(hour.start.as_second().saturating_add(HOUR))?;
    let (unit, meter, sku) = words(charge.meter, one.by);
    let class = hour.class.as_deref().unwrap_or_default();
    let (cost, price, quantity) =
        (charge.cost.to_string(), charge.unit_price.normalize().to_string(), charge.quantity.to_string());
    let sku = format!("{class}/{sku}");
    let tags = json!({
        format!("{GROUP}/class"): class,
        format!("{GROUP}/hull"): hour.hull,
        format!("{GROUP}/workload"): hour.workload,
    });
    Ok(Row {
        billed_cost: cost.clone(),
        billing_account_id: &arguments.billing_account,
        billing_account_name: &arguments.billing_account,
        billing_account_type: "Cluster",
        billing_currency: one.currency.context("a charge has a currency")?,
        billing_period_end: next_month.to_string(),
        billing_period_start: month.to_string(),
        charge_category: "Usage",
        charge_class: None,
        charge_description: format!("{meter} of {} in namespace {}, class {class}", hour.workload, hour.namespace),
        charge_frequency: "Usage-Based",
        charge_period_end: end.to_string(),
        charge_period_start: hour.start.to_string(),
        consumed_quantity: quantity.clone(),
        consumed_unit: unit,
        contracted_cost: cost.clone(),
        contracted_unit_price: price.clone(),
        effective_cost: cost.clone(),
        invoice_id: None,
        invoice_issuer_name: &arguments.provider,
        list_cost: cost,
        list_unit_price: price,
        pricing_category: "Standard",
        pricing_quantity: quantity,
        pricing_unit: unit,
        provider_name: &arguments.provider,
        publisher_name: &arguments.provider,
        resource_id: format!(
            "{}/namespaces/{}/elasticworkloads/{}",
            arguments.billing_account, hour.namespace, hour.workload
        ),
        resource_name: &hour.workload,
        resource_type: "ElasticWorkload",
        service_category: "Compute",
        service_name: "Elastic Workloads",
        service_subcategory: match hour.hull {
            Hull::Container => "Containers",
            Hull::VirtualMachine => "Virtual Machines",
        },
        sku_id: sku.clone(),
        sku_meter: meter,
        sku_price_details: None,
        sku_price_id: sku,
        sub_account_id: &hour.namespace,
        sub_account_name: &hour.namespace,
        sub_account_type: "Namespace",
        tags: tags.to_string(),
    })
}

/// The unit in the format of FOCUS, what is metered, and the part of the SKU that says so.
fn words(meter: Meter, by: Basis) -> (&'static str, &'static str, &'static str) {
    match (meter, by) {
        (Meter::Cpu, Basis::Usage) => ("Core-Hours", "CPU usage", "cpu-usage"),
        (Meter::Cpu, Basis::Request) => ("Core-Hours", "CPU request", "cpu-request"),
        (Meter::Memory, Basis::Usage) => ("GiB-Hours", "Memory usage", "memory-usage"),
        (Meter::Memory, Basis::Request) => ("GiB-Hours", "Memory request", "memory-request"),
        (Meter::Io, Basis::Usage | Basis::Request) => ("GiB", "Block device IO", "io-usage"),
    }
}

/// The calendar month in UTC around a moment: its first moment, and that of the next.
fn month(moment: Timestamp) -> Option<(Timestamp, Timestamp)> {
    let date = moment.to_zoned(TimeZone::UTC).date();
    let at = |date: jiff::civil::Date| Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp());
    let first = date.first_of_month();
    Some((at(first)?, at(first.checked_add(1.month()).ok()?)?))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use rust_decimal::Decimal;

    use super::*;
    use crate::bill::{
        charge::charge,
        table::tests::{hours_of_a_day, prices},
    };

    type Record = BTreeMap<String, String>;

    /// Feature level "Mandatory" in FOCUS 1.2, and whether nulls are allowed.
    const MANDATORY: [(&str, bool); 21] = [
        ("BilledCost", false),
        ("BillingAccountId", false),
        ("BillingAccountName", true),
        ("BillingCurrency", false),
        ("BillingPeriodEnd", false),
        ("BillingPeriodStart", false),
        ("ChargeCategory", false),
        ("ChargeClass", true),
        ("ChargeDescription", true),
        ("ChargePeriodEnd", false),
        ("ChargePeriodStart", false),
        ("ContractedCost", false),
        ("EffectiveCost", false),
        ("InvoiceIssuerName", false),
        ("ListCost", false),
        ("PricingQuantity", true),
        ("PricingUnit", true),
        ("ProviderName", false),
        ("PublisherName", false),
        ("ServiceCategory", false),
        ("ServiceName", false),
    ];

    /// Not null in a row of ChargeCategory Usage that is no correction.
    const NOT_NULL_FOR_USAGE: [&str; 11] = [
        "ConsumedQuantity",
        "ConsumedUnit",
        "ContractedUnitPrice",
        "ListUnitPrice",
        "PricingCategory",
        "PricingQuantity",
        "PricingUnit",
        "SkuId",
        "SkuPriceId",
        "ServiceSubcategory",
        "ChargeFrequency",
    ];

    fn read(text: &str) -> (Vec<String>, Vec<Record>) {
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let header = reader.headers().expect("a header").iter().map(str::to_owned).collect();
        (header, reader.deserialize().map(|record| record.expect("a record")).collect())
    }

    /// The rules of the specification on columns and on their formats.
    fn validate(text: &str) -> Result<usize, String> {
        let (header, records) = read(text);
        if header.iter().collect::<HashSet<_>>().len() != header.len() {
            return Err("a column is there twice".to_owned());
        }
        for (column, _) in MANDATORY {
            if !header.iter().any(|found| found == column) {
                return Err(format!("{column} is missing"));
            }
        }
        for record in &records {
            row_is_valid(record).map_err(|problem| format!("{problem}: {record:?}"))?;
        }
        Ok(records.len())
    }

    fn row_is_valid(record: &Record) -> Result<(), String> {
        let of = |column: &str| record.get(column).map(String::as_str).unwrap_or_default();
        for column in MANDATORY.iter().filter(|(_, nulls)| !nulls).map(|(column, _)| *column).chain(NOT_NULL_FOR_USAGE)
        {
            if of(column).is_empty() {
                return Err(format!("{column} is null"));
            }
        }
        // Numeric Format: digits and one point, no exponent, no sign but a minus.
        let number = |column: &str| -> Result<Decimal, String> {
            let text = of(column);
            let plain = text.trim_start_matches('-').chars().all(|c| c.is_ascii_digit() || c == '.');
            let number = Decimal::from_str_exact(text).map_err(|error| format!("{column} {text:?}: {error}"))?;
            if plain { Ok(number) } else { Err(format!("{column} {text:?} is no plain number")) }
        };
        let quantity = number("PricingQuantity")?;
        if number("ConsumedQuantity")? <= Decimal::ZERO {
            return Err("ConsumedQuantity is not positive".to_owned());
        }
        for (cost, price) in [("ListCost", "ListUnitPrice"), ("ContractedCost", "ContractedUnitPrice")] {
            if quantity * number(price)? != number(cost)? {
                return Err(format!("{cost} is not {price} times PricingQuantity"));
            }
        }
        for cost in ["BilledCost", "EffectiveCost"] {
            if number(cost)? != number("ContractedCost")? {
                return Err(format!("{cost} differs, without a discount or a commitment"));
            }
        }
        // Date/Time Format: ISO 8601 in UTC, to the second. Starts are inclusive, ends exclusive.
        let time = |column: &str| -> Result<Timestamp, String> {
            let text = of(column);
            if text.len() != "2026-03-01T00:00:00Z".len() || !text.ends_with('Z') {
                return Err(format!("{column} {text:?} is no time of the format"));
            }
            text.parse().map_err(|error| format!("{column} {text:?}: {error}"))
        };
        let (start, end) = (time("ChargePeriodStart")?, time("ChargePeriodEnd")?);
        let (first, last) = (time("BillingPeriodStart")?, time("BillingPeriodEnd")?);
        if !(first <= start && start < end && end <= last) {
            return Err("the charge period is not in the billing period".to_owned());
        }
        let currency = of("BillingCurrency");
        if currency.len() != 3 || !currency.chars().all(|c| c.is_ascii_uppercase()) {
            return Err(format!("BillingCurrency {currency:?} is no code of ISO 4217"));
        }
        for (column, allowed) in [
            ("ChargeCategory", ["Usage"].as_slice()),
            ("ChargeClass", &[""]),
            ("ChargeFrequency", &["One-Time", "Recurring", "Usage-Based"]),
            ("PricingCategory", &["Standard", "Dynamic", "Committed", "Other"]),
            ("ServiceCategory", &["Compute"]),
            ("ServiceSubcategory", &["Containers", "Virtual Machines"]),
            ("PricingUnit", &["Core-Hours", "GiB-Hours", "GiB"]),
            ("ConsumedUnit", &["Core-Hours", "GiB-Hours", "GiB"]),
        ] {
            if !allowed.contains(&of(column)) {
                return Err(format!("{column} {:?} is not among the allowed values", of(column)));
            }
        }
        // Key-Value Format: a JSON object of plain values.
        let tags: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(of("Tags")).map_err(|error| format!("Tags: {error}"))?;
        if tags.values().any(|value| value.is_object() || value.is_array()) {
            return Err("Tags are nested".to_owned());
        }
        // Price identifiers do not contain what changes with time.
        if of("SkuPriceId").contains(of("ListUnitPrice")) {
            return Err("SkuPriceId contains a price".to_owned());
        }
        Ok(())
    }

    fn bill(by: Basis) -> String {
        let (hours, prices) = (hours_of_a_day(), prices());
        let charged: Vec<_> = hours.iter().map(|hour| charge(hour, by, &prices)).collect();
        let arguments =
            FocusArguments { provider: "Example Platform".to_owned(), billing_account: "prod-1".to_owned() };
        focus(&charged, &arguments).expect("FOCUS")
    }

    #[test]
    fn the_rules_of_focus_hold() {
        // Two hours: of web CPU, memory and IO, of db CPU alone; without a price nothing.
        assert_eq!(validate(&bill(Basis::Usage)), Ok(8));
        assert_eq!(validate(&bill(Basis::Request)), Ok(6));
        let header = COLUMNS.join(",") + "\n";
        let arguments = FocusArguments { provider: String::new(), billing_account: String::new() };
        assert_eq!(focus(&[], &arguments).expect("FOCUS"), header);
        assert_eq!(validate(&header), Ok(0));
        insta::assert_snapshot!(bill(Basis::Usage));
    }

    #[test]
    fn the_validator_sees_what_is_wrong() {
        let good = bill(Basis::Usage);
        for (from, to, words) in [
            ("ListCost", "Cost", "ListCost is missing"),
            ("EUR", "Euro", "BillingCurrency"),
            ("2026-03-01T00:00:00Z", "2026-03-01", "no time"),
            ("2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z", "billing period"),
            ("Usage-Based", "Hourly", "ChargeFrequency"),
            ("0.06,", "0.07,", "times"),
            ("1.5,Core-Hours", "1e0,Core-Hours", "1e0"),
            ("Core-Hours", "", "null"),
            ("Compute", "Storage", "ServiceCategory"),
        ] {
            let problem = validate(&good.replace(from, to)).expect_err(to);
            assert!(problem.contains(words), "{problem}");
        }
    }

    #[test]
    fn a_month_has_its_hours() {
        let (first, next) = month("2026-12-31T23:00:00Z".parse().expect("a time")).expect("a month");
        assert_eq!(
            (first.to_string().as_str(), next.to_string().as_str()),
            ("2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z")
        );
    }
}
