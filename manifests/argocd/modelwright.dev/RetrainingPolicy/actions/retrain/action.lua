-- A TrainingRun by this policy, now.
-- The API server sees Argo CD, not the person: the name is that of its ServiceAccount, and admission checks it.
local os = require("os")
local run = {
  apiVersion = obj.apiVersion,
  kind = "TrainingRun",
  metadata = {
    name = "by-argocd-" .. os.date("!%Y%m%d%H%M%S"),
    namespace = obj.metadata.namespace,
  },
  spec = {
    policyRef = {name = obj.metadata.name},
    manual = {
      by = "system:serviceaccount:argocd:argocd-server",
      reason = "an action in Argo CD, whose log names the person",
    },
  },
}
return {{operation = "create", resource = run}}
