-- The API server sees Argo CD, not the person: the name is that of its ServiceAccount, and admission checks it.
local os = require("os")
obj.spec.command = {
  name = "resume",
  token = "resume-" .. os.date("!%Y%m%dT%H%M%SZ"),
  by = "system:serviceaccount:argocd:argocd-server",
  reason = "an action in Argo CD, whose log names the person",
}
return obj
