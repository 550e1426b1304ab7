{{/* What the parts have in common. */}}

{{- define "atoll.name" -}}
{{- if contains .root.Chart.Name .root.Release.Name }}{{ .root.Release.Name }}-{{ .part }}{{ else }}{{ .root.Release.Name }}-atoll-{{ .part }}{{ end }}
{{- end }}

{{/* Every part keeps its Secrets there, so it is no choice. */}}
{{- define "atoll.namespace" -}}
atoll-system
{{- end }}

{{- define "atoll.select" -}}
app.kubernetes.io/name: atoll
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{- define "atoll.labels" -}}
{{ include "atoll.select" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: atoll
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{- define "atoll.metadata" -}}
name: {{ include "atoll.name" . }}
namespace: {{ include "atoll.namespace" . }}
labels: {{- include "atoll.labels" . | nindent 2 }}
{{- end }}

{{/* host:port of a port of a part's Service. */}}
{{- define "atoll.at" -}}
{{ include "atoll.name" . }}.{{ include "atoll.namespace" . }}.svc:{{ .port }}
{{- end }}

{{/* The ConfigMap of a part: what the chart says, and the user's words over it. */}}
{{- define "atoll.config" -}}
{{- $top := .root.Values }}
{{- $standing := dict }}
{{- range $key, $value := $top.standing }}{{ if $value }}{{ $_ := set $standing $key $value }}{{ end }}{{ end }}
{{- $common := dict "apex" $top.apex "defaultSet" $top.defaultSet "dataDir" "/var/lib/atoll" "standing" $standing }}
apiVersion: v1
kind: ConfigMap
metadata: {{- include "atoll.metadata" . | nindent 2 }}
data:
  config.yaml: |
    {{- mergeOverwrite $common .config (deepCopy (index $top .part).config) | toYaml | nindent 4 }}
{{- end }}

{{/* The pod of a part. */}}
{{- define "atoll.pod" -}}
{{- $values := index .root.Values .part }}
metadata:
  labels: {{- include "atoll.labels" . | nindent 4 }}
  annotations:
    atoll.dev/config: {{ include "atoll.config" . | sha256sum }}
    {{- with .root.Values.podAnnotations }}{{ toYaml . | nindent 4 }}{{ end }}
spec:
  serviceAccountName: {{ include "atoll.name" . }}
  {{- with .root.Values.imagePullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with .root.Values.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .root.Values.tolerations }}
  tolerations: {{- toYaml . | nindent 2 }}
  {{- end }}
  topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "atoll.select" . | nindent 8 }}
  terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds | default 30 }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    seccompProfile: {type: RuntimeDefault}
  containers:
  - name: {{ .part }}
    image: "{{ .root.Values.image.repository }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}"
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    args: [{{ .part }}, --config, /etc/atoll/config.yaml]
    {{- with .preStop }}
    lifecycle:
      preStop:
        exec: {command: {{ toJson . }}}
    {{- end }}
    ports: {{- toYaml .ports | nindent 4 }}
    {{- with .env }}
    env: {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- if .probes }}
    startupProbe:
      httpGet: {path: /healthz, port: admin}
      periodSeconds: 1
      failureThreshold: 60
    livenessProbe:
      httpGet: {path: /healthz, port: admin}
      periodSeconds: 10
      failureThreshold: 3
    readinessProbe:
      httpGet: {path: /readyz, port: admin}
      periodSeconds: 5
    {{- end }}
    resources: {{- toYaml $values.resources | nindent 6 }}
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities: {drop: [ALL]}
    volumeMounts:
    - {name: config, mountPath: /etc/atoll, readOnly: true}
    - {name: data, mountPath: /var/lib/atoll}
    {{- if .tokenSecret }}
    - {name: token, mountPath: /etc/atoll-token, readOnly: true}
    {{- end }}
    {{- if .tlsSecret }}
    - {name: tls, mountPath: /etc/atoll-dns, readOnly: true}
    {{- end }}
  volumes:
  - name: config
    configMap: {name: {{ include "atoll.name" . }}}
  - name: data
    emptyDir: {sizeLimit: 256Mi}
  {{- if .tokenSecret }}
  - name: token
    secret: {secretName: {{ .tokenSecret }}, optional: true}
  {{- end }}
  {{- if .tlsSecret }}
  - name: tls
    secret: {secretName: {{ .tlsSecret }}}
  {{- end }}
{{- end }}

{{/* ServiceAccount, ConfigMap and Deployment of a part. */}}
{{- define "atoll.part" -}}
{{- $values := index .root.Values .part }}
apiVersion: v1
kind: ServiceAccount
metadata: {{- include "atoll.metadata" . | nindent 2 }}
---
{{ include "atoll.config" . }}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{- include "atoll.metadata" . | nindent 2 }}
spec:
  replicas: {{ $values.replicas | default 1 }}
  {{- if .strategy }}
  strategy: {type: {{ .strategy }}}
  {{- end }}
  selector:
    matchLabels: {{- include "atoll.select" . | nindent 6 }}
  template: {{- include "atoll.pod" . | nindent 4 }}
{{- if gt (int ($values.replicas | default 1)) 1 }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {{- include "atoll.metadata" . | nindent 2 }}
spec:
  maxUnavailable: 1
  selector:
    matchLabels: {{- include "atoll.select" . | nindent 6 }}
{{- end }}
{{- end }}

{{/* A role and who has it: cluster-wide where `kind` is ClusterRole, else in `namespace` (by default that of the parts). */}}
{{- define "atoll.role" -}}
{{- $name := printf "%s%s" (include "atoll.name" .) (.suffix | default "") }}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ .kind }}
metadata:
  name: {{ $name }}
  {{- if eq .kind "Role" }}
  namespace: {{ .namespace | default (include "atoll.namespace" .) }}
  {{- end }}
  labels: {{- include "atoll.labels" . | nindent 4 }}
rules: {{- toYaml .rules | nindent 0 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ .kind }}Binding
metadata:
  name: {{ $name }}
  {{- if eq .kind "Role" }}
  namespace: {{ .namespace | default (include "atoll.namespace" .) }}
  {{- end }}
  labels: {{- include "atoll.labels" . | nindent 4 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: {{ .kind }}, name: {{ $name }}}
subjects:
- {kind: ServiceAccount, name: {{ include "atoll.name" . }}, namespace: {{ include "atoll.namespace" . }}}
{{- end }}
