-- Health of an ElasticWorkload for Argo CD: key resource.customizations.health.catamaran.dev_ElasticWorkload of argocd-cm.
local health = { status = "Progressing", message = "the operator has not looked at this generation yet" }
if obj.status == nil or obj.status.conditions == nil then
  return health
end
if obj.status.observedGeneration ~= obj.metadata.generation then
  return health
end
local conditions = {}
for _, condition in ipairs(obj.status.conditions) do
  conditions[condition.type] = condition
end
if conditions.Stalled ~= nil and conditions.Stalled.status == "True" then
  return { status = "Degraded", message = conditions.Stalled.message }
end
local ready = conditions.Ready
if ready == nil then
  return health
end
if ready.status == "True" then
  return { status = "Healthy", message = ready.message }
end
if ready.reason == "Paused" then
  return { status = "Suspended", message = ready.message }
end
return { status = "Progressing", message = ready.message }
