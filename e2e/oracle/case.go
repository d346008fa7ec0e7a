package main

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	v1 "k8s.io/api/core/v1"
)

// A Case is one decision for one workload at one frozen instant.
type Case struct {
	Name            string
	CurrentReplicas int32
	StatusReplicas  int32
	Min             *int32
	Max             int32
	Metrics         []autoscalingv2.MetricSpec
	// Samples are parallel to Metrics: what the metrics API answers.
	Samples  []Sample
	Behavior *autoscalingv2.HorizontalPodAutoscalerBehavior
	Pods     []Pod
	// Recommendations: nil means that the controller has just started; empty, that it remembers nothing.
	Recommendations   []Recommendation
	ScaleUpEvents     []ScaleEvent
	ScaleDownEvents   []ScaleEvent
	InitialConditions []Condition
	// Selector of the scale; absent: one that matches every pod of the case.
	Selector             *string
	OtherHPAs            []OtherHPA
	ScaleGetError        *string
	ScaleUpdateError     *string
	ScaleUpdateConflicts int
	Settings             Settings
}

// Settings are the flags and gates of the controller manager.
type Settings struct {
	Tolerance               float64
	CPUInitializationPeriod Seconds `json:"cpuInitializationPeriodSeconds"`
	InitialReadinessDelay   Seconds `json:"initialReadinessDelaySeconds"`
	DownscaleStabilization  Seconds `json:"downscaleStabilizationSeconds"`
	// FeatureGates that differ from their defaults.
	FeatureGates map[string]bool
}

// A Sample is the answer of a metrics API for one metric. Which members count depends on the type of the metric.
type Sample struct {
	Error       *string
	Pods        map[string]PodSample
	ValueMilli  *int64
	ValuesMilli []int64
}

// A PodSample is what is known of one pod. A container that is null has no value for the resource.
type PodSample struct {
	Containers map[string]*int64
	ValueMilli int64
	Age        Age      `json:"ageSeconds"`
	Window     *Seconds `json:"windowSeconds"`
}

// A Pod of the target.
type Pod struct {
	Name            string
	Phase           v1.PodPhase
	Ready           *bool
	ReadyTransition *Age `json:"readyTransitionAgeSeconds"`
	Start           *Age `json:"startAgeSeconds"`
	Deleted         bool
	Containers      []Container
	InitContainers  []Container
	PodRequests     *Requests
	Labels          map[string]string
}

// A Container with its requests.
type Container struct {
	Name string
	Requests
	RestartAlways bool
}

// Requests of a container or a pod; nil: none.
type Requests struct {
	CPUMilli    *int64 `json:"cpuRequestMilli"`
	MemoryBytes *int64 `json:"memoryRequestBytes"`
}

// A Recommendation that the controller remembers.
type Recommendation struct {
	Replicas int32
	Age      Age `json:"ageSeconds"`
}

// A ScaleEvent that the controller remembers.
type ScaleEvent struct {
	Change int32
	Age    Age `json:"ageSeconds"`
}

// A Condition of the autoscaler.
type Condition struct {
	Type   autoscalingv2.HorizontalPodAutoscalerConditionType `json:"type"`
	Status v1.ConditionStatus                                 `json:"status"`
	Reason string                                             `json:"reason"`
}

// An OtherHPA of the namespace, with the selector that it was last seen with.
type OtherHPA struct {
	Name     string
	Selector string
}

// A Result is what became of a case.
type Result struct {
	Name           string           `json:"name"`
	Replicas       int32            `json:"replicas"`
	Conditions     []Condition      `json:"conditions"`
	CurrentMetrics []*CurrentMetric `json:"currentMetrics"`
	Error          bool             `json:"error"`
	// Message of the error, for people.
	Message string `json:"message,omitempty"`
	// Panic says that the controller itself crashed; nothing else counts then.
	Panic string `json:"panic,omitempty"`
}

// A CurrentMetric is one entry of status.currentMetrics.
type CurrentMetric struct {
	Type               autoscalingv2.MetricSourceType `json:"type"`
	AverageUtilization *int32                         `json:"averageUtilization,omitempty"`
	AverageValueMilli  *int64                         `json:"averageValueMilli,omitempty"`
	ValueMilli         *int64                         `json:"valueMilli,omitempty"`
}

// Seconds is a duration, exact for whole seconds.
type Seconds time.Duration

// UnmarshalJSON reads a JSON number.
func (s *Seconds) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		return nil
	}
	var number json.Number
	if err := json.Unmarshal(data, &number); err != nil {
		return err
	}
	if whole, err := strconv.ParseInt(number.String(), 10, 64); err == nil {
		if whole > math.MaxInt64/int64(time.Second) || whole < math.MinInt64/int64(time.Second) {
			return fmt.Errorf("%d seconds do not fit in a duration", whole)
		}
		*s = Seconds(time.Duration(whole) * time.Second)
		return nil
	}
	fraction, err := number.Float64()
	if err != nil {
		return err
	}
	*s = Seconds(fraction * float64(time.Second))
	return nil
}

// An Age is a time before now.
type Age struct{ Seconds }

// unset is the age that stands for a zero time.
const unset = 315360000 * time.Second

// Time is the instant of this age; nil, like the age that stands for it, is the zero time.
func (a *Age) Time() time.Time {
	if a == nil || time.Duration(a.Seconds) == unset {
		return time.Time{}
	}
	return time.Now().Add(-time.Duration(a.Seconds))
}
