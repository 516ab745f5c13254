{{/* TCP alone: TLS ends in the server, which sees its callers' certificates. Which server is active is asked on its HTTP
port (/readyz without standby=ok is 503 on a standby); a server that is active no longer loses its connections. */}}
{{- define "uniquanf.haproxy" -}}
global
  maxconn {{ add (int .Values.proxy.maxConnections) 100 }}
  hard-stop-after 25s
  log stdout format raw local0 notice

defaults
  mode tcp
  log global
  option dontlognull
  option clitcpka
  option srvtcpka
  timeout connect 5s
  timeout queue 10s
  timeout client {{ .Values.proxy.idleTimeout }}
  timeout server {{ .Values.proxy.idleTimeout }}
  timeout client-fin 10s
  timeout server-fin 10s
  timeout check 3s

resolvers cluster
  parse-resolv-conf
  accepted_payload_size 8192
  hold valid 1s
  hold obsolete 5s

frontend grpc
  bind :::50051 v4v6
  maxconn {{ int .Values.proxy.maxConnections }}
  stick-table type ipv6 size 100k expire 10m store conn_cur
  tcp-request connection track-sc0 src
  tcp-request connection reject if { sc0_conn_cur gt {{ int .Values.proxy.maxConnectionsPerAddress }} }
  default_backend active

backend active
  option httpchk GET /readyz
  http-check expect status 200
  server-template server 1-{{ add (mul 2 (int .Values.server.replicas)) 1 }} {{ include "uniquanf.name" . }}-server-headless.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}:{{ .Values.server.service.port }} check port 9090 inter 1s fall 3 rise 1 on-marked-down shutdown-sessions resolvers cluster init-addr none

frontend status
  mode http
  bind :::9090 v4v6
  timeout client 10s
  timeout server 10s
  monitor-uri /healthz
  http-request use-service prometheus-exporter if { path /metrics }
  http-request return status 404
{{ end -}}
