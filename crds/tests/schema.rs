//! What the schema promises to people: every field is explained, every rule says what to do, and no count is ever
//! defaulted.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;

/// Calls `look` with every property under a schema and its path; `open` says which parts are Kubernetes' own types.
fn walk(path: &str, schema: &JSONSchemaProps, look: &mut impl FnMut(&str, &JSONSchemaProps)) {
    for (name, property) in schema.properties.iter().flatten() {
        let path = format!("{path}.{name}");
        look(&path, property);
        walk(&path, property, look);
    }
    if let Some(k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaPropsOrArray::Schema(
        items,
    )) = &schema.items
    {
        walk(&format!("{path}[]"), items, look);
    }
}

fn schemas() -> Vec<(String, JSONSchemaProps)> {
    catamaran_crds::definitions()
        .into_iter()
        .flat_map(|definition| {
            let kind = definition.spec.names.kind;
            definition.spec.versions.into_iter().map(move |version| {
                let schema = version.schema.and_then(|schema| schema.open_api_v3_schema).expect("a schema");
                (kind.clone(), schema)
            })
        })
        .collect()
}

#[test]
fn every_field_of_ours_is_explained() {
    // Below these, the fields are Kubernetes' or KubeVirt's own, and explained there.
    let foreign = [
        "spec.container.template",
        "spec.container.env",
        "spec.container.envFrom",
        "spec.container.lifecycle",
        "spec.container.volumeMounts",
        "spec.container.livenessProbe",
        "spec.container.readinessProbe",
        "spec.container.startupProbe",
        "spec.container.securityContext",
        "spec.container.ports",
        "spec.container.volumeDevices",
        "spec.container.resizePolicy",
        "spec.placement.affinity",
        "spec.placement.tolerations",
        "spec.placement.topologySpreadConstraints",
        "status.conditions",
        "spec.scaling.metrics[].resource",
        "spec.scaling.metrics[].containerResource",
        "spec.scaling.metrics[].pods",
        "spec.scaling.metrics[].object",
        "spec.scaling.metrics[].external",
        "spec.virtualMachine.template",
        "spec.virtualMachine.readinessProbe",
        "spec.virtualMachine.livenessProbe",
    ];
    for (kind, schema) in schemas() {
        let mut seen = 0;
        walk("", &schema, &mut |path, property| {
            let path = path.trim_start_matches('.');
            let below = foreign.iter().any(|start| path.len() > start.len() && path.starts_with(start));
            if path.contains('.') && !below {
                seen += 1;
                assert!(property.description.as_ref().is_some_and(|text| text.len() > 10), "{kind} {path}");
            }
        });
        assert!(seen > 4, "{kind}: {seen} fields");
    }
}

#[test]
fn every_rule_says_what_to_do() {
    let mut seen = 0;
    let mut look = |kind: &str, path: &str, schema: &JSONSchemaProps| {
        for rule in schema.x_kubernetes_validations.iter().flatten() {
            seen += 1;
            let message = rule.message.as_deref().or(rule.message_expression.as_deref()).unwrap_or_default();
            let way_out = ["set", "must", "needs", "required", "leave", "choose"];
            let found = message.split(|c: char| !c.is_alphanumeric()).any(|word| way_out.contains(&word));
            assert!(found && message.len() > 10, "{kind} {path}: {}: {message:?}", rule.rule);
        }
    };
    for (kind, schema) in schemas() {
        look(&kind, "", &schema);
        walk("", &schema, &mut |path, property| look(&kind, path, property));
    }
    assert!(seen > 20, "{seen} rules");
}

/// The rule on names, the constant and what they are for agree: replicas of a workload with the longest name have DNS
/// labels.
#[test]
fn the_longest_name_leaves_room_for_the_names_of_replicas() {
    use catamaran_crds::names::MAX_NAME_LENGTH;
    let (_, schema) = schemas().into_iter().find(|(kind, _)| kind == "ElasticWorkload").expect("a kind of ours");
    let rules: Vec<String> = schema.x_kubernetes_validations.into_iter().flatten().map(|rule| rule.rule).collect();
    assert!(rules.contains(&format!("self.metadata.name.size() <= {MAX_NAME_LENGTH}")), "{rules:?}");
    // A dash and a revision of 10 characters; then a dash and 5 for a pod, or 5 without a dash for a VMI.
    assert_eq!(MAX_NAME_LENGTH + 1 + 10 + 1 + 5, 63);
}

#[test]
fn no_replica_count_has_a_default() {
    for (kind, schema) in schemas() {
        walk("", &schema, &mut |path, property| {
            assert!(
                !(path.starts_with(".spec") && path.ends_with("replicas") && property.default.is_some()),
                "{kind} {path}"
            );
        });
    }
}

/// What a bill multiplies with: text, so that no number is rounded, in a form that the plugin reads.
#[test]
fn each_amount_of_a_price_has_its_rule() {
    let (_, schema) = schemas().into_iter().find(|(kind, _)| kind == "WorkloadClass").expect("a kind of ours");
    let mut seen = Vec::new();
    walk("", &schema, &mut |path, property| {
        if path != ".spec.price" {
            return;
        }
        assert_eq!(property.required.as_deref(), Some(&["currency".to_owned()][..]));
        let rules: Vec<_> = property.x_kubernetes_validations.iter().flatten().collect();
        for (name, amount) in property.properties.iter().flatten() {
            assert_eq!(amount.type_.as_deref(), Some("string"), "{name}");
            assert!(
                amount.max_length.is_some(),
                "{name}: a rule on a text without an end is refused by the API server"
            );
            let own = rules.iter().find(|rule| rule.rule.contains(&format!("self.{name}.matches('^")));
            let message = own.and_then(|rule| rule.message.as_deref()).unwrap_or_default();
            assert!(message.contains(&format!("price.{name} must be")), "{name}: {message:?}");
            seen.push(name.clone());
        }
    });
    assert_eq!(seen, ["cpuHour", "currency", "ioGib", "memoryGibHour"]);
}
