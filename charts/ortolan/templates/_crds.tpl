{{- /*
Who looks after the CRDs. One CRD serves the whole cluster and outlives its release (crds.keep), but Helm's ownership marks on it name one
release: a plain template would make every install under another name or namespace fail with "invalid ownership metadata". So the
template asks the cluster (`lookup`) and decides:

  apply   there is no such CRD, or this release owns it, or there is no cluster to ask (`helm template`, Argo CD, `helm lint`):
          an ordinary object of the release. Upgrades change it, uninstall keeps it (unless crds.keep is false).
  adopt   its owner is another Helm release that no longer runs an operator (uninstalled): the CRD becomes a pre-install/pre-upgrade
          hook that carries this release's ownership marks. Helm 4 applies hooks on the server side without the ownership check and never
          deletes a CRD that is a hook; from the next upgrade on the CRD is "apply" here.
  leave   its owner is another release that does run an operator (two installs beside each other), or no Helm release at all
          (kubectl, GitOps): it is somebody else's to upgrade. When that CRD is older than this chart, the install is refused with a
          sentence instead of running an operator that does not know its own API. Helm 3 creates hooks and cannot adopt: also "leave".

A CRD that was adopted is marked and kept for ever (crds.keep=false does not reach it): `helm rollback` to a revision that held it as a hook would
otherwise delete it, and every InferenceService with it.

"ortolan.crd.plan" takes (list . "<crd name>") and prints YAML: {mode, owner, namespace, adopted}.
*/ -}}

{{- define "ortolan.crd.plan" -}}
{{- $root := index . 0 -}}
{{- $name := index . 1 -}}
{{- $plan := dict "mode" "apply" "owner" "" "namespace" "" "adopted" false -}}
{{- $live := lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" $name -}}
{{- if $live -}}
{{- $labels := $live.metadata.labels | default dict -}}
{{- $annotations := $live.metadata.annotations | default dict -}}
{{- $owner := "" -}}
{{- if eq "Helm" (index $labels "app.kubernetes.io/managed-by" | default "") -}}
{{- $owner = index $annotations "meta.helm.sh/release-name" | default "" -}}
{{- end -}}
{{- $namespace := index $annotations "meta.helm.sh/release-namespace" | default "" -}}
{{- $_ := set $plan "owner" $owner -}}
{{- $_ := set $plan "namespace" $namespace -}}
{{- if eq "true" (index $annotations "serving.ortolan.dev/adopted" | default "") -}}
{{- $_ := set $plan "adopted" true -}}
{{- end -}}
{{- if and (eq $owner $root.Release.Name) (eq $namespace $root.Release.Namespace) -}}
{{- $_ := set $plan "mode" "apply" -}}
{{- else if not $owner -}}
{{- $_ := set $plan "mode" "leave" -}}
{{- else if include "ortolan.crd.ownerRuns" (list $owner $namespace) -}}
{{- $_ := set $plan "mode" "leave" -}}
{{- else if semverCompare "<4.0.0-0" $root.Capabilities.HelmVersion.Version -}}
{{- $_ := set $plan "mode" "leave" -}}
{{- else -}}
{{- $_ := set $plan "mode" "adopt" -}}
{{- $_ := set $plan "adopted" true -}}
{{- end -}}
{{- if eq $plan.mode "leave" -}}
{{- $version := index $labels "app.kubernetes.io/version" | default "" -}}
{{- if and $version (semverCompare (printf "<%s" $root.Chart.AppVersion) $version) -}}
{{- fail (printf "The CRD %s is of version %s, this chart needs %s, and %s looks after it. Upgrade that first; then install this release." $name $version $root.Chart.AppVersion (include "ortolan.crd.owner" $plan)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml $plan -}}
{{- end -}}

{{- /* Prints "yes" when the release (list name namespace) has an Ortolan operator in the cluster. */ -}}
{{- define "ortolan.crd.ownerRuns" -}}
{{- $owner := index . 0 -}}
{{- $namespace := index . 1 -}}
{{- $runs := "" -}}
{{- range (lookup "apps/v1" "Deployment" $namespace "").items -}}
{{- $annotations := .metadata.annotations | default dict -}}
{{- $labels := .metadata.labels | default dict -}}
{{- if and (eq $owner (index $annotations "meta.helm.sh/release-name" | default "")) (hasPrefix "ortolan-" (index $labels "helm.sh/chart" | default "")) -}}
{{- $runs = "yes" -}}
{{- end -}}
{{- end -}}
{{- $runs -}}
{{- end -}}

{{- define "ortolan.crd.owner" -}}
{{- if .owner -}}
the Helm release {{ .owner }} in namespace {{ .namespace }}
{{- else -}}
something other than Helm (kubectl or a GitOps tool)
{{- end -}}
{{- end -}}
