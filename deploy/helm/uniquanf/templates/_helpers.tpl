{{/* A value as text: numbers of values files come as floats, which Go would print as 1.2e+07. */}}
{{- define "uniquanf.text" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) -}}{{ int64 . }}{{- else -}}{{ . }}{{- end -}}
{{- end -}}

{{/* Base of all names: a DNS label of at most 40 characters that starts with a letter, so that
"-server" still makes a StatefulSet's name (52) and "-worker-POOL" a label's value (63). */}}
{{- define "uniquanf.name" -}}
{{- $name := .Release.Name -}}
{{- if .Values.fullnameOverride -}}
{{- $name = include "uniquanf.text" .Values.fullnameOverride -}}
{{- else if .Values.nameOverride -}}
{{- $name = printf "%s-%s" .Release.Name (include "uniquanf.text" .Values.nameOverride) -}}
{{- end -}}
{{- $name = $name | replace "." "-" -}}
{{- if not (regexMatch "^[a-z]" $name) -}}{{- $name = printf "u-%s" $name -}}{{- end -}}
{{- if gt (len $name) 40 -}}
{{- $name = printf "%s-%s" ($name | trunc 31 | trimSuffix "-") (sha256sum $name | trunc 8) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{- define "uniquanf.selector" -}}
app.kubernetes.io/name: uniquanf
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "uniquanf.commonLabels" -}}
{{- range $key, $value := .Values.commonLabels }}
{{ $key | quote }}: {{ include "uniquanf.text" $value | quote }}
{{- end }}
{{- end -}}

