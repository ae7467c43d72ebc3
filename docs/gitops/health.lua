-- Argo CD's health of an InferenceService. It belongs into the ConfigMap argocd-cm, under
--   resource.customizations.health.serving.ortolan.dev_InferenceService
-- docs/gitops.md shows how; tests/tests/gitops.rs runs this file on an object of every state.
local health = { status = "Progressing", message = "The operator has not looked at this spec yet" }

if obj.metadata.deletionTimestamp ~= nil then
  health.message = "It is being deleted"
  return health
end
-- A status of the spec before says nothing of this one.
if obj.status == nil or obj.status.conditions == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return health
end

local ready, stalled
for _, condition in ipairs(obj.status.conditions) do
  if condition.type == "Ready" then ready = condition end
  if condition.type == "Stalled" then stalled = condition end
end
if ready == nil then
  return health
end

health.message = ready.reason .. ": " .. (ready.message or "")
if stalled ~= nil and stalled.status == "True" then
  -- Only a change of the spec, or `ortolan rollout retry`, helps.
  health.status = "Degraded"
elseif ready.status == "True" then
  health.status = "Healthy"
elseif ready.reason == "Paused" or ready.reason == "AwaitingApproval" then
  health.status = "Suspended"
end
return health
