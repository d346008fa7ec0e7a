package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	customapi "k8s.io/metrics/pkg/apis/custom_metrics/v1beta2"
	externalapi "k8s.io/metrics/pkg/apis/external_metrics/v1beta1"
	metricsapi "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	"k8s.io/metrics/pkg/client/clientset/versioned/typed/metrics/v1beta1"
	"k8s.io/metrics/pkg/client/custom_metrics"
	"k8s.io/metrics/pkg/client/external_metrics"
)

// metricsAPIs answers for metrics.k8s.io, custom.metrics.k8s.io and external.metrics.k8s.io with the samples of a case.
//
// A call to metrics.k8s.io does not say which metric it is for, so these answers are handed out in the order of the metrics; the others are found by what is asked for.
type metricsAPIs struct {
	resource []resourceSample
	custom   map[series]Sample
	external map[series]Sample
}

type resourceSample struct {
	name   v1.ResourceName
	sample Sample
}

// A series of custom.metrics.k8s.io (kind and object) or external.metrics.k8s.io (neither).
type series struct {
	kind, object, metric, selector string
}

func newMetricsAPIs(c *Case, metrics []autoscalingv2.MetricSpec) *metricsAPIs {
	apis := &metricsAPIs{custom: map[series]Sample{}, external: map[series]Sample{}}
	for i, metric := range metrics {
		var sample Sample
		if i < len(c.Samples) {
			sample = c.Samples[i]
		}
		switch {
		case metric.Resource != nil:
			apis.addResource(metric.Resource.Name, metric.Resource.Target, sample)
		case metric.ContainerResource != nil:
			apis.addResource(metric.ContainerResource.Name, metric.ContainerResource.Target, sample)
		case metric.Pods != nil:
			apis.add(apis.custom, series{kind: "Pod"}, metric.Pods.Metric, sample)
		case metric.Object != nil:
			object := series{kind: metric.Object.DescribedObject.Kind, object: metric.Object.DescribedObject.Name}
			described := schema.FromAPIVersionAndKind(metric.Object.DescribedObject.APIVersion, metric.Object.DescribedObject.Kind)
			if described.GroupKind() == (schema.GroupKind{Kind: "Namespace"}) {
				// A namespace is always the own one, whatever its name says.
				object.object = namespace
			}
			apis.add(apis.custom, object, metric.Object.Metric, sample)
		case metric.External != nil:
			apis.add(apis.external, series{}, metric.External.Metric, sample)
		}
	}
	return apis
}

// addResource queues an answer, unless the metric has no target: then the controller does not ask.
func (a *metricsAPIs) addResource(name v1.ResourceName, target autoscalingv2.MetricTarget, sample Sample) {
	if target.AverageValue != nil || target.AverageUtilization != nil {
		a.resource = append(a.resource, resourceSample{name, sample})
	}
}

// add files an answer, unless the selector does not parse: then the controller does not ask.
func (a *metricsAPIs) add(to map[series]Sample, key series, metric autoscalingv2.MetricIdentifier, sample Sample) {
	selector, err := metav1.LabelSelectorAsSelector(metric.Selector)
	if err != nil {
		return
	}
	key.metric, key.selector = metric.Name, selector.String()
	to[key] = sample
}

func (a *metricsAPIs) answer(from map[series]Sample, key series) (Sample, error) {
	sample, found := from[key]
	if !found {
		return Sample{}, fmt.Errorf("the case has no sample of %+v", key)
	}
	return sample, sample.err()
}

func (s Sample) err() error {
	if s.Error != nil {
		return errors.New(*s.Error)
	}
	return nil
}

// PodMetricses is metrics.k8s.io.
func (a *metricsAPIs) PodMetricses(string) v1beta1.PodMetricsInterface { return podMetrics{apis: a} }

type podMetrics struct {
	v1beta1.PodMetricsInterface
	apis *metricsAPIs
}

