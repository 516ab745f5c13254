{{- define "uniquanf.name" -}}
{{- printf "%s" .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "uniquanf.labels" -}}
app.kubernetes.io/name: uniquanf
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- define "uniquanf.selector" -}}
app.kubernetes.io/name: uniquanf
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "uniquanf.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "uniquanf.name" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- define "uniquanf.tag" -}}
{{- .Values.image.tag | default .Chart.AppVersion -}}
{{- end -}}

{{/* Volume claim of the objects, where they are not in S3. */}}
{{- define "uniquanf.objectClaim" -}}
{{- .Values.objects.volume.existingClaim | default (printf "%s-objects" (include "uniquanf.name" .)) -}}
{{- end -}}

{{- define "uniquanf.objectRoot" -}}
{{- .Values.objects.uri | default "file:///shared/objects" -}}
{{- end -}}

{{- define "uniquanf.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "uniquanf.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Refuses settings that cannot work, before anything is installed. */}}
{{- define "uniquanf.check" -}}
{{- if not (has .Values.state.kind (list "sqlite" "postgresql")) -}}
{{- fail (printf "state.kind is %q; allowed: sqlite, postgresql" .Values.state.kind) -}}
{{- end -}}
{{- if and (eq .Values.state.kind "sqlite") (gt (int .Values.server.replicas) 1) -}}
{{- fail "server.replicas > 1 needs state.kind=postgresql: SQLite has one writer" -}}
{{- end -}}
{{- if and (eq .Values.state.kind "postgresql") (not .Values.state.postgresql.existingSecret) -}}
{{- fail "state.kind=postgresql needs state.postgresql.existingSecret" -}}
{{- end -}}
{{- if and .Values.server.clientCaSecret (not .Values.server.tlsSecret) -}}
{{- fail "server.clientCaSecret needs server.tlsSecret" -}}
{{- end -}}
{{- if and .Values.server.tlsSecret (not .Values.workerTlsSecret) -}}
{{- fail "server.tlsSecret needs workerTlsSecret, with ca.crt" -}}
{{- end -}}
{{- end -}}
