{{/* A pool's settings: workerDefaults, over them workerDeviceDefaults.DEVICE, over them its own.
dict "root" $ "name" NAME */}}
{{- define "uniquanf.pool" -}}
{{- $own := index .root.Values.workers .name | default dict -}}
{{- $defaults := .root.Values.workerDefaults -}}
{{- $device := $own.device | default $defaults.device -}}
{{- $pool := mergeOverwrite (deepCopy $defaults) (deepCopy (index .root.Values.workerDeviceDefaults $device | default dict)) (deepCopy $own) -}}
{{- if not $pool.image -}}
{{- $_ := set $pool "image" (ternary "uniquanf-worker-cuda" "uniquanf-worker" (eq $device "cuda")) -}}
{{- end -}}
{{- if not $pool.terminationGracePeriodSeconds -}}
{{- $_ := set $pool "terminationGracePeriodSeconds" (add (include "uniquanf.seconds" $pool.drainTimeout) 60) -}}
{{- end -}}
{{- $requests := $pool.resources.requests | default dict -}}
{{- $limits := $pool.resources.limits | default dict -}}
{{- $disk := int $pool.ephemeralStorageGiB -}}
{{- if and $pool.cacheGiB (eq $pool.cacheVolume.kind "emptyDir") -}}
{{- $disk = add $disk (int $pool.cacheGiB) 1 -}}
{{- end -}}
{{- range $map := list $requests $limits -}}
{{- if not (hasKey $map "ephemeral-storage") -}}{{- $_ := set $map "ephemeral-storage" (printf "%dGi" (int $disk)) -}}{{- end -}}
{{- end -}}
{{- if and (eq $device "cuda") (not (hasKey $limits $pool.gpu.resource)) -}}
{{- $_ := set $limits $pool.gpu.resource $pool.gpu.count -}}
{{- end -}}
{{- $_ := set $pool "resources" (dict "requests" $requests "limits" $limits) -}}
{{- toYaml $pool -}}
{{- end -}}

{{/* Labels that choose a pool's pods. dict "root" $ "name" NAME */}}
{{- define "uniquanf.poolSelector" -}}
{{ include "uniquanf.selector" .root }}
app.kubernetes.io/component: worker
uniquanf/pool: {{ .name | quote }}
{{- end -}}

{{- define "uniquanf.poolPodLabels" -}}
{{ include "uniquanf.poolSelector" . }}
{{- include "uniquanf.commonLabels" .root }}
{{- include "uniquanf.map" .pool.podLabels }}
{{- if and (ne .pool.kind "Deployment") .pool.job.queueName }}
kueue.x-k8s.io/queue-name: {{ .pool.job.queueName | quote }}
{{- end }}
{{- end -}}

{{/* The pod of a worker, for Deployment, Job and ScaledJob. dict "root" $ "name" NAME "pool" POOL */}}
{{- define "uniquanf.workerPod" -}}
{{- $root := .root -}}
{{- $values := .root.Values -}}
{{- $pool := .pool -}}
{{- $job := ne $pool.kind "Deployment" -}}
metadata:
  labels: {{- include "uniquanf.poolPodLabels" . | nindent 4 }}
  annotations:
    cluster-autoscaler.kubernetes.io/safe-to-evict: {{ $pool.safeToEvict | quote }}
    {{- include "uniquanf.map" $pool.podAnnotations | nindent 4 }}
