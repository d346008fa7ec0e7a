{{/* The chart's name, or what takes its place. */}}
{{- define "catamaran.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The name of every object of the release. At most 55 characters, so that "-metrics" still makes a Service name. */}}
{{- define "catamaran.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 55 | trimSuffix "-" }}
{{- else }}
{{- $name := include "catamaran.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 55 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 55 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "catamaran.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "catamaran.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* The Secret with the certificate of the usage intake. */}}
{{- define "catamaran.usageSecret" -}}
{{- default (printf "%s-usage-tls" (include "catamaran.fullname" .)) .Values.usage.certificateSecret }}
{{- end }}

{{/* What selects the agent's pods; fixed for the life of a DaemonSet. */}}
{{- define "catamaran.agentSelectorLabels" -}}
app.kubernetes.io/name: {{ include "catamaran.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: agent
{{- end }}

{{- define "catamaran.agentLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "catamaran.agentSelectorLabels" . }}
app.kubernetes.io/part-of: catamaran
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* The ServiceAccount of the agents: the operator takes usage from this one alone. */}}
{{- define "catamaran.agentAccount" -}}
{{- .Values.usage.account | default (printf "%s/catamaran-agent" .Release.Namespace) }}
{{- end }}

{{- define "catamaran.leaseName" -}}
{{- default (include "catamaran.fullname" .) .Values.leaderElection.leaseName }}
{{- end }}

{{- define "catamaran.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{/* What selects the operator's pods; fixed for the life of a Deployment. */}}
{{- define "catamaran.selectorLabels" -}}
app.kubernetes.io/name: {{ include "catamaran.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{/* The labels of every object. */}}
{{- define "catamaran.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "catamaran.selectorLabels" . }}
app.kubernetes.io/part-of: catamaran
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}
