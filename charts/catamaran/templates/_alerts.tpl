{{/* The alerts, each with a runbook in docs/operations.md. `own` selects the series of this release, `usage` is whether agents are listened to. */}}
{{- define "catamaran.alerts" -}}
- alert: CatamaranAbsent
  expr: absent(up{ {{- .own -}} } == 1)
  for: 5m
  severity: critical
  summary: No operator of Catamaran is up.
  description: Prometheus reaches no operator. Nothing is rolled out or scaled; what runs goes on.
- alert: CatamaranNoLeader
  expr: sum(catamaran_leader{ {{- .own -}} }) != 1
  for: 3m
  severity: critical
  summary: {{ `'{{ $value }} operators of Catamaran lead, where one has to.'` }}
  description: Without a leader nothing is rolled out or scaled. A takeover takes 19 s at most.
- alert: CatamaranQueueStuck
  expr: sum(avg_over_time(catamaran_queue_depth{ {{- .own -}} }[10m])) >= 1 and sum(increase(catamaran_reconcile_duration_seconds_count{ {{- .own -}} }[10m])) == 0
  for: 1m
  severity: critical
  summary: Workloads of Catamaran wait, and none is reconciled.
  description: Work has been waiting for ten minutes, and not one reconcile ended.
- alert: CatamaranReconcileErrors
  expr: sum by (class) (rate(catamaran_reconcile_errors_total{ {{- .own -}} ,class!="conflict"}[10m])) > 0
  for: 15m
  severity: warning
  summary: {{ `'Reconciles of Catamaran go on failing ({{ $labels.class }}).'` }}
  description: The API server refuses writes, or does not answer. The log names workload, object and reason.
- alert: CatamaranWorkloadStalled
  expr: max by (hull) (catamaran_workloads{ {{- .own -}} ,state="Stalled"}) > 0
  for: 15m
  severity: warning
  summary: {{ `'{{ $value }} workloads of Catamaran are Stalled ({{ $labels.hull }}).'` }}
  description: They go no further without somebody who changes them. Their condition Stalled tells why.
- alert: CatamaranScalingWithoutMetrics
  expr: sum(rate(catamaran_scaling_decisions_total{ {{- .own -}} ,limit=~"missingMetrics|fallback"}[10m])) / sum(rate(catamaran_scaling_decisions_total{ {{- .own -}} ,outcome!="idle"}[10m])) > 0.1
  for: 15m
  severity: warning
  summary: {{ `'{{ $value | humanizePercentage }} of the decisions of scaling have no metrics.'` }}
  description: Counts are held or are fallback counts. Nothing scales in meanwhile.
- alert: CatamaranScalingAtMax
  expr: sum(rate(catamaran_scaling_decisions_total{ {{- .own -}} ,limit="maxReplicas"}[15m])) / sum(rate(catamaran_scaling_decisions_total{ {{- .own -}} ,outcome!="idle"}[15m])) > 0.5
  for: 1h
  severity: info
  summary: {{ `'{{ $value | humanizePercentage }} of the decisions of scaling end at maxReplicas.'` }}
  description: Metrics have asked for more than maxReplicas allow for an hour.
- alert: CatamaranScalingSlow
  expr: histogram_quantile(0.99, sum by (le) (rate(catamaran_scaling_sample_to_decision_seconds_bucket{ {{- .own -}} }[10m]))) > 2.5
  for: 15m
  severity: warning
  summary: {{ `'Decisions of scaling are late: {{ $value | humanizeDuration }} after the usage (p99).'` }}
  description: A decision is made within a second of the usage or the answer that it is made on.
{{- if .usage }}
- alert: CatamaranUsageLost
  expr: catamaran_usage_streams{ {{- .own -}} } == 0
  for: 10m
  severity: warning
  summary: {{ `'No agent streams usage to {{ $labels.pod }}.'` }}
  description: Each replica of the operator needs the streams of all agents. Without them usage comes from metrics.k8s.io, every 15 s.
- alert: CatamaranUsageStale
  expr: sum(rate(catamaran_usage_age_seconds_bucket{ {{- .own -}} ,le=~"5(\\.0)?"}[10m])) / sum(rate(catamaran_usage_age_seconds_count{ {{- .own -}} }[10m])) < 0.9
  for: 10m
  severity: warning
  summary: {{ `'Only {{ $value | humanizePercentage }} of the usage is fresh.'` }}
  description: Usage older than 5 s does not count. Agents report too seldom, or come and go.
- alert: CatamaranIntakeRefusesAgents
  expr: sum by (reason) (rate(catamaran_usage_refused_streams_total{ {{- .own -}} }[10m])) > 0
  for: 15m
  severity: warning
  summary: {{ `'Agents are refused ({{ $labels.reason }}).'` }}
  description: The nodes of these agents have no usage.
{{- end }}
{{- end }}