spec:
  {{- include "uniquanf.podBase" $root | nindent 2 }}
  {{- if $job }}
  restartPolicy: Never
  {{- end }}
  terminationGracePeriodSeconds: {{ $pool.terminationGracePeriodSeconds }}
  {{- with $pool.initContainers }}
  initContainers: {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: worker
      image: {{ include "uniquanf.image" (dict "root" $root "image" $pool.image) | quote }}
      imagePullPolicy: {{ $values.image.pullPolicy }}
      securityContext: {{- include "uniquanf.containerSecurity" $root | nindent 8 }}
      args:
        - {{ printf "--server=%s" (include "uniquanf.workerAddress" $root) | quote }}
        - --name=$(POD_NAME)
        - {{ printf "--device=%s" $pool.device | quote }}
        - {{ ternary (printf "--threads=%d" (int $pool.threads)) "--threads=$(CPUS)" (gt (int $pool.threads) 0) | quote }}
        - {{ printf "--drain-timeout=%s" $pool.drainTimeout | quote }}
        - --metrics-listen=0.0.0.0:9090
        - --log-format=json
        - {{ printf "--label=pool=%s" .name | quote }}
        {{- if $pool.waitForServer }}
        # Server first: a worker of another protocol version would end at once, again and again.
        - --wait-for-version
        {{- end }}
        {{- if $job }}
        - {{ printf "--exit-when-idle=%s" $pool.exitWhenIdle | quote }}
        {{- end }}
        {{- if $pool.cacheGiB }}
        - --cache-dir=/cache
        - {{ printf "--cache-size=%dGiB" (int $pool.cacheGiB) | quote }}
        {{- end }}
        {{- range $key, $value := $pool.labels }}
        - {{ printf "--label=%s=%s" $key (include "uniquanf.text" $value) | quote }}
        {{- end }}
        {{- include "uniquanf.clientTlsArgs" $root | nindent 8 }}
        {{- range $pool.extraArgs }}
        - {{ include "uniquanf.text" . | quote }}
        {{- end }}
      env:
        - name: POD_NAME
          valueFrom: {fieldRef: {fieldPath: metadata.name}}
        {{- if not (gt (int $pool.threads) 0) }}
        # Without a static CPU manager a pod sees every core of its node.
        - name: CPUS
          valueFrom: {resourceFieldRef: {containerName: worker, resource: requests.cpu, divisor: "1"}}
        {{- end }}
        {{- with $pool.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with $values.objects.s3Secret }}
      envFrom:
        - secretRef: {name: {{ include "uniquanf.text" . | quote }}}
      {{- end }}
      ports:
        - {name: metrics, containerPort: 9090, protocol: TCP}
      # Alive, not connected: a server that is away must not restart workers with work in hand. A task that hangs
      # ends the process by itself (exit code 4).
      {{- include "uniquanf.probes" (dict "probes" $pool.probes "live" "/healthz" "ready" "/readyz") | nindent 6 }}
      resources: {{- toYaml $pool.resources | nindent 8 }}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
        {{- if $pool.cacheGiB }}
        - {name: cache, mountPath: /cache}
        {{- end }}
        {{- if $pool.shmSize }}
        - {name: shm, mountPath: /dev/shm}
        {{- end }}
        {{- if not $values.objects.uri }}
        - {name: shared, mountPath: /shared}
        {{- end }}
        {{- if include "uniquanf.serverTls" $root }}
        - {name: tls, mountPath: /tls, readOnly: true}
        {{- end }}
        {{- with $pool.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: tmp
      emptyDir: {sizeLimit: {{ int $pool.ephemeralStorageGiB }}Gi}
    {{- if $pool.cacheGiB }}
    - name: cache
      {{- if eq $pool.cacheVolume.kind "existingClaim" }}
      persistentVolumeClaim: {claimName: {{ include "uniquanf.text" $pool.cacheVolume.existingClaim | quote }}}
      {{- else if eq $pool.cacheVolume.kind "claim" }}
      ephemeral:
        volumeClaimTemplate:
          spec:
            accessModes: [ReadWriteOnce]
            {{- include "uniquanf.storageClass" $pool.cacheVolume.storageClassName | nindent 12 }}
            resources: {requests: {storage: {{ add1 (int $pool.cacheGiB) }}Gi}}
      {{- else }}
      emptyDir: {sizeLimit: {{ add1 (int $pool.cacheGiB) }}Gi}
      {{- end }}
    {{- end }}
    {{- with $pool.shmSize }}
    - name: shm
      emptyDir: {medium: Memory, sizeLimit: {{ . | quote }}}
    {{- end }}
    {{- if not $values.objects.uri }}
    - name: shared
      persistentVolumeClaim: {claimName: {{ include "uniquanf.objectClaim" $root | quote }}}
    {{- end }}
    {{- with include "uniquanf.workerTls" $root }}
    {{- if include "uniquanf.serverTls" $root }}
    - name: tls
      secret: {secretName: {{ . | quote }}, defaultMode: 0440}
    {{- end }}
    {{- end }}
    {{- with $pool.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- include "uniquanf.scheduling" (dict "settings" $pool "labels" (include "uniquanf.poolSelector" .)) | nindent 2 }}
{{- end -}}
