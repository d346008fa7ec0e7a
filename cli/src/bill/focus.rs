//! The bill in the columns of FOCUS 1.2 (FinOps Open Cost and Usage Specification), as CSV. A null is an empty field.
//!
//! - The mandatory columns.
//! - The conditional ones whose condition holds: usage is measured, there are list prices, SKUs, resources with types,
//!   sub-accounts and tags. There are no regions or zones, no commitments, no reservations of capacity and one currency
//!   for prices and bills.
//! - The recommended ones: `ChargeFrequency`, `InvoiceId`, `ServiceSubcategory`.
//! - Four that nothing asks for: `BillingAccountType` and `SubAccountType` (asked for with more than one type),
//!   `PricingCategory` (with more than one category), `ContractedUnitPrice` (with negotiated prices). Readers that
//!   expect them need no special case for us.
//!
//! Sources: `specification/columns/*.md` and `specification/attributes/*.md` of
//! FinOps-Open-Cost-and-Usage-Spec/FOCUS_Spec, and the same rules for machines,
//! `focus_validator/rules/model-1.2.0.1.json` of finopsfoundation/focus_validator: its rules CostAndUsage-D-003 to
//! D-068 say which column has to be there.

use anyhow::{Context, Result};
use catamaran_crds::{Hull, names::GROUP};
use clap::{Args, builder::NonEmptyStringValueParser};
use jiff::{Timestamp, ToSpan, tz::TimeZone};
use serde::Serialize;
use serde_json::json;

use super::{
    charge::{Basis, Charge, Charged, Meter},
    period::HOUR,
};

/// Who bills whom, with --output focus.
// None is empty: that would be a null, in columns that have none.
#[derive(Args, Debug)]
#[command(next_help_heading = "FOCUS")]
pub struct FocusArguments {
    /// ProviderName, PublisherName and InvoiceIssuerName: who runs the cluster
    #[arg(long, value_name = "NAME", default_value = "Catamaran", value_parser = NonEmptyStringValueParser::new())]
    provider: String,
    /// BillingAccountId and BillingAccountName: the cluster
    #[arg(long, value_name = "NAME", default_value = "cluster", value_parser = NonEmptyStringValueParser::new())]
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
    let (service, subcategory) = service(hour.hull);
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
        service_name: service,
        service_subcategory: subcategory,
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

/// The name of the service and its subcategory. There are two services, since one should not have two subcategories
/// (servicename.md).
const fn service(hull: Hull) -> (&'static str, &'static str) {
    match hull {
        Hull::Container => ("Elastic Containers", "Containers"),
        Hull::VirtualMachine => ("Elastic Virtual Machines", "Virtual Machines"),
    }
}

/// The unit in the format of FOCUS (unit_format.md), what is metered, and the part of the SKU that says so.
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

    /// Feature level "Mandatory" in FOCUS 1.2, and whether nulls are allowed (specification/columns/*.md, "Content
    /// constraints").
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

