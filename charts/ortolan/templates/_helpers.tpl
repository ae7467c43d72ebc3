{{- /*
Names, labels and images. Inputs: .Values and .Release; outputs are strings (or YAML text) for the templates beside this file.
Invariant: nothing here depends on the time and nothing is random: applying the rendered YAML twice changes nothing.
*/ -}}

{{- define "ortolan.name" -}}
{{- .Values.nameOverride | default .Chart.Name -}}
{{- end -}}

{{- /* Prefix of all names, at most 40 characters: the longest suffix is "-operator-metrics". */ -}}
{{- define "ortolan.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains (include "ortolan.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "ortolan.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "ortolan.operator" -}}
{{- include "ortolan.fullname" . }}-operator
{{- end -}}

{{- define "ortolan.selectorLabels" -}}
app.kubernetes.io/name: {{ include "ortolan.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "ortolan.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "ortolan.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "ortolan.router" -}}
{{- include "ortolan.fullname" . }}-router
{{- end -}}

{{- define "ortolan.routerSelectorLabels" -}}
app.kubernetes.io/name: {{ include "ortolan.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: router
{{- end -}}

{{- define "ortolan.routerLabels" -}}
{{ include "ortolan.labels" . | replace "app.kubernetes.io/component: operator" "app.kubernetes.io/component: router" }}
{{- end -}}

{{- define "ortolan.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "ortolan.operator" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- /* The one namespace that the operator watches; empty: all. Role and binding of a namespaced install go there. */ -}}
{{- define "ortolan.watchNamespace" -}}
{{- if .Values.namespaced -}}
{{- .Values.watchNamespace | default .Release.Namespace -}}
{{- else if .Values.watchNamespace -}}
{{- fail (printf "watchNamespace is %q but namespaced is false: set namespaced=true to watch that namespace only, or leave watchNamespace empty to watch all." .Values.watchNamespace) -}}
{{- end -}}
{{- end -}}

{{- /* image: (list . "name"). A name without tag or digest gets the registry and the tag of the values. */ -}}
{{- define "ortolan.image" -}}
{{- $root := index . 0 -}}
{{- $name := index . 1 -}}
{{- if or (contains "@" $name) (contains ":" (regexReplaceAll "^.*/" $name "")) -}}
{{- $name -}}
{{- else -}}
{{- with $root.Values.images.registry }}{{ . }}/{{ end -}}
{{- $name }}:{{ $root.Values.images.tag | default $root.Chart.AppVersion -}}
{{- end -}}
{{- end -}}

{{- /* PodSecurity "restricted"; the read-only root is ours on top. */ -}}
{{- define "ortolan.podSecurityContext" -}}
runAsNonRoot: true
{{- with .Values.runAsUser }}
runAsUser: {{ int64 . }}
runAsGroup: {{ int64 . }}
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "ortolan.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}
