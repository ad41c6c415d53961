{{/* What values demand of each other; each sentence names the values and says what would be right. */}}
{{- define "boot-operator.checks" -}}
{{- $wrong := concat (include "boot-operator.checkBoots" . | fromJsonArray) (include "boot-operator.checkStore" . | fromJsonArray)
  (include "boot-operator.checkCertificates" . | fromJsonArray) (include "boot-operator.checkNetwork" . | fromJsonArray) }}
{{- with $wrong }}
{{- fail (printf "these values cannot work:\n  - %s" (join "\n  - " .)) }}
{{- end }}
{{- end }}

{{- define "boot-operator.checkBoots" -}}
{{- $wrong := list }}
{{- $netboot := .Values.netboot }}
{{- $url := .Values.boot.ipxeServiceURL }}
{{- if $netboot.interfaces }}
{{- if not (regexMatch `^(https?://)?([0-9]+\.[0-9]+\.[0-9]+\.[0-9]+|\[[0-9a-fA-F:.]+\])(:[0-9]+)?/?$` $url) }}
{{- $wrong = append $wrong (printf "netboot.interfaces needs boot.ipxeServiceURL with an IP address, such as http://10.0.0.1:8082, not %q: machines are led there before they have a name server" $url) }}
{{- end }}
{{- else if or $netboot.relays $netboot.answerEveryone $netboot.createNamespace }}
{{- $wrong = append $wrong "netboot.relays, netboot.answerEveryone and netboot.createNamespace need netboot.interfaces, such as {eth0}" }}
{{- end }}
{{- if and $netboot.createNamespace (eq (include "boot-operator.netbootNamespace" .) .Release.Namespace) }}
{{- $wrong = append $wrong "netboot.createNamespace needs netboot.namespace, another than the release's" }}
{{- end }}
{{- if and (eq .Values.baremetalhost.mode "drive") (not $url) (not .Values.boot.imageServerURL) (not .Values.bmc.bootURL) }}
{{- $wrong = append $wrong "baremetalhost.mode drive needs bmc.bootURL or boot.ipxeServiceURL, such as http://10.0.0.1:8082: BMCs are given it" }}
{{- end }}
{{- toJson $wrong }}
{{- end }}

{{- define "boot-operator.checkStore" -}}
{{- $wrong := list }}
{{- $store := .Values.store }}
{{- if and $store.persistence.enabled $store.volume }}
{{- $wrong = append $wrong "store.persistence.enabled and store.volume: give one of them" }}
{{- end }}
{{- $sizes := dict }}
{{- if $store.persistence.enabled }}
{{- $_ := set $sizes "store.persistence.size" $store.persistence.size }}
{{- end }}
{{- with dig "emptyDir" "sizeLimit" "" $store.volume }}
{{- $_ := set $sizes "store.volume.emptyDir.sizeLimit" . }}
{{- end }}
{{- with dig "ephemeral" "volumeClaimTemplate" "spec" "resources" "requests" "storage" "" $store.volume }}
{{- $_ := set $sizes "the storage that store.volume.ephemeral asks for," . }}
{{- end }}
{{- range $name, $size := $sizes }}
{{- if lt (include "boot-operator.bytes" $size | float64) (include "boot-operator.bytes" $store.maxBytes | float64) }}
{{- $wrong = append $wrong (printf "%s %s is smaller than store.maxBytes %s: make it larger by a tenth, for the journal" $name $size $store.maxBytes) }}
{{- end }}
{{- end }}
{{- if and (dig "persistentVolumeClaim" "claimName" "" $store.volume) (gt (int .Values.replicas) 1) }}
{{- $wrong = append $wrong "store.volume.persistentVolumeClaim is one claim for all replicas, and each needs a store of its own: use store.persistence, or replicas 1" }}
{{- end }}
{{- toJson $wrong }}
{{- end }}

{{- define "boot-operator.checkCertificates" -}}
{{- $wrong := list }}
{{- with .Values.tls.certManager }}
{{- if .enabled }}
{{- if not (dig "name" "" .issuerRef) }}
{{- $wrong = append $wrong "tls.certManager.enabled needs tls.certManager.issuerRef, such as {name: machines, kind: ClusterIssuer}" }}
{{- end }}
{{- if not (or .ipAddresses .dnsNames) }}
{{- $wrong = append $wrong "tls.certManager.enabled needs tls.certManager.ipAddresses: firmware compares the address of its URL with those in the certificate" }}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.metrics }}
{{- if .certManager.enabled }}
{{- if not .secure }}
{{- $wrong = append $wrong "metrics.certManager.enabled needs metrics.secure: plain HTTP has no certificate" }}
{{- end }}
{{- if not (dig "name" "" .certManager.issuerRef) }}
{{- $wrong = append $wrong "metrics.certManager.enabled needs metrics.certManager.issuerRef, such as {name: cluster, kind: ClusterIssuer}" }}
{{- end }}
{{- end }}
{{- end }}
{{- toJson $wrong }}
{{- end }}

{{- define "boot-operator.checkNetwork" -}}
{{- $wrong := list }}
{{- $taken := dict }}
{{- $ports := mergeOverwrite (dict "netboot.metricsPort" .Values.netboot.metricsPort "netboot.probesPort" .Values.netboot.probesPort) dict }}
{{- range $name, $port := .Values.ports }}
{{- $_ := set $ports (printf "ports.%s" $name) $port }}
{{- end }}
{{- range $name := keys $ports | sortAlpha }}
{{- $port := get $ports $name | int | toString }}
{{- with get $taken $port }}
{{- $wrong = append $wrong (printf "%s and %s are both %s: every port is one of its own" . $name $port) }}
{{- end }}
{{- $_ := set $taken $port $name }}
{{- end }}
{{- if and .Values.networkPolicy.enabled .Values.hostNetwork }}
{{- $wrong = append $wrong "networkPolicy.enabled has no effect with hostNetwork: a NetworkPolicy applies to no Pod on the node's network; filter on the nodes instead" }}
{{- end }}
{{- toJson $wrong }}
{{- end }}
