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

{{/* The file of connections, as the operator reads it. */}}
{{- define "modelwright.connections" -}}
{{- toYaml (dict "connections" .Values.connections) -}}
{{- end }}

{{/* What the operator may do in a namespace that it watches. No Secrets, no exec, no wildcards. */}}
{{- define "modelwright.namespacedRules" -}}
- apiGroups: [modelwright.dev]
  resources: [models, modelversions, modelruntimes, rolloutpolicies, modelrollouts, approvals]
  verbs: [get, list, watch]
# The version a Model writes inline (spec.version.template).
- apiGroups: [modelwright.dev]
  resources: [modelversions]
  verbs: [create]
- apiGroups: [modelwright.dev]
  resources: [models/status, modelversions/status, rolloutpolicies/status, modelrollouts/status]
  verbs: [patch]
# The record of each move to another revision; ended ones are removed in time.
- apiGroups: [modelwright.dev]
  resources: [modelrollouts]
  verbs: [create, delete]
# Only as a dry run, to see that a forged one is refused: it has no verb `approve`, so admission lets none of it pass.
- apiGroups: [modelwright.dev]
  resources: [approvals]
  verbs: [create]
# Owner references that block deletion, where the API server enforces permission for them.
- apiGroups: [modelwright.dev]
  resources: [models/finalizers, modelversions/finalizers, modelrollouts/finalizers]
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
# Jobs of a rollout's gates. They are never changed.
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, delete]
# Pods are made only to resolve a digest; those of models belong to their Deployments.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create, delete]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end }}
