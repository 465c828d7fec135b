-- A ModelRollout that goes back at once to the version that served before this one, and holds the Model there.
-- The API server sees Argo CD, not the person: the name is that of its ServiceAccount, and admission checks it.
local os = require("os")
local version = nil
for _, entry in ipairs(obj.status.history) do
  if version == nil and entry.version ~= obj.status.serving.version then
    version = entry.version
  end
end
local back = {
  apiVersion = obj.apiVersion,
  kind = "ModelRollout",
  metadata = {
    name = obj.metadata.name .. "-back-" .. os.date("!%Y%m%d%H%M%S"),
    namespace = obj.metadata.namespace,
  },
  spec = {
    modelRef = {name = obj.metadata.name},
    target = {version = version},
    rollback = {
      by = "system:serviceaccount:argocd:argocd-server",
      reason = "an action in Argo CD, whose log names the person",
    },
  },
}
return {{operation = "create", resource = back}}
