{{/* What the Pods that serve and those that offer boots have in common. */}}
{{- define "boot-operator.inventoryArgs" -}}
- --architecture={{ .Values.boot.architecture }}
- --minimum-proof={{ .Values.trust.minimumProof }}
{{- with .Values.boot.ipxeServiceURL }}
- --ipxe-service-url={{ . }}
{{- end }}
{{- with .Values.boot.defaultImage }}
- --default-httpboot-oci-image={{ . }}
{{- end }}
{{- with .Values.trust }}
{{- if .tokenSecret }}
- --token-secret={{ .tokenSecret }}
{{- end }}
{{- if .claimNamespaces }}
- --claim-namespaces={{ join "," .claimNamespaces }}
{{- end }}
{{- if .claimNamespaceSelector }}
- --claim-namespace-selector={{ .claimNamespaceSelector }}
{{- end }}
{{- end }}
{{- end }}

{{- define "boot-operator.metricsArgs" -}}
- --metrics-bind-address=:{{ .port }}
{{- with .root.Values.metrics }}
{{- if .secure }}
- --metrics-secure
{{- end }}
{{- if and .certManager.enabled (not $.netboot) }}
- --metrics-cert-dir=/etc/boot-operator/metrics
{{- end }}
{{- end }}
{{- end }}

{{- define "boot-operator.probes" -}}
livenessProbe:
  httpGet: {path: /healthz, port: probes}
  initialDelaySeconds: 15
  periodSeconds: 20
readinessProbe:
  httpGet: {path: /readyz, port: probes}
  periodSeconds: 5
{{- end }}

{{/* Volumes of files that the operator reads, each mounted below /etc/boot-operator by its name. */}}
{{- define "boot-operator.files" -}}
{{- $secrets := dict "tls" (include "boot-operator.tlsSecret" .) "registry-auth" .Values.registries.authSecret
  "metrics" (ternary (printf "%s-metrics" (include "boot-operator.name" .)) "" .Values.metrics.certManager.enabled) }}
{{- $configMaps := dict "verification" .Values.verification.configMap "boot-ca" .Values.composedUKIs.bootCAConfigMap
  "registry-ca" .Values.registries.caConfigMap "bmc-ca" .Values.bmc.caConfigMap "bmc-boot-ca" .Values.bmc.bootCAConfigMap }}
{{- range $name, $secret := $secrets }}
{{- if $secret }}
- name: {{ $name }}
  secret:
    secretName: {{ $secret }}
{{- end }}
{{- end }}
{{- range $name, $configMap := $configMaps }}
{{- if $configMap }}
- name: {{ $name }}
  configMap:
    name: {{ $configMap }}
{{- end }}
{{- end }}
{{- end }}

{{- define "boot-operator.store" -}}
{{- with .Values.store }}
{{- if .persistence.enabled }}
ephemeral:
  volumeClaimTemplate:
    spec:
      accessModes: [ReadWriteOnce]
      {{- with .persistence.storageClass }}
      storageClassName: {{ . }}
      {{- end }}
      resources:
        requests:
          storage: {{ .persistence.size }}
{{- else }}
{{- toYaml (.volume | default (dict "emptyDir" dict)) }}
{{- end }}
{{- end }}
{{- end }}