{{/* Labels of objects. Pods carry only the selector's: a version there would restart every worker
with every version of the chart. */}}
{{- define "uniquanf.labels" -}}
{{ include "uniquanf.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- include "uniquanf.commonLabels" . }}
{{- end -}}

{{/* Lines of a map of text; nothing for an empty map. */}}
{{- define "uniquanf.map" -}}
{{- range $key, $value := . }}
{{ $key | quote }}: {{ include "uniquanf.text" $value | quote }}
{{- end }}
{{- end -}}

{{- define "uniquanf.serviceAccount" -}}
{{- $name := include "uniquanf.text" (.Values.serviceAccount.name | default "") -}}
{{- if .Values.serviceAccount.create -}}
{{- $name | default (include "uniquanf.name" .) -}}
{{- else -}}
{{- $name | default "default" -}}
{{- end -}}
{{- end -}}

{{/* dict "root" $ "image" NAME */}}
{{- define "uniquanf.image" -}}
{{- $values := .root.Values.image -}}
{{- $digest := get $values.digests .image -}}
{{- $tag := include "uniquanf.text" ($values.tag | default .root.Chart.AppVersion) -}}
{{- printf "%s%s" $values.registry .image -}}{{- if $digest -}}@{{ $digest }}{{- else -}}:{{ $tag }}{{- end -}}
{{- end -}}

{{/* Volume claim of the objects, where they are not in S3. */}}
{{- define "uniquanf.objectClaim" -}}
{{- include "uniquanf.text" (.Values.objects.volume.existingClaim | default (printf "%s-objects" (include "uniquanf.name" .))) -}}
{{- end -}}

{{- define "uniquanf.objectRoot" -}}
{{- .Values.objects.uri | default "file:///shared/objects" -}}
{{- end -}}

{{/* A line `storageClassName`, or nothing for the cluster's default class; "-" is no class. */}}
{{- define "uniquanf.storageClass" -}}
{{- if eq (toString .) "-" -}}
storageClassName: ""
{{- else if . -}}
storageClassName: {{ include "uniquanf.text" . | quote }}
{{- end -}}
{{- end -}}

{{/* Certificates: made by cert-manager, or the Secrets that values name. */}}
{{- define "uniquanf.certManager" -}}
{{- if kindIs "bool" .Values.certManager.enabled -}}{{- if .Values.certManager.enabled -}}true{{- end -}}
{{- else if not (or .Values.server.tlsSecret .Values.access.allowAnonymous) -}}true{{- end -}}
{{- end -}}
{{- define "uniquanf.serverTls" -}}
{{- if include "uniquanf.certManager" . -}}{{ include "uniquanf.name" . }}-server-tls
{{- else -}}{{ include "uniquanf.text" .Values.server.tlsSecret }}{{- end -}}
{{- end -}}
{{- define "uniquanf.clientCa" -}}
{{- if include "uniquanf.certManager" . -}}{{ include "uniquanf.name" . }}-server-tls
{{- else -}}{{ include "uniquanf.text" .Values.server.clientCaSecret }}{{- end -}}
{{- end -}}
{{- define "uniquanf.workerTls" -}}
{{- if include "uniquanf.certManager" . -}}{{ include "uniquanf.name" . }}-worker-tls
{{- else -}}{{ include "uniquanf.text" .Values.workerTlsSecret }}{{- end -}}
{{- end -}}

{{/* The policy file. */}}
{{- define "uniquanf.policy" -}}
{{- $bindings := list (dict "principals" (list "tenant/*/user/*") "role" "user") (dict "principals" (list "operator/*") "role" "operator") (dict "principals" (list "worker/*") "role" "worker") -}}
{{- $policy := dict "version" 1 "certificates" (dict "trust_domain" .Values.access.trustDomain) "bindings" $bindings -}}
{{- if not .Values.objects.uri -}}
{{- $_ := set $policy "tenants" (dict "*" (dict "data" (dict "read" (list "file:///shared") "output" (list "file:///shared")))) -}}
{{- end -}}
{{- merge (deepCopy .Values.access.policy) $policy | toPrettyJson -}}
{{- end -}}

{{/* The servers as workers and tests reach them: with standbys the headless name, whose addresses
are resolved again and again; a standby answers NOT_SERVING and gets no calls. */}}
{{- define "uniquanf.serverAddress" -}}
{{- include "uniquanf.name" . }}-server{{ if eq .Values.state.kind "postgresql" }}-headless{{ end }}:{{ .Values.server.service.port }}
{{- end -}}
{{/* The same for workers, which have a port of their own where callers are asked who they are. */}}
{{- define "uniquanf.workerAddress" -}}
{{- if .Values.access.allowAnonymous -}}{{ include "uniquanf.serverAddress" . }}
{{- else -}}{{ include "uniquanf.name" . }}-workers:50052{{- end -}}
{{- end -}}
{{- define "uniquanf.tlsServerName" -}}
{{- .Values.server.tlsServerName | default (printf "%s-server" (include "uniquanf.name" .)) -}}
{{- end -}}

{{/* Flags of every caller of the server, for a list of args. */}}
{{- define "uniquanf.clientTlsArgs" -}}
{{- if include "uniquanf.serverTls" . }}
- --tls-ca=/tls/ca.crt
- {{ printf "--tls-server-name=%s" (include "uniquanf.tlsServerName" .) | quote }}
{{- if include "uniquanf.clientCa" . }}
- --tls-cert=/tls/tls.crt
- --tls-key=/tls/tls.key
{{- end }}
{{- end }}
{{- end -}}

{{/* Seconds of a duration such as 1h30m. */}}
{{- define "uniquanf.seconds" -}}
{{- $seconds := 0 -}}
{{- range regexFindAll "[0-9]+[hms]" (toString .) -1 -}}
{{- $number := regexFind "[0-9]+" . | atoi -}}
{{- if hasSuffix "h" . -}}{{- $number = mul $number 3600 -}}
{{- else if hasSuffix "m" . -}}{{- $number = mul $number 60 -}}{{- end -}}
{{- $seconds = add $seconds $number -}}
{{- end -}}
{{- $seconds -}}
{{- end -}}

{{/* What every pod starts with. */}}
{{- define "uniquanf.podBase" -}}
serviceAccountName: {{ include "uniquanf.serviceAccount" . | quote }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "uniquanf.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Small containers beside the programs. */}}
{{- define "uniquanf.smallResources" -}}
requests: {cpu: 50m, memory: 64Mi, ephemeral-storage: 16Mi}
limits: {memory: 64Mi, ephemeral-storage: 64Mi}
{{- end -}}

{{/* dict "probes" MAP "live" PATH "ready" PATH */}}
{{- define "uniquanf.probes" -}}
startupProbe:
  httpGet: {path: {{ .live }}, port: metrics}
  {{- toYaml .probes.startup | nindent 2 }}
readinessProbe:
  httpGet: {path: {{ .ready | quote }}, port: metrics}
  {{- toYaml .probes.readiness | nindent 2 }}
livenessProbe:
  httpGet: {path: {{ .live }}, port: metrics}
  {{- toYaml .probes.liveness | nindent 2 }}
{{- end -}}

{{/* Scheduling settings of a pod. dict "settings" MAP "labels" SELECTOR */}}
{{- define "uniquanf.scheduling" -}}
{{- with .settings.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .settings.runtimeClassName }}
runtimeClassName: {{ . | quote }}
{{- end }}
{{- if kindIs "map" .settings.topologySpread }}
topologySpreadConstraints:
  - maxSkew: {{ .settings.topologySpread.maxSkew | default 1 }}
    topologyKey: {{ .settings.topologySpread.topologyKey | default "kubernetes.io/hostname" }}
    whenUnsatisfiable: {{ .settings.topologySpread.whenUnsatisfiable | default "ScheduleAnyway" }}
    labelSelector:
      matchLabels: {{- .labels | nindent 8 }}
{{- end }}
{{- with .settings.nodeSelector }}
nodeSelector: {{- include "uniquanf.map" . | nindent 2 }}
{{- end }}
{{- with .settings.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .settings.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
