{{/* Name of everything in the release. */}}
{{- define "boot-operator.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-{{ .Chart.Name }}{{ end -}}
{{- end }}

{{- define "boot-operator.selector" -}}
app.kubernetes.io/name: boot-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* The Pods that offer boots: others than those of the Services. */}}
{{- define "boot-operator.netbootSelector" -}}
app.kubernetes.io/name: boot-operator-netboot
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "boot-operator.labels" -}}
{{ include "boot-operator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "boot-operator.image" -}}
{{- with .Values.image }}
image: {{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default (printf "v%s" $.Chart.AppVersion) }}{{ end }}
imagePullPolicy: {{ .pullPolicy }}
{{- end }}
{{- end }}

{{- define "boot-operator.imagePullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Where the Pods that offer boots are. */}}
{{- define "boot-operator.netbootNamespace" -}}
{{ .Values.netboot.namespace | default .Release.Namespace }}
{{- end }}

{{/* The Secret with the boot server's certificate; empty: none. */}}
{{- define "boot-operator.tlsSecret" -}}
{{- if .Values.tls.secretName }}{{ .Values.tls.secretName }}
{{- else if .Values.tls.certManager.enabled }}{{ include "boot-operator.name" . }}-tls
{{- end }}
{{- end }}

{{/* A size such as 20Gi, in bytes. */}}
{{- define "boot-operator.bytes" -}}
{{- $factors := dict "" 1.0 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 "Pi" 1125899906842624.0 }}
{{- $unit := regexFind "[A-Za-z]*$" (toString .) }}
{{- mulf (regexFind "^[0-9.]+" (toString .) | float64) (get $factors $unit | default 1.0) | printf "%.0f" }}
{{- end }}
