{{/* Names, labels, images and RBAC rules shared by the templates. */}}

{{- define "modelwright.name" -}}
{{- $base := ternary .Release.Name (printf "%s-modelwright" .Release.Name) (contains "modelwright" .Release.Name) -}}
{{- $base | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{- define "modelwright.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "modelwright.name" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is needed when serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{- define "modelwright.selectorLabels" -}}
app.kubernetes.io/name: modelwright
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "modelwright.labels" -}}
{{ include "modelwright.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Takes a dict of `image` and `root`. */}}
{{- define "modelwright.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ default .root.Chart.AppVersion .image.tag }}
{{- end -}}
{{- end }}

{{/* The file of connections, as the operator reads it. Who doesn't decide on enforcedLabel keeps namespaces apart. */}}
{{- define "modelwright.connections" -}}
{{- $found := list -}}
{{- range .Values.connections -}}
{{- if and (eq .type "Prometheus") (not (hasKey . "enforcedLabel")) -}}
{{- $found = append $found (merge (dict "enforcedLabel" "namespace") .) -}}
{{- else -}}
{{- $found = append $found . -}}
{{- end -}}
{{- end -}}
{{- toYaml (dict "connections" $found) -}}
{{- end }}

{{/* What the operator may do in a namespace that it watches. No Secrets, no exec, no wildcards. */}}
{{- define "modelwright.namespacedRules" -}}
- apiGroups: [modelwright.dev]
  resources: [models, modelversions, modelruntimes, rolloutpolicies, modelrollouts, approvals]
  verbs: [get, list, watch]
- apiGroups: [modelwright.dev]
  resources: [retrainingpolicies, trainingruns]
  verbs: [get, list, watch]
# The version that a Model defines inline (spec.version.template), and the version of a training run.
- apiGroups: [modelwright.dev]
  resources: [modelversions]
  verbs: [create]
# The author of a trained version is the person who requested the run, or the run itself.
- apiGroups: [modelwright.dev]
  resources: [models]
  verbs: [attribute]
- apiGroups: [modelwright.dev]
  resources: [models/status, modelversions/status, rolloutpolicies/status, modelrollouts/status]
  verbs: [patch]
- apiGroups: [modelwright.dev]
  resources: [retrainingpolicies/status, trainingruns/status]
  verbs: [patch]
# The record of each move to another revision; ended ones are removed later.
- apiGroups: [modelwright.dev]
  resources: [modelrollouts]
  verbs: [create, delete]
# The record of each training; ended ones are removed later.
- apiGroups: [modelwright.dev]
  resources: [trainingruns]
  verbs: [create, delete]
# Only as a dry run, to check that a forged one is refused: the operator lacks the verb `approve`, so all are refused.
- apiGroups: [modelwright.dev]
  resources: [approvals]
  verbs: [create]
# Owner references that block deletion, where the API server enforces permission for them.
- apiGroups: [modelwright.dev]
  resources: [models/finalizers, modelversions/finalizers, modelrollouts/finalizers]
  verbs: [update]
- apiGroups: [modelwright.dev]
  resources: [retrainingpolicies/finalizers, trainingruns/finalizers]
  verbs: [update]
- apiGroups: [apps]
  resources: [deployments, controllerrevisions]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes, grpcroutes]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [traefik.io]
  resources: [traefikservices]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [gateway.networking.k8s.io]
  resources: [gateways]
  verbs: [get, list, watch]
# Jobs of a rollout's gates and of a training's stages. They are never changed.
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, delete]
# CronJobs of data triggers.
- apiGroups: [batch]
  resources: [cronjobs]
  verbs: [get, list, watch, create, patch, delete]
# Kueue's reasons why a stage is queued.
- apiGroups: [kueue.x-k8s.io]
  resources: [workloads]
  verbs: [list]
# The operator creates pods only to resolve digests; those of models belong to their Deployments.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create, delete]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- include "modelwright.trainingRules" . }}
{{- end }}

{{/* Kinds that a training may have made, as the operator reads them; what would give more power is refused. */}}
{{- define "modelwright.trainingKinds" -}}
{{- $never := list "" "modelwright.dev" }}
{{- $never = concat $never (list "rbac.authorization.k8s.io" "admissionregistration.k8s.io" "apiextensions.k8s.io") }}
{{- range .Values.training.kinds }}
{{- if has .group $never }}
{{- $why := "core kinds, rights, admission, definitions of kinds and the kinds of modelwright.dev are not allowed" }}
{{- $group := default "the core group" .group }}
{{- fail (printf "training.kinds: %s of %s is never created: %s" .kind $group $why) }}
{{- end }}
{{- end }}
{{- toJson .Values.training.kinds -}}
{{- end }}

{{/* The rights for them. */}}
{{- define "modelwright.trainingRules" -}}
{{- range include "modelwright.trainingKinds" . | fromJsonArray }}
# A training may create it (training.kinds).
- apiGroups: [{{ .group }}]
  resources: [{{ .plural }}]
  verbs: [get, list, watch, create, patch, delete]
{{- end }}
{{- end }}

{{- /* The name in the leader's certificate, which a standby verifies. */ -}}
{{- define "modelwright.tlsName" -}}
{{ .Values.tls.serverName | default (printf "%s.%s.svc" (include "modelwright.name" .) .Release.Namespace) }}
{{- end }}

{{- /* How a monitor reads /metrics: with a token, and by TLS where there is a certificate. A PodMonitor can't name a file. */ -}}
{{- define "modelwright.scrape" -}}
{{- $values := .root.Values -}}
{{- if eq $values.metrics.authentication "Required" }}
{{- if $values.metrics.tokenSecret }}
authorization:
  credentials:
    name: {{ $values.metrics.tokenSecret }}
    key: token
{{- else if eq .monitor "ServiceMonitor" }}
bearerTokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token
{{- else }}
{{- fail "metrics.podMonitor needs metrics.tokenSecret, a Secret with the token of a user who may read /metrics; or metrics.authentication: Off" }}
{{- end }}
{{- end }}
{{- with $values.tls.secretName }}
scheme: https
tlsConfig:
  serverName: {{ include "modelwright.tlsName" $.root }}
  {{- with $values.tls.caKey }}
  ca:
    secret:
      name: {{ $values.tls.secretName }}
      key: {{ . }}
  {{- end }}
{{- end }}
{{- end }}
