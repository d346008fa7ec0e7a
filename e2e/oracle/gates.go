package main

import (
	"maps"

	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/component-base/featuregate"
)

// setGates sets feature gates until restore is called. A gate that depends on one that is off goes off with it.
func setGates(wanted map[string]bool) (restore func()) {
	if len(wanted) == 0 {
		return func() {}
	}
	gates := utilfeature.DefaultMutableFeatureGate
	values := maps.Clone(wanted)
	for dependent, on := range utilfeature.DefaultFeatureGate.Dependencies() {
		for _, gate := range on {
			value, set := wanted[string(gate)]
			if set && !value && gates.Enabled(dependent) {
				values[string(dependent)] = false
			}
		}
	}
	before := map[string]bool{}
	for gate := range values {
		before[gate] = gates.Enabled(featuregate.Feature(gate))
	}
	must(gates.SetFromMap(values))
	return func() { must(gates.SetFromMap(before)) }
}
