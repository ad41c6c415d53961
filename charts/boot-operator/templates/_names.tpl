{{/* Name of everything in the release. */}}
{{- define "boot-operator.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-{{ .Chart.Name }}{{ end -}}
{{- end }}

{{- define "boot-operator.selector" -}}
app.kubernetes.io/name: boot-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "boot-operator.labels" -}}
{{ include "boot-operator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}