func (p podMetrics) List(context.Context, metav1.ListOptions) (*metricsapi.PodMetricsList, error) {
	if len(p.apis.resource) == 0 {
		return nil, errors.New("the case has no more samples of resources")
	}
	next := p.apis.resource[0]
	p.apis.resource = p.apis.resource[1:]
	if err := next.sample.err(); err != nil {
		return nil, err
	}
	list := &metricsapi.PodMetricsList{}
	for name, pod := range next.sample.Pods {
		item := metricsapi.PodMetrics{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
			Timestamp:  metav1.NewTime(pod.Age.Time()),
		}
		if pod.Window != nil {
			item.Window.Duration = time.Duration(*pod.Window)
		}
		for container, milli := range pod.Containers {
			usage := v1.ResourceList{}
			if milli != nil {
				usage[next.name] = *resource.NewMilliQuantity(*milli, resource.DecimalSI)
			}
			item.Containers = append(item.Containers, metricsapi.ContainerMetrics{Name: container, Usage: usage})
		}
		list.Items = append(list.Items, item)
	}
	return list, nil
}

// RootScopedMetrics is custom.metrics.k8s.io about namespaces.
func (a *metricsAPIs) RootScopedMetrics() custom_metrics.MetricsInterface { return customMetrics{a} }

// NamespacedMetrics is custom.metrics.k8s.io about everything else.
func (a *metricsAPIs) NamespacedMetrics(string) custom_metrics.MetricsInterface {
	return customMetrics{a}
}

type customMetrics struct{ apis *metricsAPIs }

func (m customMetrics) GetForObject(kind schema.GroupKind, name, metric string, selector labels.Selector) (*customapi.MetricValue, error) {
	sample, err := m.apis.answer(m.apis.custom, series{kind.Kind, name, metric, selector.String()})
	if err != nil {
		return nil, err
	}
	if sample.ValueMilli == nil {
		// As the real client says it.
		return nil, errors.New("the custom metrics API server returned 0 results when we asked for exactly one")
	}
	return &customapi.MetricValue{
		Timestamp: metav1.Now(),
		Value:     *resource.NewMilliQuantity(*sample.ValueMilli, resource.DecimalSI),
	}, nil
}

func (m customMetrics) GetForObjects(kind schema.GroupKind, _ labels.Selector, metric string, selector labels.Selector) (*customapi.MetricValueList, error) {
	sample, err := m.apis.answer(m.apis.custom, series{kind.Kind, "", metric, selector.String()})
	if err != nil {
		return nil, err
	}
	list := &customapi.MetricValueList{}
	for name, pod := range sample.Pods {
		value := customapi.MetricValue{
			DescribedObject: v1.ObjectReference{Kind: "Pod", Namespace: namespace, Name: name},
			Timestamp:       metav1.NewTime(pod.Age.Time()),
			Value:           *resource.NewMilliQuantity(pod.ValueMilli, resource.DecimalSI),
		}
		if pod.Window != nil {
			seconds := int64(time.Duration(*pod.Window) / time.Second)
			value.WindowSeconds = &seconds
		}
		list.Items = append(list.Items, value)
	}
	return list, nil
}

// externalMetrics is external.metrics.k8s.io; a type of its own, because its method has the name of one of custom.metrics.k8s.io.
type externalMetrics struct{ apis *metricsAPIs }

func (m externalMetrics) NamespacedMetrics(string) external_metrics.MetricsInterface { return m }

func (m externalMetrics) List(metric string, selector labels.Selector) (*externalapi.ExternalMetricValueList, error) {
	sample, err := m.apis.answer(m.apis.external, series{metric: metric, selector: selector.String()})
	if err != nil {
		return nil, err
	}
	list := &externalapi.ExternalMetricValueList{}
	for _, milli := range sample.ValuesMilli {
		list.Items = append(list.Items, externalapi.ExternalMetricValue{
			MetricName: metric,
			Timestamp:  metav1.Now(),
			Value:      *resource.NewMilliQuantity(milli, resource.DecimalSI),
		})
	}
	return list, nil
}
