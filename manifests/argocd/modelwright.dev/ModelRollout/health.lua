-- Health by the conditions that kstatus defines. One script for all kinds: scripts/argocd.py copies it.
-- Suspended: people, or a freeze, hold it back.
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
      return {status = "Healthy", message = "made by its Model, whose status reports on it"}
    end
  end
end
if status == nil or status.conditions == nil then
  return {status = "Progressing", message = "the operator has not looked at it yet"}
end
if status.observedGeneration ~= obj.metadata.generation then
  return {status = "Progressing", message = "the operator has not seen the last change yet"}
end
local told = {}
for _, condition in ipairs(status.conditions) do
  if condition.status == "True" then
    told[condition.type] = condition
  end
end
local health, why = "Progressing", told.Reconciling
if told.Stalled ~= nil then
  health, why = "Degraded", told.Stalled
elseif told.Reconciling == nil and told.Ready ~= nil then
  health, why = "Healthy", told.Ready
end
if why == nil then
  return {status = "Progressing", message = "its conditions say nothing"}
end
if held[why.reason] then
  health = "Suspended"
end
return {status = health, message = why.reason .. ": " .. why.message}
