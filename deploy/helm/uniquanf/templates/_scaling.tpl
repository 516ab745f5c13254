{{/* Ready and running tasks of this release alone; standbys export none. */}}
{{- define "uniquanf.taskQuery" -}}
sum(uniquanf_tasks{state=~"ready|leased",{{ include "uniquanf.seriesOfRelease" . }}})
{{- end -}}

{{/* Prometheus matchers of this release's series: the monitors set namespace and job. */}}
{{- define "uniquanf.seriesOfRelease" -}}
namespace="{{ .Release.Namespace }}",job="{{ include "uniquanf.jobLabel" . }}"
{{- end -}}

{{/* The operator's job label: NAMESPACE/NAME of a PodMonitor, the service's name of a ServiceMonitor. */}}
{{- define "uniquanf.jobLabel" -}}
{{- if .Values.monitoring.jobLabel -}}{{ .Values.monitoring.jobLabel }}
{{- else if .Values.monitoring.serviceMonitor -}}{{ include "uniquanf.name" . }}-metrics
{{- else -}}{{ .Release.Namespace }}/{{ include "uniquanf.name" . }}{{- end -}}
{{- end -}}

{{/* dict "root" $ "name" NAME "pool" POOL */}}
{{- define "uniquanf.kedaTriggers" -}}
- type: prometheus
  metadata:
    serverAddress: {{ .pool.autoscaling.prometheusAddress | quote }}
    query: {{ .pool.autoscaling.query | default (include "uniquanf.taskQuery" .root) | quote }}
    threshold: {{ .pool.autoscaling.tasksPerWorker | toString | quote }}
    activationThreshold: "0"
{{- end -}}

{{- define "uniquanf.scaler" }}
{{- $name := printf "%s-worker-%s" (include "uniquanf.name" .root) .name }}
{{- $scaling := .pool.autoscaling }}
{{- if eq $scaling.kind "keda" }}
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  name: {{ $name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "uniquanf.labels" .root | nindent 4 }}
spec:
  scaleTargetRef: {name: {{ $name }}}
  minReplicaCount: {{ int $scaling.minReplicas }}
  maxReplicaCount: {{ int $scaling.maxReplicas }}
  pollingInterval: {{ int $scaling.pollingInterval }}
  cooldownPeriod: {{ int $scaling.cooldownPeriod }}
  advanced:
    horizontalPodAutoscalerConfig:
      behavior: {scaleDown: {stabilizationWindowSeconds: {{ int $scaling.cooldownPeriod }}}}
  triggers: {{- include "uniquanf.kedaTriggers" . | nindent 4 }}
{{- else }}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ $name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "uniquanf.labels" .root | nindent 4 }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: {{ $name }}}
  minReplicas: {{ int $scaling.minReplicas }}
  maxReplicas: {{ int $scaling.maxReplicas }}
  behavior:
    scaleDown: {stabilizationWindowSeconds: {{ int $scaling.cooldownPeriod }}}
  metrics:
    - type: External
      external:
        metric:
          name: uniquanf_tasks
          selector:
            matchLabels: {namespace: {{ .root.Release.Namespace | quote }}, job: {{ include "uniquanf.jobLabel" .root | quote }}}
            matchExpressions:
              - {key: state, operator: In, values: [ready, leased]}
        target: {type: AverageValue, averageValue: {{ $scaling.tasksPerWorker | toString | quote }}}
{{- end }}
{{- end -}}
