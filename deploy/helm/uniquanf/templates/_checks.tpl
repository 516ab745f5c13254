{{/* Refuses settings that cannot work, before anything is installed. What a single value may be
stands in values.schema.json; here is what values mean together. */}}
{{- define "uniquanf.check" -}}
{{- $server := .Values.server -}}
{{- $replicas := int $server.replicas -}}
{{- $sqlite := eq .Values.state.kind "sqlite" -}}
{{- if and $sqlite (gt $replicas 1) -}}
{{- fail "server.replicas > 1 needs state.kind=postgresql: SQLite has one writer" -}}
{{- end -}}
{{- if and (not $sqlite) (not .Values.state.postgresql.existingSecret) -}}
{{- fail "state.kind=postgresql needs state.postgresql.existingSecret" -}}
{{- end -}}
{{- if and (include "uniquanf.certManager" .) (or $server.tlsSecret $server.clientCaSecret .Values.workerTlsSecret) -}}
{{- fail "certManager.enabled makes the certificates: leave server.tlsSecret, server.clientCaSecret and workerTlsSecret empty" -}}
{{- end -}}
{{- if and $server.clientCaSecret (not $server.tlsSecret) -}}
{{- fail "server.clientCaSecret needs server.tlsSecret" -}}
{{- end -}}
{{- if and $server.tlsSecret (not .Values.workerTlsSecret) -}}
{{- fail "server.tlsSecret needs workerTlsSecret, with ca.crt" -}}
{{- end -}}
{{- $anonymous := .Values.access.allowAnonymous -}}
{{- if and (not $anonymous) (not (include "uniquanf.serverTls" .)) -}}
{{- fail "callers are to prove who they are, which needs TLS: set certManager.enabled, or server.tlsSecret with server.clientCaSecret, or access.allowAnonymous=true" -}}
{{- end -}}
{{- if and (not $anonymous) (not (include "uniquanf.clientCa" .)) (not .Values.access.policy.tokens) -}}
{{- fail "server.tlsSecret alone leaves callers nothing to prove who they are with: set server.clientCaSecret, or access.policy.tokens, or access.allowAnonymous=true" -}}
{{- end -}}
{{- if and .Values.objects.s3Secret (not (hasPrefix "s3://" .Values.objects.uri)) -}}
{{- fail "objects.s3Secret needs objects.uri=s3://bucket/prefix: without it objects lie on a volume" -}}
{{- end -}}
{{- if and (gt $replicas 1) (not .Values.objects.uri) (not .Values.objects.volume.existingClaim) (not (has "ReadWriteMany" .Values.objects.volume.accessModes)) -}}
{{- fail (printf "objects.volume.accessModes is %s: several servers on several nodes need ReadWriteMany, or objects.uri=s3://..." (toJson .Values.objects.volume.accessModes)) -}}
{{- end -}}
{{- if ne $server.service.type "ClusterIP" -}}
{{- if and (gt $replicas 1) (not .Values.proxy.enabled) -}}
{{- fail (printf "server.service.type=%s with several servers needs proxy.enabled: a caller from outside must reach the active one" $server.service.type) -}}
{{- end -}}
{{- if and $anonymous (not $server.service.allowInsecure) -}}
{{- fail (printf "server.service.type=%s opens the service beyond the cluster and its callers prove nothing: set access.allowAnonymous=false, or server.service.allowInsecure=true" $server.service.type) -}}
{{- end -}}
{{- end -}}
{{- if and $server.service.nodePort (eq $server.service.type "ClusterIP") -}}
{{- fail "server.service.nodePort needs server.service.type NodePort or LoadBalancer" -}}
{{- end -}}
{{- if and .Values.monitoring.podMonitor .Values.monitoring.serviceMonitor -}}
{{- fail "monitoring.podMonitor and monitoring.serviceMonitor would scrape every pod twice: choose one" -}}
{{- end -}}
{{- if not .Values.state.acceptEmptyState -}}
{{- $other := ternary "Deployment" "StatefulSet" $sqlite -}}
{{- if lookup "apps/v1" $other .Release.Namespace (printf "%s-server" (include "uniquanf.name" .)) -}}
{{- fail (printf "state.kind=%s, but the installed release keeps its jobs elsewhere and nothing copies them: finish or note the jobs, then set state.acceptEmptyState=true" .Values.state.kind) -}}
{{- end -}}
{{- end -}}
{{- range $name, $unused := .Values.workers -}}
{{- $pool := include "uniquanf.pool" (dict "root" $ "name" $name) | fromYaml -}}
{{- if $pool.enabled -}}{{- include "uniquanf.checkPool" (dict "name" $name "pool" $pool) -}}{{- end -}}
{{- end -}}
{{- end -}}

{{/* dict "name" NAME "pool" POOL */}}
{{- define "uniquanf.checkPool" -}}
{{- $pool := .pool -}}
{{- $where := printf "workers.%s" .name -}}
{{- $drain := include "uniquanf.seconds" $pool.drainTimeout | int -}}
{{- if $pool.terminationGracePeriodSeconds -}}
{{- if le (int $pool.terminationGracePeriodSeconds) $drain -}}
{{- fail (printf "%s.terminationGracePeriodSeconds is %d, drainTimeout %s: the kubelet would kill the worker before its drain is over; leave it out, or give more than %d" $where (int $pool.terminationGracePeriodSeconds) $pool.drainTimeout $drain) -}}
{{- end -}}
{{- end -}}
{{- $scaling := $pool.autoscaling -}}
{{- if and (ne $scaling.kind "none") (eq $pool.kind "Job") -}}
{{- fail (printf "%s.kind=Job does not scale: use ScaledJob, or autoscaling.kind=none" $where) -}}
{{- end -}}
{{- if and (eq $pool.kind "ScaledJob") (ne $scaling.kind "keda") -}}
{{- fail (printf "%s.kind=ScaledJob needs autoscaling.kind=keda" $where) -}}
{{- end -}}
{{- if and (eq $scaling.kind "keda") (not $scaling.prometheusAddress) -}}
{{- fail (printf "%s.autoscaling.kind=keda needs autoscaling.prometheusAddress" $where) -}}
{{- end -}}
{{- if and (eq $scaling.kind "hpa") (lt (int $scaling.minReplicas) 1) -}}
{{- fail (printf "%s.autoscaling.minReplicas is 0: an HPA needs 1 or more; KEDA scales to 0" $where) -}}
{{- end -}}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) -}}
{{- fail (printf "%s.autoscaling.minReplicas is above maxReplicas" $where) -}}
{{- end -}}
{{- if and (eq $pool.cacheVolume.kind "existingClaim") $pool.cacheGiB (not $pool.cacheVolume.existingClaim) -}}
{{- fail (printf "%s.cacheVolume.kind=existingClaim needs cacheVolume.existingClaim" $where) -}}
{{- end -}}
{{- end -}}
