package main

import (
	"context"
	"fmt"
	"reflect"
	"runtime/debug"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/go-logr/logr"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller/podautoscaler"
	"k8s.io/kubernetes/pkg/controller/podautoscaler/metrics"
	"k8s.io/kubernetes/pkg/controller/util/selectors"
)

// resync is how often the controller reconciles; it takes no part in a decision.
const resync = 15 * time.Second

// key is how the controller calls the HPA of a case.
const key = namespace + "/" + name

//go:linkname reconcileKey k8s.io/kubernetes/pkg/controller/podautoscaler.(*HorizontalController).reconcileKey
func reconcileKey(controller *podautoscaler.HorizontalController, ctx context.Context, key string) (deleted bool, err error)

// run reconciles a case once. The clock stands still meanwhile: in a bubble it moves only when every goroutine waits.
func run(t *testing.T, c *Case) Result {
	var result Result
	restore := setGates(c.Settings.FeatureGates)
	defer restore()
	synctest.Test(t, func(*testing.T) { result = reconcile(c) })
	return result
}

func reconcile(c *Case) (result Result) {
	ctx, cancel := context.WithCancel(klog.NewContext(context.Background(), logr.Discard()))
	defer cancel()

	hpa := autoscaler(c)
	stored := &storedAutoscaler{status: &hpa.Status}
	scale := newTargetScale(c)
	apis := newMetricsAPIs(c, hpa.Spec.Metrics)

	// Never started: what the listers see is what the stores are filled with.
	factory := informers.NewSharedInformerFactory(nil, resync)
	hpas, pods := factory.Autoscaling().V2().HorizontalPodAutoscalers(), factory.Core().V1().Pods()
	must(hpas.Informer().GetIndexer().Add(hpa))
	for i := range c.Pods {
		must(pods.Informer().GetIndexer().Add(c.Pods[i].object()))
	}

	controller := podautoscaler.NewHorizontalController(
		ctx, noEvents{}, scale, stored, mapper(),
		metrics.NewRESTMetricsClient(apis, apis, externalMetrics{apis}),
		hpas, pods,
		resync,
		time.Duration(c.Settings.DownscaleStabilization),
		c.Settings.Tolerance,
		time.Duration(c.Settings.CPUInitializationPeriod),
		time.Duration(c.Settings.InitialReadinessDelay),
	)
	defer field[workqueue.TypedRateLimitingInterface[string]](controller, "queue").ShutDown()
	remember(controller, c)

	result.Name = c.Name
	defer func() {
		if crash := recover(); crash != nil {
			result.Panic = fmt.Sprintf("%v\n%s", crash, debug.Stack())
		}
	}()
	_, err := reconcileKey(controller, ctx, key)
	result.Error = err != nil
	if err != nil {
		result.Message = err.Error()
	}
	result.Replicas = scale.replicas
	result.Conditions = []Condition{}
	for _, condition := range stored.status.Conditions {
		result.Conditions = append(result.Conditions, Condition{condition.Type, condition.Status, condition.Reason})
	}
	result.CurrentMetrics = []*CurrentMetric{}
	for _, metric := range stored.status.CurrentMetrics {
		result.CurrentMetrics = append(result.CurrentMetrics, current(metric))
	}
	return result
}

// current is an entry of status.currentMetrics; nil where the controller left it empty, because the metric failed.
func current(status autoscalingv2.MetricStatus) *CurrentMetric {
	var value autoscalingv2.MetricValueStatus
	switch {
	case status.Resource != nil:
		value = status.Resource.Current
	case status.ContainerResource != nil:
		value = status.ContainerResource.Current
	case status.Pods != nil:
		value = status.Pods.Current
	case status.Object != nil:
		value = status.Object.Current
	case status.External != nil:
		value = status.External.Current
	default:
		return nil
	}
	metric := &CurrentMetric{Type: status.Type, AverageUtilization: value.AverageUtilization}
	if value.AverageValue != nil {
		milli := value.AverageValue.MilliValue()
		metric.AverageValueMilli = &milli
	}
	if value.Value != nil {
		milli := value.Value.MilliValue()
		metric.ValueMilli = &milli
	}
	return metric
}

// remember gives the controller the history of the case.
func remember(controller *podautoscaler.HorizontalController, c *Case) {
	if c.Recommendations != nil {
		history(controller, "recommendations", len(c.Recommendations), func(i int, entry reflect.Value) {
			set(entry, "recommendation", c.Recommendations[i].Replicas)
			set(entry, "timestamp", c.Recommendations[i].Age.Time())
		})
	}
	for member, events := range map[string][]ScaleEvent{"scaleUpEvents": c.ScaleUpEvents, "scaleDownEvents": c.ScaleDownEvents} {
		history(controller, member, len(events), func(i int, entry reflect.Value) {
			set(entry, "replicaChange", events[i].Change)
			set(entry, "timestamp", events[i].Age.Time())
		})
	}
	// As after the HPA was added, before its selector was seen.
	known := field[selectorTracker](controller, "selectorTracker")
	known.PutIfAbsent(namespace, selectors.Parse(key), labels.Nothing())
	for _, other := range c.OtherHPAs {
		selector, err := labels.Parse(other.Selector)
		must(err)
		known.PutIfAbsent(namespace, selectors.Key{Namespace: namespace, Name: other.Name}, selector)
	}
}

// selectorTracker is what is needed here of the controller's own unexported type.
type selectorTracker interface {
	PutIfAbsent(namespace string, hpa selectors.Key, selector labels.Selector) bool
}

// history fills an unexported map of slices of the controller, of a type that cannot be named here.
func history(controller *podautoscaler.HorizontalController, member string, length int, fill func(int, reflect.Value)) {
	maps := reach(reflect.ValueOf(controller).Elem(), member)
	entries := reflect.MakeSlice(maps.Type().Elem(), length, length)
	for i := range length {
		fill(i, entries.Index(i))
	}
	maps.SetMapIndex(reflect.ValueOf(key), entries)
}

// field reads an unexported member of the controller.
func field[T any](controller *podautoscaler.HorizontalController, member string) T {
	return reach(reflect.ValueOf(controller).Elem(), member).Interface().(T)
}

func set(entry reflect.Value, member string, value any) {
	reach(entry, member).Set(reflect.ValueOf(value))
}

// reach gives full access to an unexported member of an addressable struct.
func reach(of reflect.Value, member string) reflect.Value {
	found := of.FieldByName(member)
	return reflect.NewAt(found.Type(), unsafe.Pointer(found.UnsafeAddr())).Elem()
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
