-- Health by the conditions that kstatus defines. One script for all kinds: scripts/argocd.py copies it.
-- Suspended: a person or a freeze holds it.
local held = {
  AwaitingApproval = true,
  FreezeWindow = true,
  HeldByRollback = true,
  Paused = true,
  Suspended = true,
}
local status = obj.status
if status == nil and obj.kind == "ModelVersion" then
  for _, owner in ipairs(obj.metadata.ownerReferences or {}) do
    if owner.kind == "Model" and owner.controller then
      return {status = "Healthy", message = "created by its Model, whose status has its state"}
    end
  end
end
if status == nil or status.conditions == nil then
  return {status = "Progressing", message = "the operator has not observed it yet"}
end
if status.observedGeneration ~= obj.metadata.generation then
  return {status = "Progressing", message = "the operator has not observed the last change yet"}
end
local conditions = {}
for _, condition in ipairs(status.conditions) do
  if condition.status == "True" then
    conditions[condition.type] = condition
  end
end
local health, why = "Progressing", conditions.Reconciling
if conditions.Stalled ~= nil then
  health, why = "Degraded", conditions.Stalled
elseif conditions.Reconciling == nil and conditions.Ready ~= nil then
  health, why = "Healthy", conditions.Ready
end
if why == nil then
  return {status = "Progressing", message = "it has no conclusive condition"}
end
if held[why.reason] then
  health = "Suspended"
end
return {status = health, message = why.reason .. ": " .. why.message}