    /// May be missing or null elsewhere, not in our rows: usage, not corrected, of a resource in a sub-account, at a
    /// list price.
    const NOT_NULL_HERE: [&str; 21] = [
        // Where the provider names accounts, and where there is an account.
        "BillingAccountName",
        "BillingAccountType",
        // A recommendation.
        "ChargeDescription",
        // Never null where the column is there.
        "ChargeFrequency",
        "ServiceSubcategory",
        // For usage that is no correction.
        "ConsumedQuantity",
        "ConsumedUnit",
        "ContractedUnitPrice",
        "ListUnitPrice",
        "PricingCategory",
        "PricingQuantity",
        "PricingUnit",
        "SkuId",
        "SkuPriceId",
        // A recommendation, where there is an SKU.
        "SkuMeter",
        // For a charge of a resource, which has a name.
        "ResourceId",
        "ResourceName",
        "ResourceType",
        // For a charge of a sub-account.
        "SubAccountId",
        "SubAccountName",
        "SubAccountType",
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
            let problem = [not_null, numbers, times, values]
                .into_iter()
                .find_map(|rules| rules(&|column| of(record, column)).err());
            if let Some(problem) = problem {
                return Err(format!("{problem}: {record:?}"));
            }
        }
        // Of one service there is one category (a must) and one subcategory (a should): servicename.md.
        for column in ["ServiceCategory", "ServiceSubcategory"] {
            let mut seen = BTreeMap::new();
            for record in &records {
                let (service, value) = (of(record, "ServiceName"), of(record, column));
                if *seen.entry(service).or_insert(value) != value {
                    return Err(format!("ServiceName {service:?} has more than one {column}"));
                }
            }
        }
        Ok(records.len())
    }

    /// The value of a column: empty if it is null, and if the column is missing.
    fn of<'a>(record: &'a Record, column: &str) -> &'a str {
        record.get(column).map(String::as_str).unwrap_or_default()
    }

    /// A record by its columns.
    type Of<'a> = dyn Fn(&str) -> &'a str + 'a;

    fn not_null(of: &Of<'_>) -> Result<(), String> {
        let mandatory = MANDATORY.into_iter().filter(|(_, nulls)| !nulls).map(|(column, _)| column);
        match mandatory.chain(NOT_NULL_HERE).find(|column| of(column).is_empty()) {
            Some(column) => Err(format!("{column} is null")),
            None => Ok(()),
        }
    }

    fn numbers(of: &Of<'_>) -> Result<(), String> {
        // numeric_format.md: digits and one point, no sign but a minus. It has an E notation too, which we never write.
        let number = |column: &str| -> Result<Decimal, String> {
            let text = of(column);
            let plain = text.trim_start_matches('-').chars().all(|c| c.is_ascii_digit() || c == '.');
            let number = Decimal::from_str_exact(text).map_err(|error| format!("{column} {text:?}: {error}"))?;
            if plain { Ok(number) } else { Err(format!("{column} {text:?} is no plain number")) }
        };
        let quantity = number("PricingQuantity")?;
        // A rule of ours: where nothing was used there is no row.
        if number("ConsumedQuantity")? <= Decimal::ZERO {
            return Err("ConsumedQuantity is not positive".to_owned());
        }
        // listunitprice.md, contractedunitprice.md, listcost.md, contractedcost.md
        for (cost, price) in [("ListCost", "ListUnitPrice"), ("ContractedCost", "ContractedUnitPrice")] {
            if number(price)? < Decimal::ZERO {
                return Err(format!("{price} is negative"));
            }
            if quantity * number(price)? != number(cost)? {
                return Err(format!("{cost} is not {price} times PricingQuantity"));
            }
        }
        for cost in ["BilledCost", "EffectiveCost"] {
            if number(cost)? != number("ContractedCost")? {
                return Err(format!("{cost} differs, without a discount or a commitment"));
            }
        }
        // billedcost.md: what a third party is paid is not billed.
        if of("ProviderName") != of("InvoiceIssuerName") && !number("BilledCost")?.is_zero() {
            return Err("BilledCost is not 0, and another than the provider issues the invoice".to_owned());
        }
        Ok(())
    }

    fn times(of: &Of<'_>) -> Result<(), String> {
        // datetime_format.md: ISO 8601 in UTC, to the second. Starts are inclusive, ends exclusive.
        let time = |column: &str| -> Result<Timestamp, String> {
            let text = of(column);
            if text.len() != "2026-03-01T00:00:00Z".len() || !text.ends_with('Z') {
                return Err(format!("{column} {text:?} is no time of the format"));
            }
            text.parse().map_err(|error| format!("{column} {text:?}: {error}"))
        };
        let (start, end) = (time("ChargePeriodStart")?, time("ChargePeriodEnd")?);
        let (first, last) = (time("BillingPeriodStart")?, time("BillingPeriodEnd")?);
        // A rule of ours: what is used is billed in the month of its use.
        if !(first <= start && start < end && end <= last) {
            return Err("the charge period is not in the billing period".to_owned());
        }
        Ok(())
    }

    fn values(of: &Of<'_>) -> Result<(), String> {
        // currency_format.md; a bill is not in a virtual currency (billingcurrency.md).
        let currency = of("BillingCurrency");
        if currency.len() != 3 || !currency.chars().all(|c| c.is_ascii_uppercase()) {
            return Err(format!("BillingCurrency {currency:?} is no code of ISO 4217"));
        }
        for (column, allowed) in [
            ("ChargeCategory", ["Usage"].as_slice()),
            // Null: no correction.
            ("ChargeClass", &[""]),
            // Null: there is no invoice to say which.
            ("InvoiceId", &[""]),
            ("ChargeFrequency", &["One-Time", "Recurring", "Usage-Based"]),
            ("PricingCategory", &["Standard", "Dynamic", "Committed", "Other"]),
            ("ServiceCategory", &["Compute"]),
            // Those of Compute that apply.
            ("ServiceSubcategory", &["Containers", "Virtual Machines"]),
            // unit_format.md
            ("PricingUnit", &["Core-Hours", "GiB-Hours", "GiB"]),
            ("ConsumedUnit", &["Core-Hours", "GiB-Hours", "GiB"]),
        ] {
            if !allowed.contains(&of(column)) {
                return Err(format!("{column} {:?} is not among the allowed values", of(column)));
            }
        }
        // key_value_format.md: a JSON object of plain values.
        let tags: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(of("Tags")).map_err(|error| format!("Tags: {error}"))?;
        if tags.values().any(|value| value.is_object() || value.is_array()) {
            return Err("Tags are nested".to_owned());
        }
        // tags.md: the provider's own have its prefix.
        if let Some(key) = tags.keys().find(|key| !key.starts_with(&format!("{GROUP}/"))) {
            return Err(format!("Tags: {key:?} is without the prefix"));
        }
        // resourcename.md
        if of("ResourceName") == of("ResourceId") {
            return Err("ResourceName is ResourceId".to_owned());
        }
        // skupriceid.md: of one SKU (ours are the same), and without what changes with time, as the price does.
        if of("SkuPriceId") != of("SkuId") {
            return Err("SkuPriceId is not of the SKU".to_owned());
        }
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
            ("EUR", "Euro", "BillingCurrency \"Euro\""),
            ("2026-03-01T00:00:00Z", "2026-03-01", "no time"),
            ("2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z", "billing period"),
            ("Usage-Based", "Hourly", "ChargeFrequency \"Hourly\""),
            ("0.06,", "0.07,", "times"),
            ("1.5,Core-Hours", "1e0,Core-Hours", "PricingQuantity \"1e0\""),
            ("Core-Hours", "", "ConsumedUnit is null"),
            ("Compute", "Storage", "ServiceCategory \"Storage\""),
            ("Elastic Virtual Machines", "Elastic Containers", "more than one ServiceSubcategory"),
            (",ElasticWorkload,", ",,", "ResourceType is null"),
            (",,Example Platform,", ",,Reseller,", "BilledCost is not 0"),
            (",,Example Platform,", ",7,Example Platform,", "InvoiceId \"7\""),
            (GROUP, "example.com", "prefix"),
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
