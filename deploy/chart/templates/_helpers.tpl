{{- define "key-broker.fullname" -}}
{{- $name := .Release.Name -}}
{{- if not (contains "key-broker" $name) }}{{ $name = printf "%s-key-broker" $name }}{{ end -}}
{{- if gt (len $name) 36 }}{{ fail (printf "the release's name is too long: %s has more than 36 characters" $name) }}{{ end -}}
{{- $name -}}
{{- end -}}

{{- define "key-broker.labels" -}}
app.kubernetes.io/name: key-broker
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- define "key-broker.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end -}}
{{- end -}}
{{- end -}}

{{- define "key-broker.journal" -}}{{ int64 .Values.journal.sizeMi }}Mi{{- end -}}

{{/* The broker's container, as files/deployment.yaml has it: image, role, size of the journal and more variables are this release's. */}}
{{- define "key-broker.container" -}}
{{- $container := index (.Files.Get "files/deployment.yaml" | fromYaml).spec.template.spec.initContainers 0 -}}
{{- $_ := set $container "image" (include "key-broker.image" .) -}}
{{- $env := list -}}
{{- range $container.env -}}
{{- if eq .name "AWS_ROLE_ARN" }}{{ $_ := set . "value" $.Values.role }}{{ end -}}
{{- if or $.Values.role (not (hasPrefix "AWS_" .name)) }}{{ $env = append $env . }}{{ end -}}
{{- end -}}
{{- range $name, $value := .Values.env }}{{ $env = append $env (dict "name" $name "value" $value) }}{{ end -}}
{{- $_ := set $container "env" $env -}}
{{- $_ := set $container.resources.requests "ephemeral-storage" (include "key-broker.journal" .) -}}
{{- toYaml $container -}}
{{- end -}}

{{/* Its volumes. */}}
{{- define "key-broker.volumes" -}}
{{- $volumes := (.Files.Get "files/deployment.yaml" | fromYaml).spec.template.spec.volumes -}}
{{- range $volumes -}}
{{- if eq .name "key-broker-journal" }}{{ $_ := set .emptyDir "sizeLimit" (include "key-broker.journal" $) }}{{ end -}}
{{- if eq .name "key-broker-config" }}{{ $_ := set .configMap "name" $.Values.config.name }}{{ end -}}
{{- end -}}
{{- toYaml $volumes -}}
{{- end -}}

{{/* What a container is permitted: the broker's own. */}}
{{- define "key-broker.securityContext" -}}
{{- toYaml (fromYaml (include "key-broker.container" .)).securityContext -}}
{{- end -}}

{{- define "key-broker.podSecurityContext" -}}
{{- toYaml (.Files.Get "files/deployment.yaml" | fromYaml).spec.template.spec.securityContext -}}
{{- end -}}

{{/* key-broker.toml, as files/config.yaml has it, with this release's values in it. */}}
{{- define "key-broker.settings" -}}
{{- $settings := fromToml (index (.Files.Get "files/config.yaml" | fromYaml).data "key-broker.toml") -}}
{{- $own := fromToml .Values.config.settings -}}
{{- if $own.Error }}{{ fail (printf "config.settings is no TOML: %s" $own.Error) }}{{ end -}}
{{- if hasKey ($own.audit | default dict) "max_undelivered_bytes" -}}
{{- fail "config.settings: leave audit.max_undelivered_bytes out: journal.sizeMi says it, and more would lose journals" -}}
{{- end -}}
{{- with .Values.config -}}
{{- $_ := set $settings.kms "region" (required "config.region: the region of KMS and of the trail's bucket" .region) -}}
{{- $_ := set $settings.audit "trail" .trail -}}
{{- $_ := set $settings.audit.store "s3_bucket" (required "config.bucket: the S3 bucket of the trail" .bucket) -}}
{{- $_ := set $settings.audit.signing "kms_key_id" .signingKey -}}
{{- $_ := set $settings.audit "kms_key_id" .trailKey -}}
{{- end -}}
{{- $_ := set $settings.audit "max_undelivered_bytes" (div (mul (int64 .Values.journal.sizeMi) 1048576 3) 4) -}}
{{- with .Values.tls -}}{{- if .enabled -}}
{{- $tls := dict "address" (printf "0.0.0.0:%d" (int .port)) "certificate_file" "/etc/key-broker-tls/tls.crt" "key_file" "/etc/key-broker-tls/tls.key" "trust_bundle_file" "/etc/key-broker-tls/ca.crt" -}}
{{- $_ := set $settings.listen "tls" $tls -}}
{{- end -}}{{- end -}}
{{- mustMergeOverwrite $settings $own | toToml -}}
{{- end -}}
