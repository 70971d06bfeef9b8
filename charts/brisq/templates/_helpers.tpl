{{- define "brisq.labels" -}}
app.kubernetes.io/name: brisq-operator
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "brisq.selector" -}}
app.kubernetes.io/name: brisq-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "brisq.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "brisq.account" -}}
{{ printf "%s-operator" .Release.Name | trunc 63 }}
{{- end }}

{{- define "brisq.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "brisq.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/*
What the operator may do with what it serves. A patch answers with the object and so reads it: secrets-policy.yaml keeps the account
from every Secret that does not bear its label.
*/}}
{{- define "brisq.rules" -}}
- apiGroups: [brisq.dev]
  resources: [taskqueues, profilingpolicies, profilecaptures]
  verbs: [get, list, watch]
- apiGroups: [brisq.dev]
  resources: [profilecaptures]
  verbs: [create, patch, delete]
- apiGroups: [brisq.dev]
  resources: [taskqueues/status, profilingpolicies/status, profilecaptures/status]
  verbs: [patch]
- apiGroups: [brisq.dev]
  resources: [taskqueues/finalizers]
  verbs: [update]
- apiGroups: [apps]
  resources: [deployments, statefulsets]
  verbs: [list, watch, create, patch]
- apiGroups: [""]
  resources: [services, configmaps, serviceaccounts]
  verbs: [list, watch, create, patch]
- apiGroups: [""]
  resources: [secrets]
  verbs: [create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, patch]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [list, watch, create, patch]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [list, watch, create, patch, delete]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
