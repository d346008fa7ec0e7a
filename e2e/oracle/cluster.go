package main

import (
	"context"
	"errors"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	typedautoscaling "k8s.io/client-go/kubernetes/typed/autoscaling/v2"
	typedcore "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/scale"
	defaults "k8s.io/kubernetes/pkg/apis/autoscaling/v2"
	"k8s.io/utils/ptr"
)

const (
	namespace   = "default"
	name        = "hpa"
	target      = "target"
	anyOfTarget = "app=target"
)

// autoscaler is the HPA of a case, as the API server stores it.
func autoscaler(c *Case) *autoscalingv2.HorizontalPodAutoscaler {
	hpa := &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: target},
			MinReplicas:    c.Min,
			MaxReplicas:    c.Max,
			Metrics:        c.Metrics,
			Behavior:       c.Behavior,
		},
		Status: autoscalingv2.HorizontalPodAutoscalerStatus{CurrentReplicas: c.CurrentReplicas, DesiredReplicas: c.CurrentReplicas},
	}
	for _, condition := range c.InitialConditions {
		hpa.Status.Conditions = append(hpa.Status.Conditions, autoscalingv2.HorizontalPodAutoscalerCondition{
			Type: condition.Type, Status: condition.Status, Reason: condition.Reason, LastTransitionTime: metav1.Now(),
		})
	}
	defaults.SetDefaults_HorizontalPodAutoscaler(hpa)
	return hpa
}

func (p *Pod) object() *v1.Pod {
	pod := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: p.Name, Labels: map[string]string{"app": target}},
		Spec:       v1.PodSpec{Containers: containers(p.Containers), InitContainers: containers(p.InitContainers)},
		Status:     v1.PodStatus{Phase: p.Phase},
	}
	if p.Labels != nil {
		pod.Labels = p.Labels
	}
	if p.PodRequests != nil {
		pod.Spec.Resources = &v1.ResourceRequirements{Requests: p.PodRequests.list()}
	}
	if p.Deleted {
		pod.DeletionTimestamp = ptr.To(metav1.Now())
	}
	if p.Start != nil {
		pod.Status.StartTime = ptr.To(metav1.NewTime(p.Start.Time()))
	}
	if p.Ready != nil {
		status := v1.ConditionFalse
		if *p.Ready {
			status = v1.ConditionTrue
		}
		pod.Status.Conditions = []v1.PodCondition{{
			Type: v1.PodReady, Status: status, LastTransitionTime: metav1.NewTime(p.ReadyTransition.Time()),
		}}
	}
	return pod
}

func containers(from []Container) []v1.Container {
	var to []v1.Container
	for _, c := range from {
		container := v1.Container{Name: c.Name, Resources: v1.ResourceRequirements{Requests: c.list()}}
		if c.RestartAlways {
			container.RestartPolicy = ptr.To(v1.ContainerRestartPolicyAlways)
		}
		to = append(to, container)
	}
	return to
}

func (r *Requests) list() v1.ResourceList {
	list := v1.ResourceList{}
	if r.CPUMilli != nil {
		list[v1.ResourceCPU] = *resource.NewMilliQuantity(*r.CPUMilli, resource.DecimalSI)
	}
	if r.MemoryBytes != nil {
		list[v1.ResourceMemory] = *resource.NewQuantity(*r.MemoryBytes, resource.BinarySI)
	}
	return list
}

// mapper knows the kind of the target.
func mapper() meta.RESTMapper {
	apps := schema.GroupVersion{Group: "apps", Version: "v1"}
	mapper := meta.NewDefaultRESTMapper([]schema.GroupVersion{apps})
	mapper.Add(apps.WithKind("Deployment"), meta.RESTScopeNamespace)
	return mapper
}

// targetScale is the scale subresource of the target.
type targetScale struct {
	scale.ScaleInterface
	replicas, status int32
	selector         string
	getError         *string
	updateError      *string
	conflicts        int
}

func newTargetScale(c *Case) *targetScale {
	return &targetScale{
		replicas:    c.CurrentReplicas,
		status:      c.StatusReplicas,
		selector:    ptr.Deref(c.Selector, anyOfTarget),
		getError:    c.ScaleGetError,
		updateError: c.ScaleUpdateError,
		conflicts:   c.ScaleUpdateConflicts,
	}
}

func (s *targetScale) Scales(string) scale.ScaleInterface { return s }

func (s *targetScale) Get(context.Context, schema.GroupResource, string, metav1.GetOptions) (*autoscalingv1.Scale, error) {
	if s.getError != nil {
		return nil, errors.New(*s.getError)
	}
	return &autoscalingv1.Scale{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: target},
		Spec:       autoscalingv1.ScaleSpec{Replicas: s.replicas},
		Status:     autoscalingv1.ScaleStatus{Replicas: s.status, Selector: s.selector},
	}, nil
}

func (s *targetScale) Update(_ context.Context, resource schema.GroupResource, scale *autoscalingv1.Scale, _ metav1.UpdateOptions) (*autoscalingv1.Scale, error) {
	if s.updateError != nil {
		return nil, errors.New(*s.updateError)
	}
	if s.conflicts > 0 {
		s.conflicts--
		return nil, apierrors.NewConflict(resource, target, errors.New("it was changed meanwhile"))
	}
	s.replicas = scale.Spec.Replicas
	return scale, nil
}

// storedAutoscaler is the HPA in the API server, of which the controller writes the status.
type storedAutoscaler struct {
	typedautoscaling.HorizontalPodAutoscalerInterface
	status *autoscalingv2.HorizontalPodAutoscalerStatus
}

func (s *storedAutoscaler) HorizontalPodAutoscalers(string) typedautoscaling.HorizontalPodAutoscalerInterface {
	return s
}

func (s *storedAutoscaler) UpdateStatus(_ context.Context, hpa *autoscalingv2.HorizontalPodAutoscaler, _ metav1.UpdateOptions) (*autoscalingv2.HorizontalPodAutoscaler, error) {
	s.status = hpa.Status.DeepCopy()
	return hpa, nil
}

// noEvents takes events and forgets them.
type noEvents struct{ typedcore.EventInterface }

func (e noEvents) Events(string) typedcore.EventInterface                    { return e }
func (noEvents) CreateWithEventNamespace(event *v1.Event) (*v1.Event, error) { return event, nil }
func (noEvents) UpdateWithEventNamespace(event *v1.Event) (*v1.Event, error) { return event, nil }
func (noEvents) PatchWithEventNamespace(event *v1.Event, _ []byte) (*v1.Event, error) {
	return event, nil
}
